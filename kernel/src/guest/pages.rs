//! Pages that the hypervisor or the CPU writes while the guest reads them, and views in which pages are there or not.
#![expect(unsafe_code, reason = "a frame as a structure of atomics; VMFUNC")]

use core::marker::PhantomData;
use core::ops::Deref;

use super::ring::RingPage;
use super::violation::ViolationPage;
use crate::arch::hypercall;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::{Frame, KernelData, OutOfFrames};
use crate::mm::phys;

/// What such a page can hold.
///
/// # Safety
/// A page long, page-aligned, all of it atomics or nothing, and zeros are a value of it.
pub unsafe trait Layout: Sync {}

// SAFETY: as their definitions say, which assert the size.
unsafe impl Layout for RingPage {}
// SAFETY: likewise.
unsafe impl Layout for ViolationPage {}

/// A page of its own with a `T`, of zeros at first.
#[derive(Debug)]
pub struct Shared<T: Layout> {
    frame: Frame<KernelData>,
    holds: PhantomData<T>,
}

impl<T: Layout> Shared<T> {
    /// A page of zeros.
    ///
    /// # Errors
    /// No frame is free.
    pub fn new() -> Result<Self, OutOfFrames> {
        const { assert!(size_of::<T>() == PAGE_SIZE as usize) };
        Ok(Self {
            frame: Frame::alloc_zeroed()?,
            holds: PhantomData,
        })
    }

    /// The page itself.
    pub fn at(&self) -> &Frame<KernelData> {
        &self.frame
    }
}

impl<T: Layout> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the frame is this value's own, a page, mapped in the direct map; its bytes are a `T` (trait contract), which
        // may change at any time because it consists of atomics.
        unsafe { &*phys::frame_ptr(self.frame.pfn()).cast::<T>() }
    }
}

/// Has this CPU see memory in another view. Called where a violation has been described, by a monitor that was given views.
pub(super) fn switch_view(view: u64) {
    // SAFETY: the hypervisor has granted views to this monitor, or the CPU would not have told of violations; what one has of
    // ordinary memory, the other has too (contract).
    unsafe { hypercall::switch_view(view) };
}
