//! A small stack of free single frames per CPU, so that most allocations touch no shared state.
#![expect(unsafe_code, reason = "per-CPU data without a lock")]

use core::cell::UnsafeCell;

use arrayvec::ArrayVec;

use crate::arch::{Cpu, MAX_CPUS, Machine};

/// Most frames a cache holds.
pub(super) const CAPACITY: usize = 64;
/// log2 of the frames moved between a cache and the buddy at once.
pub(super) const BATCH_ORDER: u8 = 5;
/// Frames moved between a cache and the buddy at once.
pub(super) const BATCH: usize = 1 << BATCH_ORDER;

/// The caches of all CPUs.
#[derive(Debug)]
pub(super) struct Caches([Cache; MAX_CPUS]);

/// Frames of one CPU, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Cache(UnsafeCell<ArrayVec<u32, CAPACITY>>);

// SAFETY: each cache is reached only by `Caches::with`, from its own CPU with preemption off and never from an interrupt
// handler (the allocator's contract), so no two accesses overlap.
unsafe impl Sync for Caches {}

impl Caches {
    /// Empty caches.
    pub(super) const fn new() -> Self {
        Self([const { Cache(UnsafeCell::new(ArrayVec::new_const())) }; MAX_CPUS])
    }

    /// Runs `f` on this CPU's cache with preemption off. `f` must not come back here.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut ArrayVec<u32, CAPACITY>) -> R) -> R {
        Machine::preempt_disable();
        // SAFETY: see `Sync` above; `f` is the allocator's own code, which does not re-enter.
        let result = f(unsafe { &mut *self.0[Machine::id()].0.get() });
        Machine::preempt_enable();
        result
    }
}
