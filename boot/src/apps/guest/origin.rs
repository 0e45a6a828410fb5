//! A guest that starts from its ELF.

use alloc::sync::Arc;

use hv::loader::{self, GuestBytes, LoadError, Setting};
use hv::memslot::SlotRequest;
use hv::vcpu::{Image, Vcpu};
use hv::vendor::{Features, Vendor};
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::GuestPhysAddr;
use kernel::mm::cache::Object;
use kernel::mm::fault::Origin as OnBehalf;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::uaccess::AccessError;

use super::machine::{assemble, of_region, vcpu};
use super::saved::{Saved, save_object, save_region};
use super::{Console, Guest};
use crate::apps::AppError;
use crate::apps::common::Region;

/// A guest with all of its memory to itself, before or at its first instruction.
pub struct Origin<V: Vendor> {
    /// Its vCPU.
    pub vcpu: Vcpu<V>,
    /// Its ordinary memory.
    pub ordinary: Region,
    /// Its delegated memory, of which nothing is delegated.
    pub delegated: Arc<Object>,
}

/// Ordinary memory as the loader sees it.
struct Ordinary<'a>(&'a Region);

impl GuestBytes for Ordinary<'_> {
    type Error = AccessError;

    fn len(&self) -> u64 {
        self.0.range.len()
    }

    fn write(&mut self, at: GuestPhysAddr, bytes: &[u8]) -> Result<(), AccessError> {
        let Region { space, range } = self.0;
        space.write_bytes(range.start + at.as_u64(), bytes, OnBehalf::Kernel)
    }
}

/// Puts the ELF of `guest` into `ordinary`; what its first vCPU starts with.
///
/// # Errors
/// The ELF is not taken, or memory is short.
pub fn load(guest: &Guest, ordinary: &Region) -> Result<Image, AppError> {
    let (delegated, store) = (guest.layout.delegated, guest.layout.store());
    let setting = Setting {
        cmdline: guest.cmdline,
        delegated: (delegated.start, delegated.len()),
        store: (store.start, store.len()),
        frequency: Machine::frequency(),
    };
    let loaded = loader::load(&mut Ordinary(ordinary), guest.elf, &setting).map_err(|error| match error {
        LoadError::Refused(why) => AppError::usage(why),
        LoadError::Memory(_) => AppError::failed(error),
    })?;
    Ok(Image::starting(loaded.registers(), loaded.system()))
}

impl<V: Vendor> Origin<V> {
    /// A guest at its first instruction.
    ///
    /// # Errors
    /// As [`load`]; or there is no memory for it.
    pub fn new(features: &Features, guest: &Guest, console: &Arc<Console>) -> Result<Self, AppError> {
        let layout = guest.layout;
        let ordinary = Region::new(layout.ordinary.pages())?;
        let delegated = Object::new(&GUEST_MEMFD, layout.delegated.len());
        let start = load(guest, &ordinary)?;
        let slots = [
            of_region(layout.ordinary, &ordinary, 0),
            SlotRequest::of_object(layout.delegated.start, &delegated, None),
        ];
        let vm = assemble::<V>(features, &layout, slots, console)?;
        Ok(Self {
            vcpu: vcpu(&vm, &start)?,
            ordinary,
            delegated,
        })
    }

    /// The guest as it is, between two runs; it can go on.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn save(&mut self, guest: &Guest) -> Result<Saved, AppError> {
        // A line that has begun belongs to what was before.
        self.vcpu.vm().flush_console();
        let pages = self.ordinary.pages();
        Ok(Saved {
            layout: guest.layout,
            vcpu: self.vcpu.image(),
            ordinary: save_region(&self.ordinary, 0..pages)?,
            delegated: save_object(&self.delegated)?,
        })
    }
}
