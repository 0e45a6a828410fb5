//! The kernel heap: `linked_list_allocator` over a window that grows with frames.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use super::addr::{PAGE_SIZE, VirtAddr};
use super::frame::{Frame, Heap as HeapFrame, OutOfFrames, allocator};
use super::kmap;
use crate::sync::IrqLock;

/// Bytes by which the heap grows at least.
const STEP: u64 = 256 << 10;

/// The heap. Not for interrupt handlers: growing takes frames and the lock of the kernel's tables, which the interrupted
/// task may be in the middle of. Lock order: this lock, then those.
struct KernelHeap(IrqLock<State>);

struct State {
    heap: Heap,
    /// Bytes of the window that are mapped.
    mapped: u64,
}

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqLock::new(State {
    heap: Heap::empty(),
    mapped: 0,
}));

impl State {
    fn end(&self) -> VirtAddr {
        kmap::HEAP.start + self.mapped
    }

    /// Maps `bytes` more, or a step if that is more and there are frames for it.
    fn grow(&mut self, bytes: u64) -> Result<(), OutOfFrames> {
        // The heap gives nothing back, so what can never be had must not take all that is there.
        let room = (kmap::HEAP.len() - self.mapped).min(allocator().stats().free * PAGE_SIZE);
        if bytes > room {
            return Err(OutOfFrames);
        }
        let wanted = bytes.max(STEP).next_multiple_of(PAGE_SIZE);
        let mut added = 0;
        while added < wanted {
            if self.mapped + added >= kmap::HEAP.len() {
                break;
            }
            let Ok(frame) = Frame::<HeapFrame>::alloc() else {
                break;
            };
            if kmap::map_frames(self.end() + added, core::iter::once(frame.pfn())).is_err() {
                break;
            }
            // The heap keeps what it has.
            core::mem::forget(frame);
            added += PAGE_SIZE;
        }
        if added == 0 {
            return Err(OutOfFrames);
        }
        let first = self.mapped == 0;
        self.mapped += added;
        if first {
            // SAFETY: the window's first `added` bytes were just mapped, writable, and nothing else uses the window.
            unsafe {
                self.heap
                    .init(kmap::HEAP.start.as_u64() as *mut u8, added as usize)
            };
        } else {
            // SAFETY: the bytes that follow the heap's end were just mapped, and nothing else uses the window.
            unsafe { self.heap.extend(added as usize) };
        }
        // Less than a step may still be enough.
        if added < bytes { Err(OutOfFrames) } else { Ok(()) }
    }
}

// SAFETY: `Heap` hands out disjoint blocks of the layout asked for, and the lock serialises it. Nothing here unwinds.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        if let Ok(block) = state.heap.allocate_first_fit(layout) {
            return block.as_ptr();
        }
        // Room for the block at its alignment, and for the list node behind it.
        let wanted = (layout.size() + layout.align() + 2 * size_of::<usize>()) as u64;
        if state.grow(wanted).is_err() {
            return ptr::null_mut();
        }
        state
            .heap
            .allocate_first_fit(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: the caller got the block from `alloc` with this layout.
        unsafe { self.0.lock().heap.deallocate(block, layout) };
    }
}

/// Figures of the heap, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapStats {
    /// Mapped.
    pub size: u64,
    /// Handed out.
    pub used: u64,
}

/// Figures of this moment.
pub fn stats() -> HeapStats {
    let state = HEAP.0.lock();
    HeapStats {
        size: state.mapped,
        used: state.heap.used() as u64,
    }
}
