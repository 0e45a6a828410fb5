//! A clone: a machine whose memory is private mappings of what was saved.

use alloc::sync::Arc;

use hv::vcpu::Vcpu;
use hv::vendor::{Features, Vendor};
use kernel::abi::guest::Resumed;
use kernel::lab::digest::DigestList;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::Origin;
use kernel::mm::pt::Entry;
use kernel::mm::uaccess::AccessError;

use crate::apps::AppError;
use crate::apps::common::{PAGE, Region};
use crate::apps::guest::{
    Console, Ended, GuestError, Limit, Printed, Saved, assemble, of_region, run_to_end, vcpu,
};

/// A clone that has not begun.
pub struct Instance<V: Vendor> {
    vcpu: Vcpu<V>,
    console: Arc<Console>,
    memory: Memory,
}

/// The memory of a clone.
pub struct Memory {
    /// Ordinary memory, and what it is a private mapping of.
    ordinary: (Region, Arc<Object>),
    /// Delegated memory, likewise.
    delegated: (Region, Arc<Object>),
}

/// A clone that has come to its end. Its memory is still there.
pub struct Finished {
    /// How it ended.
    pub ended: Result<Ended, GuestError>,
    /// What it printed.
    pub printed: Printed,
    /// Its memory.
    pub memory: Memory,
}

/// Pages that a clone has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Those of what was saved, which every clone may have.
    pub shared: u64,
    /// Those that it has to itself.
    pub private: u64,
}

impl<V: Vendor> Instance<V> {
    /// A clone with nothing mapped.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(features: &Features, saved: &Saved, number: u64) -> Result<Self, AppError> {
        let layout = saved.layout;
        let console = Console::new(alloc::format!("clone {number}"));
        let memory = Memory {
            ordinary: (Region::of(&saved.ordinary)?, Arc::clone(&saved.ordinary)),
            delegated: (Region::of(&saved.delegated)?, Arc::clone(&saved.delegated)),
        };
        let slots = [
            of_region(layout.ordinary, &memory.ordinary.0, 0),
            of_region(layout.delegated, &memory.delegated.0, 0),
        ];
        let vm = assemble::<V>(features, &layout, slots, &console)?;
        vm.resume_as(Resumed::Restored);
        Ok(Self {
            vcpu: vcpu(&vm, &saved.vcpu)?,
            console,
            memory,
        })
    }

    /// Runs it to its end.
    pub fn run(mut self, limit: Limit) -> Finished {
        let ended = run_to_end(&mut self.vcpu, limit, |fault| {
            Err(GuestError::Unserved(fault.addr))
        });
        Finished {
            ended,
            printed: self.console.take(),
            memory: self.memory,
        }
    }
}

impl Memory {
    /// Which pages it has.
    pub fn held(&self) -> Held {
        let mut held = Held::default();
        for (region, object) in [&self.ordinary, &self.delegated] {
            for page in 0..region.pages() {
                let (Entry::Leaf(leaf), _) = region.space.entry(region.address(page)) else {
                    continue;
                };
                match object.lookup(page as u64 * PAGE_SIZE) {
                    Lookup::Present(folio) if folio.pfn() == leaf.frame => held.shared += 1,
                    _ => held.private += 1,
                }
            }
        }
        held
    }

    /// Digests of the delegated memory.
    ///
    /// # Errors
    /// A page could not be read.
    pub fn delegated(&self) -> Result<DigestList, AccessError> {
        let region = &self.delegated.0;
        let mut digests = DigestList::with_capacity(region.pages());
        let mut content = alloc::vec![0; PAGE];
        for page in 0..region.pages() {
            region
                .space
                .read_bytes(region.address(page), &mut content, Origin::Kernel)?;
            digests.push(&content);
        }
        Ok(digests)
    }
}
