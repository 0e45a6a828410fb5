//! Bytes of physical memory through the direct map.
//!
//! Everything that reads or writes the *contents* of a frame goes through here; who may do so is decided by handles:
//! the functions take a [`Frame`] or a [`Folio`], or say what they ask of the caller.
#![expect(unsafe_code, reason = "turns owned frames into memory")]

use core::ptr;

use super::addr::{PAGE_SIZE, Pfn};
use super::frame::{Folio, Frame, FrameKind};
use crate::arch::{Machine, Memory};

/// The first byte of a frame, in the direct map.
pub fn frame_ptr(pfn: Pfn) -> *mut u8 {
    Machine::direct_map(pfn.start())
}

/// Something that keeps frames alive and names them.
pub trait HoldsFrames {
    /// First frame.
    fn first(&self) -> Pfn;
    /// Bytes from the first frame on.
    fn bytes(&self) -> u64;
}

impl<K: FrameKind> HoldsFrames for Frame<K> {
    fn first(&self) -> Pfn {
        self.pfn()
    }
    fn bytes(&self) -> u64 {
        PAGE_SIZE << self.order()
    }
}

impl HoldsFrames for Folio {
    fn first(&self) -> Pfn {
        self.pfn()
    }
    fn bytes(&self) -> u64 {
        PAGE_SIZE << self.order()
    }
}

/// Fills `frame` with zero bytes.
#[inline]
pub fn zero<K: FrameKind>(frame: &mut Frame<K>) {
    let len = frame.bytes() as usize;
    // SAFETY: the handle is the only one to its frames, and the direct map covers all of them.
    unsafe { ptr::write_bytes(frame_ptr(frame.pfn()), 0, len) }
}

/// The contents of an owned frame.
pub fn bytes_mut<K: FrameKind>(frame: &mut Frame<K>) -> &mut [u8] {
    let len = frame.bytes() as usize;
    // SAFETY: the handle is the only one to its frames, borrowed for as long as the slice lives; the direct map covers
    // all of them, and any bytes are valid `u8`s (the allocator hands out frames that were written at least once: RAM).
    unsafe { core::slice::from_raw_parts_mut(frame_ptr(frame.pfn()), len) }
}

/// The contents of an owned frame, to read.
pub fn bytes<K: FrameKind>(frame: &Frame<K>) -> &[u8] {
    let len = frame.bytes() as usize;
    // SAFETY: as for `bytes_mut`, shared.
    unsafe { core::slice::from_raw_parts(frame_ptr(frame.pfn()), len) }
}

/// Copies the bytes of `src` into `frame` from its start.
///
/// # Panics
/// `src` is larger than the frame.
#[inline]
pub fn fill<K: FrameKind>(frame: &mut Frame<K>, src: &[u8]) {
    assert!(src.len() as u64 <= frame.bytes());
    // SAFETY: the handle is the only one to its frames, so nothing overlaps `src`; the length was checked.
    unsafe { ptr::copy_nonoverlapping(src.as_ptr(), frame_ptr(frame.pfn()), src.len()) }
}

/// Copies a page into the first page of `frame`: [`fill`] for the size that matters most.
#[inline]
pub fn fill_page<K: FrameKind>(frame: &mut Frame<K>, src: &[u8; PAGE_SIZE as usize]) {
    // SAFETY: the handle is the only one to its frames, of which there is at least one, so nothing overlaps `src`.
    unsafe { Machine::copy_page(frame_ptr(frame.pfn()), src.as_ptr()) }
}

/// Copies all of `src` to `dst`, for copy-on-write.
///
/// # Panics
/// They differ in size.
pub fn copy<K: FrameKind>(dst: &mut Frame<K>, src: &Folio) {
    assert_eq!(dst.bytes(), src.bytes(), "a copy of another size");
    for page in 0..1 << src.order() {
        let (from, to) = (
            frame_ptr(src.pfn().offset(page)),
            frame_ptr(dst.pfn().offset(page)),
        );
        // SAFETY: `dst` is the only handle to its frames, so the two differ; both hold this page. Tasks may write to
        // `src` meanwhile only where a race is theirs.
        unsafe { Machine::copy_page(to, from) }
    }
}

/// Copies `out.len()` bytes at `offset` out of a folio that tasks may be writing to.
///
/// # Panics
/// The bytes do not lie in the folio.
pub fn peek(folio: &Folio, offset: u64, out: &mut [u8]) {
    assert!(offset + out.len() as u64 <= folio.bytes());
    for (i, byte) in out.iter_mut().enumerate() {
        // SAFETY: in bounds as checked; the reference keeps the frames alive; volatile because tasks may write to them.
        *byte = unsafe { frame_ptr(folio.pfn()).add(offset as usize + i).read_volatile() };
    }
}
