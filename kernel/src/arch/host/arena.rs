//! Physical memory of a software machine.
//!
//! One zeroed allocation stands for all RAM, `[start, start + len)` in physical addresses. It does not begin at physical
//! address 0, so that a frame *index* that is taken for a frame *number* points nowhere. The host commits its pages
//! when they are first touched; a machine of 64 MiB costs what the test uses.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::mm::addr::{PAGE_SIZE, PhysAddr};

/// First physical address of every software machine's RAM; 2 MiB aligned.
pub const RAM_START: PhysAddr = PhysAddr::new(0x20_0000);

/// All RAM of one machine.
#[derive(Debug)]
pub struct Arena {
    /// Page-aligned; valid for `len` bytes until `released`.
    base: NonNull<u8>,
    allocation: (NonNull<u8>, Layout),
    len: u64,
    released: AtomicBool,
}

// SAFETY: the arena is shared like RAM is: it hands out raw pointers and atomics only. What is reached through the raw
// pointers is kept apart by the frame allocator (one owner per frame).
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// RAM of `len` bytes, rounded up to pages.
    pub fn new(len: u64) -> Self {
        let len = len.next_multiple_of(PAGE_SIZE);
        // Asking for page alignment would make the standard allocator clear (and so commit) every page; asking for
        // one page more and aligning here leaves that to the host kernel.
        let layout =
            Layout::from_size_align((len + PAGE_SIZE) as usize, 16).expect("a test's RAM fits the host");
        // SAFETY: the layout has a size of at least one page.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(raw) = NonNull::new(raw) else {
            handle_alloc_error(layout)
        };
        let skip = raw.as_ptr().align_offset(PAGE_SIZE as usize);
        // SAFETY: `skip` is below a page, and the allocation is a page longer than `len`.
        let base = unsafe { raw.add(skip) };
        Self {
            base,
            allocation: (raw, layout),
            len,
            released: AtomicBool::new(false),
        }
    }

    /// First address past RAM.
    pub fn end(&self) -> PhysAddr {
        RAM_START + self.len
    }

    /// Gives the memory back to the host; later accesses panic.
    ///
    /// # Safety
    /// No pointer that this arena handed out is used any more.
    pub unsafe fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            // SAFETY: allocated in `new` with this layout, released once.
            unsafe { dealloc(self.allocation.0.as_ptr(), self.allocation.1) };
        }
    }

    /// Where `len` bytes at `addr` stand in the host's memory; `None` when they do not all lie in RAM.
    pub fn pointer(&self, addr: PhysAddr, len: u64) -> Option<*mut u8> {
        assert!(
            !self.released.load(Ordering::Acquire),
            "physical memory of a machine that was left is touched at {addr:?}"
        );
        let offset = addr.as_u64().checked_sub(RAM_START.as_u64())?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset` is at most `len`, so the result is in the allocation or one past it.
        Some(unsafe { self.base.as_ptr().add(offset as usize) })
    }

    /// The aligned word at `addr`.
    pub fn word(&self, addr: PhysAddr) -> Option<&AtomicU64> {
        let pointer = self.pointer(addr, 8)?.cast::<u64>();
        assert!(
            pointer.is_aligned(),
            "word access to {addr:?}, which is not 8-aligned"
        );
        // SAFETY: valid for the life of the arena (checked above), aligned, and always accessed atomically by the MMU.
        Some(unsafe { AtomicU64::from_ptr(pointer) })
    }

    /// Loads `dst.len()` bytes at `addr` the way a CPU would: other CPUs may store to them meanwhile.
    pub fn load(&self, addr: PhysAddr, dst: &mut [MaybeUninit<u8>]) -> bool {
        let Some(src) = self.pointer(addr, dst.len() as u64) else {
            return false;
        };
        for (i, byte) in dst.iter_mut().enumerate() {
            // SAFETY: `pointer` checked that all of the bytes lie in RAM.
            byte.write(unsafe { AtomicU8::from_ptr(src.add(i)) }.load(Ordering::Relaxed));
        }
        true
    }

    /// Stores `src` at `addr` the way a CPU would.
    pub fn store(&self, addr: PhysAddr, src: &[u8]) -> bool {
        let Some(dst) = self.pointer(addr, src.len() as u64) else {
            return false;
        };
        for (i, byte) in src.iter().enumerate() {
            // SAFETY: `pointer` checked that all of the bytes lie in RAM.
            unsafe { AtomicU8::from_ptr(dst.add(i)) }.store(*byte, Ordering::Relaxed);
        }
        true
    }
}
