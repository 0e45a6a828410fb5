//! A program's memory: its address space, and where in it what is.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::file::Running;
use crate::mm::addr::VirtAddr;
use crate::mm::range::VirtRange;
use crate::mm::space::Space;
use crate::sync::SpinLock;

/// What a program image has in its space.
#[derive(Debug)]
pub struct Mm {
    space: Arc<Space>,
    /// Processes that run in it; the last one that leaves empties it.
    users: AtomicUsize,
    /// The heap: where it begins for ever, and where it ends now.
    heap: SpinLock<VirtRange>,
    layout: Layout,
    /// Keeps others from writing to the program as long as processes run in it.
    running: SpinLock<Option<Running>>,
}

/// Where exec has put what; does not change.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The stack at its largest.
    pub stack: VirtRange,
    /// The argument strings.
    pub args: VirtRange,
    /// The environment strings.
    pub env: VirtRange,
    /// Where the heap begins.
    pub heap: VirtAddr,
    /// The auxiliary vector, in words.
    pub auxv: alloc::vec::Vec<u64>,
}

impl Mm {
    /// The memory of a new image, which nobody runs in yet.
    pub fn new(space: Arc<Space>, layout: Layout) -> Arc<Self> {
        Arc::new(Self {
            space,
            users: AtomicUsize::new(0),
            heap: SpinLock::new(VirtRange::new(layout.heap, layout.heap)),
            layout,
            running: SpinLock::new(None),
        })
    }

    /// The address space.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Where exec has put what.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The heap as it is now.
    pub fn heap(&self) -> VirtRange {
        *self.heap.lock()
    }

    /// Notes that the heap ends at `end` now.
    pub fn set_heap_end(&self, end: VirtAddr) {
        self.heap.lock().end = end;
    }

    /// The same for a copy of the space.
    pub fn forked(&self, space: Arc<Space>) -> Arc<Self> {
        Arc::new(Self {
            space,
            users: AtomicUsize::new(0),
            heap: SpinLock::new(self.heap()),
            layout: self.layout.clone(),
            running: SpinLock::new(self.running.lock().clone()),
        })
    }

    /// Says what keeps others from writing to the program.
    pub fn set_running(&self, running: Option<Running>) {
        let old = core::mem::replace(&mut *self.running.lock(), running);
        drop(old);
    }

    /// A process runs in it.
    pub(super) fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// A process runs in it no more. The last one gives everything back that is mapped: whoever still knows the space finds
    /// it empty, and for its userfault contexts it is gone.
    pub(super) fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.space.retire();
            self.set_running(None);
        }
    }

    /// Whether other processes run in it than one.
    pub fn is_shared(&self) -> bool {
        self.users.load(Ordering::Acquire) > 1
    }
}
