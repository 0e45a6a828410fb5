//! A machine from its parts: slots, a console, a vCPU.

use alloc::sync::Arc;

use hv::memory::GuestMemory;
use hv::memslot::SlotRequest;
use hv::vcpu::{Image, Vcpu};
use hv::vendor::{Features, Vendor};
use hv::vm::Vm;
use kernel::mm::pt::Entry;
use kernel::mm::range::GuestRange;

use super::{Console, Layout};
use crate::apps::AppError;
use crate::apps::common::Region;

/// A slot that shows the pages of `region` from `first` on.
pub fn of_region(at: GuestRange, region: &Region, first: usize) -> SlotRequest {
    let pages = region.part(first..first + at.pages() as usize);
    SlotRequest::of_space(at.start, &region.space, pages)
}

/// A machine with these slots.
///
/// # Errors
/// A slot is refused, or there is no memory for the tables.
pub fn assemble<V: Vendor>(
    features: &Features,
    layout: &Layout,
    slots: impl IntoIterator<Item = SlotRequest>,
    console: &Arc<Console>,
) -> Result<Arc<Vm<V>>, AppError> {
    let memory = GuestMemory::new(features).map_err(AppError::failed)?;
    for slot in slots {
        memory.add(slot).map_err(AppError::failed)?;
    }
    Ok(Vm::new(memory, layout.delegated, console.sink()))
}

/// A vCPU of `vm` with this state.
///
/// # Errors
/// There is no memory for it.
pub fn vcpu<V: Vendor>(vm: &Arc<Vm<V>>, image: &Image) -> Result<Vcpu<V>, AppError> {
    Vcpu::new(vm, image).map_err(AppError::failed)
}

/// Pages of a region that are there.
pub fn resident(region: &Region) -> u64 {
    let is_there = |page: &usize| matches!(region.space.entry(region.address(*page)), (Entry::Leaf(_), _));
    (0..region.pages()).filter(is_there).count() as u64
}
