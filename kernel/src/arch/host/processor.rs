//! One CPU of a software machine, and which CPU the running thread is.
//!
//! A host thread is a CPU. A thread that has entered no machine still has preemption and interrupt state of its own, so
//! that locks and whatever needs no memory can be tested without one.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::boxed::Box;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::machine::SoftMachine;
use super::tlb::TlbState;
use crate::cpu::Local;

/// State of one CPU.
#[derive(Debug)]
pub struct Processor {
    /// Number in its machine.
    pub id: usize,
    /// The machine, unless the thread has entered none.
    pub machine: Option<&'static SoftMachine>,
    /// The generic per-CPU record.
    pub local: Local,
    preempt_depth: AtomicU32,
    interrupts: AtomicBool,
    reschedule: AtomicBool,
    root: AtomicU64,
    tlb: Mutex<TlbState>,
}

std::thread_local! {
    static CURRENT: Cell<Option<&'static Processor>> = const { Cell::new(None) };
}

/// Every processor there was, kept reachable for leak checkers.
static PROCESSORS: Mutex<Vec<&'static Processor>> = Mutex::new(Vec::new());

/// Locks a mutex of the machine itself; a test that panicked meanwhile has not broken it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The CPU that the calling thread is.
pub fn current() -> &'static Processor {
    CURRENT.get().unwrap_or_else(|| {
        let processor = Processor::new(0, None);
        CURRENT.set(Some(processor));
        processor
    })
}

/// Makes the calling thread `processor`, or nobody; returns who it was.
pub fn become_processor(processor: Option<&'static Processor>) -> Option<&'static Processor> {
    CURRENT.replace(processor)
}

impl Processor {
    /// CPU `id` after reset: interrupts on, no page-table root, nothing cached. It lives for ever, since a thread may hold
    /// on to it for as long as it likes; tests end soon.
    pub fn new(id: usize, machine: Option<&'static SoftMachine>) -> &'static Self {
        let processor: &'static Self = Box::leak(Box::new(Self {
            id,
            machine,
            local: Local::new(id),
            preempt_depth: AtomicU32::new(0),
            interrupts: AtomicBool::new(true),
            reschedule: AtomicBool::new(false),
            root: AtomicU64::new(0),
            tlb: Mutex::default(),
        }));
        lock(&PROCESSORS).push(processor);
        processor
    }

    /// How many levels of "do not preempt" are held.
    pub fn preempt_depth(&self) -> u32 {
        self.preempt_depth.load(Relaxed)
    }

    /// One level more.
    pub fn preempt_disable(&self) {
        self.preempt_depth.fetch_add(1, Relaxed);
    }

    /// One level less; says whether it was the last.
    ///
    /// # Panics
    /// No level was held.
    pub fn preempt_enable(&self) -> bool {
        let before = self.preempt_depth.load(Relaxed);
        assert!(
            before > 0,
            "CPU {}: preempt_enable without a preempt_disable before it",
            self.id
        );
        self.preempt_depth.store(before - 1, Relaxed);
        before == 1
    }

    /// Sets or clears the note that a reschedule is due; says what it was.
    pub fn set_reschedule(&self, due: bool) -> bool {
        self.reschedule.swap(due, Relaxed)
    }

    /// Turns interrupts on or off; says what they were.
    pub fn set_interrupts(&self, enabled: bool) -> bool {
        self.interrupts.swap(enabled, Relaxed)
    }

    /// Whether interrupts are on.
    pub fn interrupts(&self) -> bool {
        self.interrupts.load(Relaxed)
    }

    /// Panics unless a task on this CPU may sleep now: every access to task memory can.
    pub fn assert_may_sleep(&self, why: &str) {
        let depth = self.preempt_depth();
        assert!(
            depth == 0,
            "CPU {}: {why} may sleep, but {depth} lock(s) or preemption guards are held",
            self.id
        );
        assert!(
            self.interrupts(),
            "CPU {}: {why} may sleep, but interrupts are off",
            self.id
        );
    }

    /// The page-table root, as a frame number.
    pub fn root(&self) -> u64 {
        self.root.load(Relaxed)
    }

    /// Sets the root; the caller flushes.
    pub fn set_root(&self, root: u64) {
        self.root.store(root, Relaxed);
    }

    /// The translation cache. Held during an access, so that a flush from another CPU waits for the access to end, as a
    /// shoot-down interrupt waits for the instruction.
    pub fn tlb(&self) -> MutexGuard<'_, TlbState> {
        lock(&self.tlb)
    }
}
