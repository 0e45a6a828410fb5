//! Owned handles.
//!
//! * [`Frame<K>`]: the only owner of a block; its kind is part of the type.
//! * [`Folio`]: one of several owners, counted. Page-table entries of tasks own a folio each.
//!
//! Dropping the last handle frees the block. A handle can be turned into a plain frame number for storage in a
//! page-table entry and back; only [`crate::mm::pt`] does that.
#![expect(unsafe_code, reason = "turns stored frame numbers back into owners")]

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::fence;

use arrayvec::ArrayVec;

use super::meta::{FrameMeta, IN_CACHE, Kind, UNUSED};
use super::{OutOfFrames, allocator};
use crate::mm::addr::Pfn;
use crate::mm::phys;

/// What a frame is used for, as a type.
pub trait FrameKind {
    /// The same as a value.
    const KIND: Kind;
}

macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl FrameKind for $name {
            const KIND: Kind = Kind::$name;
        }
    )*};
}

frame_kinds! {
    /// A page-table node.
    Table,
    /// Memory of tasks.
    Anon,
    /// A kernel stack.
    Stack,
    /// The kernel heap.
    Heap,
    /// Memory that a device reads or writes.
    Dma,
    /// Anything else of the kernel's.
    KernelData,
}

/// The only owner of a block of frames.
#[derive(Debug)]
pub struct Frame<K: FrameKind> {
    pfn: Pfn,
    kind: PhantomData<K>,
}

impl<K: FrameKind> Frame<K> {
    /// A single frame; its contents are whatever they were.
    ///
    /// # Errors
    /// No frame is free.
    #[inline]
    pub fn alloc() -> Result<Self, OutOfFrames> {
        Self::alloc_order(0)
    }

    /// 2^`order` frames in a row, aligned to their size; contents are whatever they were.
    ///
    /// # Errors
    /// No such block is free.
    #[inline]
    pub fn alloc_order(order: u8) -> Result<Self, OutOfFrames> {
        allocator().alloc(order, K::KIND).map(Self::new)
    }

    /// Up to `wanted` single frames, as many as `frames` has room for; their contents are whatever they were.
    ///
    /// # Errors
    /// No more frames are free; those that were are in `frames`.
    #[inline]
    pub fn alloc_some<const N: usize>(
        wanted: usize,
        frames: &mut ArrayVec<Self, N>,
    ) -> Result<(), OutOfFrames> {
        let wanted = wanted.min(frames.remaining_capacity());
        allocator().alloc_some(wanted, K::KIND, |pfn| frames.push(Self::new(pfn)))
    }

    /// The handle to a block that was just allocated.
    #[inline]
    pub(super) fn new(pfn: Pfn) -> Self {
        Self {
            pfn,
            kind: PhantomData,
        }
    }

    /// A single frame of zero bytes.
    ///
    /// # Errors
    /// No frame is free.
    #[inline]
    pub fn alloc_zeroed() -> Result<Self, OutOfFrames> {
        let mut frame = Self::alloc()?;
        phys::zero_page(&mut frame);
        Ok(frame)
    }

    /// The first frame's number.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// log2 of the number of frames.
    pub fn order(&self) -> u8 {
        allocator().meta(self.pfn).order.load(Relaxed)
    }

    /// Gives up the handle but not the frames.
    pub(in crate::mm) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn
    }

    /// Takes back what [`Self::into_raw`] gave up.
    ///
    /// # Safety
    /// `pfn` came from `into_raw` of the same kind, and this is the only call for it.
    pub(in crate::mm) unsafe fn from_raw(pfn: Pfn) -> Self {
        debug_assert_eq!(allocator().meta(pfn).kind(), K::KIND);
        Self {
            pfn,
            kind: PhantomData,
        }
    }
}

impl<K: FrameKind> Drop for Frame<K> {
    fn drop(&mut self) {
        allocator().free(self.pfn);
    }
}

/// One of the owners of a block of task memory.
#[derive(Debug)]
pub struct Folio {
    pfn: Pfn,
}

impl From<Frame<Anon>> for Folio {
    #[inline]
    fn from(frame: Frame<Anon>) -> Self {
        Self {
            pfn: frame.into_raw(),
        }
    }
}

impl Folio {
    /// The first frame's number.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// log2 of the number of frames.
    pub fn order(&self) -> u8 {
        allocator().meta(self.pfn).order.load(Relaxed)
    }

    /// Number of owners at this moment. What those who let go before did to the bytes is visible afterwards.
    pub fn owners(&self) -> u32 {
        allocator().meta(self.pfn).owners()
    }

    /// Says that this is a page of a memory object's cache from now on; `unused` if it is there ahead of use.
    pub(in crate::mm) fn note_cached(&self, unused: bool) {
        let flags = if unused { IN_CACHE | UNUSED } else { IN_CACHE };
        allocator().meta(self.pfn).flags.fetch_or(flags, Relaxed);
    }

    /// Takes back what [`Self::note_cached`] said: it did not get there.
    pub(in crate::mm) fn note_not_cached(&self) {
        allocator()
            .meta(self.pfn)
            .flags
            .fetch_and(!(IN_CACHE | UNUSED), Relaxed);
    }

    /// Whether this is, or was until a moment ago, a page of a memory object's cache; not somebody's own copy of one.
    pub fn is_cached(&self) -> bool {
        allocator().meta(self.pfn).flags.load(Relaxed) & IN_CACHE != 0
    }

    /// Says that somebody uses the page.
    pub(in crate::mm) fn note_used(&self) {
        clear_unused(allocator().meta(self.pfn));
    }

    /// A further owner, who uses the page.
    #[inline]
    pub(in crate::mm) fn share_used(&self) -> Self {
        let meta = allocator().meta(self.pfn);
        clear_unused(meta);
        meta.refs.fetch_add(1, Relaxed);
        Self { pfn: self.pfn }
    }

    /// Whether the page is in a cache ahead of use and nobody has used it since.
    pub(in crate::mm) fn is_unused(&self) -> bool {
        allocator().meta(self.pfn).flags.load(Relaxed) & UNUSED != 0
    }

    /// Gives up the handle but not the reference.
    pub(in crate::mm) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn
    }

    /// Takes back what [`Self::into_raw`] gave up.
    ///
    /// # Safety
    /// `pfn` came from `into_raw`, and this is the only call for that reference.
    pub(in crate::mm) unsafe fn from_raw(pfn: Pfn) -> Self {
        Self { pfn }
    }

    /// A further owner of the block at `pfn`.
    ///
    /// # Safety
    /// A reference to it exists for the whole call (for example in a page-table entry under its lock).
    pub(in crate::mm) unsafe fn share_raw(pfn: Pfn) -> Self {
        allocator().meta(pfn).refs.fetch_add(1, Relaxed);
        Self { pfn }
    }
}

/// The block is used from now on. Seldom a change, so it is looked at first.
#[inline]
fn clear_unused(meta: &FrameMeta) {
    if meta.flags.load(Relaxed) & UNUSED != 0 {
        meta.flags.fetch_and(!UNUSED, Relaxed);
    }
}

impl Clone for Folio {
    fn clone(&self) -> Self {
        allocator().meta(self.pfn).refs.fetch_add(1, Relaxed);
        Self { pfn: self.pfn }
    }
}

impl Drop for Folio {
    #[inline]
    fn drop(&mut self) {
        // The same protocol as `Arc`: the last owner sees what the others did before they let go.
        if allocator().meta(self.pfn).refs.fetch_sub(1, Release) == 1 {
            fence(Acquire);
            allocator().free(self.pfn);
        }
    }
}
