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

/// Fills the first page of `frame` with zero bytes: [`zero`] for the size that matters most.
#[inline]
pub fn zero_page<K: FrameKind>(frame: &mut Frame<K>) {
    // SAFETY: the handle is the only one to its frames, of which there is at least one, and the direct map covers it.
    unsafe { Machine::zero_page(frame_ptr(frame.pfn())) }
}

/// The contents of an owned frame.
pub fn bytes_mut<K: FrameKind>(frame: &mut Frame<K>) -> &mut [u8] {
    let len = frame.bytes() as usize;
    // SAFETY: the handle is the only one to its frames, borrowed for as long as the slice lives; the direct map covers
    // all of them, and any bytes are valid `u8`s (the allocator hands out frames that were written at least once: RAM).
    unsafe { core::slice::from_raw_parts_mut(frame_ptr(frame.pfn()), len) }
}

/// The contents of the first page of an owned frame: [`bytes_mut`] of the size that matters most.
#[inline]
pub fn page_mut<K: FrameKind>(frame: &mut Frame<K>) -> &mut [u8; PAGE_SIZE as usize] {
    // SAFETY: as for `bytes_mut`; there is one page at least.
    unsafe { &mut *frame_ptr(frame.pfn()).cast() }
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
    let from = part_of(folio, offset, out.len());
    if out.len() as u64 == PAGE_SIZE {
        // SAFETY: in bounds as checked, of memory that the reference keeps; `out` is as long and nobody else's.
        return unsafe { Machine::copy_page(out.as_mut_ptr(), from) };
    }
    for (i, byte) in out.iter_mut().enumerate() {
        // SAFETY: in bounds as checked; the reference keeps the frames alive; volatile because tasks may write to them.
        *byte = unsafe { from.add(i).read_volatile() };
    }
}

/// Copies `bytes` to `offset` in a folio that tasks may be using: which of two stores at the same time stays is theirs to
/// settle.
///
/// # Panics
/// The bytes do not lie in the folio.
pub fn poke(folio: &Folio, offset: u64, bytes: &[u8]) {
    let to = part_of(folio, offset, bytes.len());
    if bytes.len() as u64 == PAGE_SIZE {
        // SAFETY: in bounds as checked, of memory that the reference keeps; `bytes` is as long, and kernel memory.
        return unsafe { Machine::copy_page(to, bytes.as_ptr()) };
    }
    for (i, byte) in bytes.iter().enumerate() {
        // SAFETY: in bounds as checked; the reference keeps the frames alive; volatile because tasks may use them.
        unsafe { to.add(i).write_volatile(*byte) };
    }
}

/// [`poke`] of `len` zero bytes.
///
/// # Panics
/// The bytes do not lie in the folio.
pub fn poke_zeros(folio: &Folio, offset: u64, len: usize) {
    let to = part_of(folio, offset, len);
    for i in 0..len {
        // SAFETY: as in `poke`.
        unsafe { to.add(i).write_volatile(0) };
    }
}

/// Where the `len` bytes at `offset` of a folio begin.
fn part_of(folio: &Folio, offset: u64, len: usize) -> *mut u8 {
    let fits = offset
        .checked_add(len as u64)
        .is_some_and(|end| end <= folio.bytes());
    assert!(fits, "bytes {offset}+{len} of a folio of {} bytes", folio.bytes());
    // SAFETY: in bounds of the folio's frames, which the direct map covers in one piece.
    unsafe { frame_ptr(folio.pfn()).add(offset as usize) }
}
