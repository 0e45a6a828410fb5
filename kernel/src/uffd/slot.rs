//! The fault that a task waits for.
//!
//! A task waits for one fault at a time, so the record is part of the task and delivering a fault allocates nothing.
//!
//! ```text
//!   Idle ──enqueue──► Pending ──read──► Read ──wake──► Idle
//!     │                  └──────────wake──────────────►     or withdraw: the task is killed, or interrupted
//!     ├──enqueue, and a reader waits──► Read
//!     └──call up──► Called ──the task calls the handler──► Idle
//! ```
//!
//! The states of the queue change only under the queue lock of the context that the fault is queued at; the waiting task
//! itself looks at them without the lock. `Called` is the task's own business.

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64};

use super::classify::Trap;
use super::delivery::queue::Inbox;
use super::delivery::upcall::Calls;
use crate::mm::addr::VirtAddr;
use crate::mm::fault::{FaultError, Origin};
use crate::mm::memtype::Granule;
use crate::sync::SpinLock;
use crate::sync::model::atomic::{AtomicU8, Ordering};
use crate::task::{Task, TaskId};

/// Where a delegated fault is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FaultState {
    /// The task waits for no fault.
    Idle = 0,
    /// Queued; no monitor has read it.
    Pending = 1,
    /// A monitor has read it and has not resolved it yet.
    Read = 2,
    /// The task is about to call the context's handler.
    Called = 3,
}

/// A fault that is to be delegated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Why, and how the page was accessed.
    pub trap: Trap,
    /// The exact address.
    pub addr: VirtAddr,
    /// The unit of the memory there: what a monitor is told about is all of it.
    pub granule: Granule,
}

/// The record.
#[derive(Debug)]
pub struct FaultSlot {
    state: AtomicU8,
    addr: AtomicU64,
    /// What the message says, and what waking goes by.
    reported: AtomicU64,
    /// `TrapKind` in bits 1 and 2, "write" in bit 0.
    trap: AtomicU8,
    since: AtomicU64,
    /// Number of the task that has read the fault, and when.
    reader: AtomicU64,
    read_at: AtomicU64,
    /// See [`Self::is_looked_at_twice`].
    look_twice: AtomicBool,
    ending: AtomicBool,
    /// What was delivered to this task while it slept in read.
    pub(super) inbox: Inbox,
    /// The handlers that this task is in.
    pub(super) calls: Calls,
    /// On whose account the task touches memory just now; only the task itself looks.
    origin: AtomicU8,
    failure: SpinLock<Option<(VirtAddr, FaultError)>>,
}

impl Default for FaultSlot {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(FaultState::Idle as u8),
            addr: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            trap: AtomicU8::new(0),
            since: AtomicU64::new(0),
            reader: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
            look_twice: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            inbox: Inbox::default(),
            calls: Calls::default(),
            origin: AtomicU8::new(Origin::Task as u8),
            failure: SpinLock::new(None),
        }
    }
}

impl FaultSlot {
    /// Where the fault is.
    #[inline]
    pub fn state(&self) -> FaultState {
        match self.state.load(Ordering::Acquire) {
            1 => FaultState::Pending,
            2 => FaultState::Read,
            3 => FaultState::Called,
            _ => FaultState::Idle,
        }
    }

    /// Whether the task has to sleep on.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) != FaultState::Idle as u8
    }

    /// Whether the task is to call the context's handler.
    #[inline]
    pub(super) fn is_called(&self) -> bool {
        self.state.load(Ordering::Acquire) == FaultState::Called as u8
    }

    /// The exact address of the fault that the task waits for (or waited for last).
    #[inline]
    pub fn addr(&self) -> VirtAddr {
        VirtAddr::new(self.addr.load(Ordering::Relaxed))
    }

    /// The address that its message has.
    #[inline]
    pub(super) fn reported(&self) -> VirtAddr {
        VirtAddr::new(self.reported.load(Ordering::Relaxed))
    }

    /// Why it was trapped.
    #[inline]
    pub fn trap(&self) -> Trap {
        Trap::from_bits(self.trap.load(Ordering::Relaxed))
    }

    /// When it was queued, in ticks of the clock.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Who has read the fault that the task waits for; `None` while nobody has.
    pub fn reader(&self) -> Option<TaskId> {
        (self.state() == FaultState::Read).then(|| TaskId::from_u64(self.reader.load(Ordering::Relaxed)))
    }

    /// When it was read, in ticks of the clock; of no meaning while nobody has.
    pub fn read_at(&self) -> u64 {
        self.read_at.load(Ordering::Relaxed)
    }

    /// All of it. Under the queue lock.
    pub(super) fn record(&self) -> FaultRecord {
        FaultRecord {
            addr: self.addr(),
            trap: self.trap(),
            since: self.since(),
            state: self.state(),
            read: self.reader().map(|reader| (reader, self.read_at())),
        }
    }

    /// Whether a fault of this task may be one not to queue: it has read faults, or it is killed or ending.
    #[inline]
    pub(super) fn is_looked_at_twice(&self) -> bool {
        self.look_twice.load(Ordering::Relaxed)
    }

    /// From now on it may.
    #[inline]
    pub(crate) fn look_twice(&self) {
        self.look_twice.store(true, Ordering::Relaxed);
    }

    /// The thread that the task, the current one, runs is ending: nobody is asked any more for what it still touches (Linux:
    /// `PF_EXITING`).
    pub(crate) fn note_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.look_twice();
    }

    /// Whether it is.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// `reader` has read the fault. Under the queue lock.
    #[inline]
    pub(super) fn read_by(&self, reader: &Task, now: u64) {
        self.reader.store(reader.id().as_u64(), Ordering::Relaxed);
        self.read_at.store(now, Ordering::Relaxed);
        reader.fault.look_twice();
    }

    /// Whether the fault, by the address in its message, lies in `[start, end)`.
    #[inline]
    pub(super) fn lies_in(&self, start: VirtAddr, end: VirtAddr) -> bool {
        let addr = self.reported();
        start <= addr && addr < end
    }

    /// Queued just now, for nobody yet or for a reader that waits. Under the queue lock.
    #[inline]
    pub(super) fn arm(&self, fault: Fault, reported: VirtAddr, now: u64, state: FaultState) {
        self.addr.store(fault.addr.as_u64(), Ordering::Relaxed);
        self.reported.store(reported.as_u64(), Ordering::Relaxed);
        self.trap.store(fault.trap.to_bits(), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.set(state);
    }

    /// Under the queue lock, unless it is the task's own business.
    #[inline]
    pub(super) fn set(&self, state: FaultState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// On whose account the task, the current one, touches memory.
    #[inline]
    pub(crate) fn origin(&self) -> Origin {
        let origin = self.origin.load(Ordering::Relaxed);
        if origin == Origin::Task as u8 {
            return Origin::Task;
        }
        core::hint::cold_path();
        match origin {
            1 => Origin::Kernel,
            2 => Origin::NoRetry,
            _ => Origin::Debugger,
        }
    }

    /// Has the task, the current one, touch memory on another account; what was before is for [`Self::restore_origin`].
    #[inline]
    pub(crate) fn set_origin(&self, origin: Origin) -> OriginBefore {
        let before = self.origin.load(Ordering::Relaxed);
        self.origin.store(origin as u8, Ordering::Relaxed);
        OriginBefore(before)
    }

    /// Takes [`Self::set_origin`] back.
    #[inline]
    pub(crate) fn restore_origin(&self, before: OriginBefore) {
        self.origin.store(before.0, Ordering::Relaxed);
    }

    /// Keeps why an access failed.
    pub(crate) fn fail(&self, addr: VirtAddr, error: FaultError) {
        *self.failure.lock() = Some((addr, error));
    }

    /// Where and why the task's last failed access failed.
    pub fn last_error(&self) -> Option<(VirtAddr, FaultError)> {
        *self.failure.lock()
    }
}

/// On whose account a task touched memory before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OriginBefore(u8);

/// A fault, as its task's record has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRecord {
    /// The exact address.
    pub addr: VirtAddr,
    /// Why.
    pub trap: Trap,
    /// When it came, in ticks of the clock.
    pub since: u64,
    /// Where it is on its way.
    pub state: FaultState,
    /// Who has read it, and when.
    pub read: Option<(TaskId, u64)>,
}

/// A fault that some task waits for.
#[derive(Clone, Debug)]
pub struct Outstanding {
    /// Who waits.
    pub task: Arc<Task>,
    /// For what.
    pub fault: FaultRecord,
}

impl Outstanding {
    /// The fault that `task` waits for. Under the queue lock.
    pub(super) fn of(task: Arc<Task>) -> Self {
        let fault = task.fault.record();
        Self { task, fault }
    }
}

impl Deref for Outstanding {
    type Target = FaultRecord;

    fn deref(&self) -> &FaultRecord {
        &self.fault
    }
}
