//! The memory manager's own state: one per machine.
//!
//! On bare metal there is one, a static; on the host every software machine has its own. It is reached through
//! [`get`], which costs nothing on bare metal.

use core::sync::atomic::{AtomicU64, Ordering};

use super::addr::Pfn;
use super::frame::{Frame, FrameAllocator, KernelData, OutOfFrames};
use super::pressure::Pressure;
use super::pt::PageTable;
use crate::arch::{Machine, Memory, Stage1};
use crate::sync::SpinLock;

/// Frames, the kernel's page tables and the page of zeros.
///
/// Lock order: `table` comes after every lock of a task's space and before the frame allocator's.
#[derive(Debug)]
pub struct KernelMm {
    /// Who owns which frame.
    pub frames: FrameAllocator,
    table: SpinLock<Option<PageTable<Stage1>>>,
    root: AtomicU64,
    zero_owner: SpinLock<Option<Frame<KernelData>>>,
    zero: AtomicU64,
    /// Who gives frames back when none is free.
    pub pressure: Pressure,
}

/// This machine's.
#[inline]
pub fn get() -> &'static KernelMm {
    Machine::mm()
}

impl Default for KernelMm {
    fn default() -> Self {
        Self::new()
    }
}

impl KernelMm {
    /// Without memory or tables.
    pub const fn new() -> Self {
        Self {
            frames: FrameAllocator::new(),
            table: SpinLock::new(None),
            root: AtomicU64::new(0),
            zero_owner: SpinLock::new(None),
            zero: AtomicU64::new(0),
            pressure: Pressure::new(),
        }
    }

    /// Takes over: `table` is the kernel's from now on, and the page of zeros is made.
    ///
    /// # Errors
    /// No frame for the page of zeros.
    pub fn start(&self, table: PageTable<Stage1>) -> Result<(), OutOfFrames> {
        let zero = Frame::alloc_zeroed()?;
        self.zero.store(zero.pfn().as_u64(), Ordering::Relaxed);
        *self.zero_owner.lock() = Some(zero);
        self.root.store(table.root().as_u64(), Ordering::Relaxed);
        *self.table.lock() = Some(table);
        Ok(())
    }

    /// Gives everything back that [`Self::start`] took, and the huge pages that were set aside; nothing uses the tables any
    /// more.
    pub fn stop(&self) {
        self.frames.release_huge(u64::MAX);
        *self.table.lock() = None;
        *self.zero_owner.lock() = None;
    }

    /// The shared page of zeros: what an untouched page of anonymous memory reads as. Entries borrow it, read-only.
    #[inline]
    pub fn zero_frame(&self) -> Pfn {
        Pfn::new(self.zero.load(Ordering::Relaxed))
    }

    /// Root of the kernel's own tables.
    pub fn root(&self) -> Pfn {
        Pfn::new(self.root.load(Ordering::Relaxed))
    }

    /// A table for a task: empty below, the kernel's above.
    ///
    /// # Errors
    /// No frame for its root.
    pub fn new_task_table(&self) -> Result<PageTable<Stage1>, OutOfFrames> {
        match self.table.lock().as_ref() {
            Some(kernel) => PageTable::with_upper_half_of(kernel),
            None => PageTable::new(),
        }
    }

    /// Runs `change` on the kernel's own table.
    ///
    /// # Panics
    /// The memory manager has not started.
    pub(in crate::mm) fn with_table<R>(&self, change: impl FnOnce(&mut PageTable<Stage1>) -> R) -> R {
        change(
            self.table
                .lock()
                .as_mut()
                .expect("the memory manager has started"),
        )
    }
}
