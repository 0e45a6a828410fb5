//! The owner's part of the restored guest's delegated memory: what the guest is not told of, or nobody told it to serve.
//!
//! A page is filled by `write()` into the object, which maps nothing; then its bit in the userfault bitmap is cleared, by an
//! atomic store; then the guest goes on and touches it again.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hv::bitmap::Bitmap;
use hv::userfault::MemoryFault;
use kernel::arch::{Clock, Machine};
use kernel::lab::page_set::PageSet;
use kernel::lab::samples::Samples;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::uffd::TrapKind;

use super::options::Injury;
use crate::apps::common::PAGE;
use crate::apps::guest::{GuestError, page_of};

/// The owner.
pub struct Owner {
    /// Delegated memory.
    pub object: Arc<Object>,
    /// Which pages are delegated.
    pub bitmap: Arc<Bitmap>,
    /// What was saved.
    pub saved: Arc<Object>,
    /// What it does wrong.
    pub injury: Option<Injury>,
    served: Served,
    resolved: PageSet,
    content: Vec<u8>,
}

/// What the owner has done.
#[derive(Debug, Default)]
pub struct Served {
    /// Faults on pages that were absent.
    pub missing: u64,
    /// Faults on pages that were in the object already.
    pub minor: u64,
    /// Pages that it filled.
    pub filled: u64,
    /// Ticks from being told to having resolved.
    pub ticks: Samples,
}

impl Owner {
    /// The owner of an object whose pages are all delegated.
    pub fn new(
        object: &Arc<Object>,
        bitmap: &Arc<Bitmap>,
        saved: &Arc<Object>,
        injury: Option<Injury>,
    ) -> Self {
        let pages = bitmap.len() as usize;
        Self {
            object: Arc::clone(object),
            bitmap: Arc::clone(bitmap),
            saved: Arc::clone(saved),
            injury,
            served: Served {
                ticks: Samples::with_capacity(pages),
                ..Served::default()
            },
            resolved: PageSet::new(pages),
            content: alloc::vec![0; PAGE],
        }
    }

    /// Resolves what the guest waits for.
    ///
    /// # Errors
    /// There is no memory for the page; or the guest waits for one that was resolved already.
    pub fn serve(&mut self, fault: &MemoryFault) -> Result<(), GuestError> {
        let before = Machine::ticks();
        let page = fault.offset / PAGE_SIZE;
        if !self.resolved.insert(page as usize) {
            return Err(GuestError::Owner(format!(
                "the guest waits for delegated page {page} again, which its owner has said to be resolved"
            )));
        }
        match self.injury {
            Some(Injury::Skip(skipped)) if skipped == page => {
                self.bitmap.clear(page);
            }
            Some(Injury::Wrong(wrong)) if wrong == page => self.resolve((page + 1) % self.bitmap.len())?,
            _ if fault.kind == TrapKind::Missing => self.resolve(page)?,
            _ => {
                self.bitmap.clear(page);
            }
        }
        match fault.kind {
            TrapKind::Missing => self.served.missing += 1,
            _ => self.served.minor += 1,
        }
        self.served.ticks.record(Machine::ticks() - before);
        Ok(())
    }

    fn resolve(&mut self, page: u64) -> Result<(), GuestError> {
        page_of(&self.saved, page, &mut self.content);
        let (_, written) = self.object.write(page * PAGE_SIZE, &self.content);
        written.map_err(|error| {
            GuestError::Owner(format!("delegated page {page} could not be filled: {error:?}"))
        })?;
        self.bitmap.clear(page);
        self.served.filled += 1;
        Ok(())
    }

    /// What it has done.
    pub fn served(self) -> Served {
        self.served
    }
}
