//! Kernel stacks with a guard below.
//!
//! Slots of 64 KiB in a window of their own; the stack is the upper half of its slot, the rest is never mapped, so that
//! running over the end is a double fault on a stack of its own, not silent corruption.

use arrayvec::ArrayVec;

use super::addr::{PAGE_SIZE, VirtAddr};
use super::frame::{Frame, OutOfFrames, Stack};
use super::kmap;
use super::range::VirtRange;
use crate::sync::SpinLock;

/// Bytes of a kernel stack.
pub const STACK_SIZE: u64 = 32 << 10;
/// Bytes from one stack to the next.
const SLOT: u64 = 64 << 10;
const PAGES: usize = (STACK_SIZE / PAGE_SIZE) as usize;

/// Slots in use.
static SLOTS: SpinLock<Slots> = SpinLock::new(Slots {
    next: 0,
    free: alloc::vec::Vec::new(),
});

#[derive(Debug)]
struct Slots {
    next: u32,
    free: alloc::vec::Vec<u32>,
}

/// The stack of a kernel task; unmapped and freed when dropped.
#[derive(Debug)]
pub struct KernelStack {
    slot: u32,
    frames: ArrayVec<Frame<Stack>, PAGES>,
}

impl KernelStack {
    /// A fresh stack of [`STACK_SIZE`] bytes.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new() -> Result<Self, OutOfFrames> {
        let mut frames = ArrayVec::new();
        for _ in 0..PAGES {
            frames.push(Frame::alloc()?);
        }
        let slot = {
            let mut slots = SLOTS.lock();
            match slots.free.pop() {
                Some(slot) => slot,
                None => {
                    slots.next += 1;
                    slots.next - 1
                }
            }
        };
        let stack = Self { slot, frames };
        if !kmap::STACKS.covers(&stack.range()) {
            return Err(OutOfFrames);
        }
        kmap::map_frames(stack.range().start, stack.frames.iter().map(Frame::pfn))?;
        Ok(stack)
    }

    /// Where the stack is mapped.
    pub fn range(&self) -> VirtRange {
        let end = kmap::STACKS.start + (u64::from(self.slot) + 1) * SLOT;
        VirtRange::new(end - STACK_SIZE, end)
    }

    /// The address just past the stack, 16-aligned.
    pub fn top(&self) -> *mut u8 {
        self.range().end.as_u64() as *mut u8
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        kmap::unmap_frames(self.range());
        SLOTS.lock().free.push(self.slot);
        // The frames go back only now, with no translation left.
    }
}

/// Whether `addr` lies in the guard of a kernel stack.
pub fn is_guard(addr: VirtAddr) -> bool {
    kmap::STACKS.contains(addr) && (addr - kmap::STACKS.start) % SLOT < SLOT - STACK_SIZE
}
