//! A thread of a process.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arrayvec::ArrayVec;

use super::signal::frame::Trap;
use super::signal::{SignalSet, ThreadSignals};
use super::table::{self, Claim, Pid};
use super::{Credentials, Process, rseq};
use crate::abi::errno::Errno;
use crate::mm::addr::VirtAddr;
use crate::sync::SpinLock;
use crate::syscall::{self, Call};
use crate::task::{Completion, Task};

/// Nanoseconds of a tick of the timer, the unit in which CPU time is counted.
pub const TICK: u64 = 10_000_000;

/// Threads that have begun, or are about to, and have not ended.
static LIVING: AtomicUsize = AtomicUsize::new(0);

/// How many threads there are.
pub(super) fn living() -> usize {
    LIVING.load(Ordering::Relaxed)
}

/// Longest name, in bytes (Linux: `TASK_COMM_LEN` without the zero byte).
const NAME_LEN: usize = 15;

/// The name of a thread.
pub type Name = ArrayVec<u8, NAME_LEN>;

/// A call that goes on after a signal that no handler was run for (Linux: `struct restart_block`).
#[derive(Clone, Copy, Debug)]
pub struct RestartBlock {
    /// What it goes on with.
    pub call: fn(&mut Call<'_>) -> syscall::Result,
    /// Its arguments then.
    pub args: [u64; 6],
}

/// What the scheduling calls have set; one CPU and one class make it a matter of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// Priority of the real-time classes.
    pub priority: u32,
    /// -20 to 19.
    pub nice: i8,
}

/// `rseq`: where a thread has its area, how long it is, and its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rseq {
    /// The area.
    pub at: VirtAddr,
    /// Its length, as it was registered.
    pub len: u32,
    /// What stands before abort handlers.
    pub signature: u32,
}

/// What a thread begins with.
#[derive(Debug)]
pub struct Parts {
    /// Its number.
    pub claim: Arc<Claim>,
    /// As whom it acts.
    pub credentials: Credentials,
    /// Its name.
    pub name: Name,
    /// What it blocks.
    pub blocked: SignalSet,
    /// How it is scheduled.
    pub scheduling: Scheduling,
}

/// A thread of a process. The kernel task that runs it changes when it executes another program.
#[derive(Debug)]
pub struct Thread {
    claim: SpinLock<Arc<Claim>>,
    tid: AtomicU32,
    process: Arc<Process>,
    task: SpinLock<Option<Arc<Task>>>,
    /// Its signals.
    pub signals: ThreadSignals,
    credentials: SpinLock<Credentials>,
    name: SpinLock<Name>,
    scheduling: SpinLock<Scheduling>,
    /// The word that is cleared, and whose waiters are woken, when the thread ends.
    clear_at_end: SpinLock<Option<VirtAddr>>,
    /// The list of locks whose waiters are told when the thread ends, and its length as it was registered.
    pub(super) robust_list: SpinLock<(VirtAddr, u64)>,
    /// `rseq`.
    pub rseq: rseq::Registered,
    restart: SpinLock<Option<RestartBlock>>,
    trap: SpinLock<Trap>,
    /// The rest of the process goes on without it: another thread executes a program.
    is_dismissed: AtomicBool,
    waits_for_signals: AtomicBool,
    /// Ticks of the timer that it was found running at.
    ticks: AtomicU64,
    /// The signal that it gets when its parent ends (`PR_SET_PDEATHSIG`).
    pub parent_death_signal: AtomicU32,
    /// Who waits until it has left its maker's memory.
    pub(super) vfork: SpinLock<Option<Arc<Completion>>>,
}

impl Thread {
    /// A thread that has not begun.
    ///
    /// # Errors
    /// EAGAIN: the process is ending.
    pub fn new(process: &Arc<Process>, parts: Parts) -> Result<Arc<Self>, Errno> {
        let thread = Arc::new(Self {
            tid: AtomicU32::new(parts.claim.pid().as_u32()),
            claim: SpinLock::new(parts.claim),
            process: Arc::clone(process),
            task: SpinLock::new(None),
            signals: ThreadSignals::new(parts.blocked),
            credentials: SpinLock::new(parts.credentials),
            name: SpinLock::new(parts.name),
            scheduling: SpinLock::new(parts.scheduling),
            clear_at_end: SpinLock::new(None),
            robust_list: SpinLock::new((VirtAddr::new(0), 0)),
            rseq: rseq::Registered::default(),
            restart: SpinLock::new(None),
            trap: SpinLock::new(Trap::default()),
            is_dismissed: AtomicBool::new(false),
            waits_for_signals: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            parent_death_signal: AtomicU32::new(0),
            vfork: SpinLock::new(None),
        });
        if !process.add_thread(&thread) {
            return Err(Errno::EAGAIN);
        }
        table::enter_thread(&thread);
        LIVING.fetch_add(1, Ordering::Relaxed);
        Ok(thread)
    }

    /// It has ended: its number means nobody.
    pub(super) fn note_end(&self) {
        table::leave_thread(self.tid());
        LIVING.fetch_sub(1, Ordering::Relaxed);
    }

    /// The claim on its number.
    pub(super) fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim.lock())
    }

    /// Its number.
    pub fn tid(&self) -> Pid {
        Pid::new(self.tid.load(Ordering::Relaxed))
    }

    /// Takes its process's number over: it is the only one left.
    pub(super) fn become_leader(self: &Arc<Self>) {
        let claim = Arc::clone(self.process.claim());
        table::leave_thread(self.tid());
        self.tid.store(claim.pid().as_u32(), Ordering::Relaxed);
        let old = core::mem::replace(&mut *self.claim.lock(), claim);
        drop(old);
        table::enter_thread(self);
        // Its own number means nobody from now on.
        self.process.note_change();
    }

    /// Whether it has its process's number.
    pub fn is_leader(&self) -> bool {
        self.tid() == self.process.pid()
    }

    /// The process that it is a thread of.
    #[inline]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The task that runs it, from its beginning to its end.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.task.lock().clone()
    }

    /// Notes which task runs it.
    pub(super) fn set_task(&self, task: Option<Arc<Task>>) {
        let old = core::mem::replace(&mut *self.task.lock(), task);
        drop(old);
    }

    /// Blocks these signals and no others; what was blocked before. What cannot be blocked is not.
    pub fn block(&self, set: SignalSet) -> SignalSet {
        self.signals.block(set, &self.process.signals.pending)
    }

    /// Blocks these for one wait: what was blocked is blocked again after the signal that ends it, or when
    /// [`Self::unblock_after_wait`] is called.
    pub fn block_for_wait(&self, set: SignalSet) {
        self.signals.block_for_wait(set, &self.process.signals.pending);
    }

    /// Ends [`Self::block_for_wait`], if no signal did.
    pub fn unblock_after_wait(&self) {
        self.signals.unblock_after_wait(&self.process.signals.pending);
    }

    /// Whether there is a signal to deliver, or the thread is to end or to stop: a wait that can be cut short is.
    #[inline]
    pub fn signal_is_pending(&self) -> bool {
        self.signals.has_notice() && self.has_work()
    }

    fn has_work(&self) -> bool {
        self.signals.is_pending(&self.process.signals.pending) || self.must_end() || self.process.is_stopped()
    }

    /// Whether it is to end.
    #[inline]
    pub fn must_end(&self) -> bool {
        self.process.is_ending() || self.is_dismissed.load(Ordering::Acquire)
    }

    /// Has it look for something to do: waits that can be cut short are.
    pub fn interrupt(&self) {
        self.signals.set_notice();
        if let Some(task) = self.task() {
            task.interrupt();
        }
    }

    /// What it does about its signals from here on answers [`Self::interrupt`].
    pub(super) fn answer_interrupt(&self) {
        crate::task::current().take_interrupt();
    }

    /// It ends by itself, with this status.
    pub fn note_exit(&self, status: u8) {
        if self.is_leader() {
            self.process.note_leader_status(status);
        }
    }

    /// Has it end where it is; somebody has said why.
    pub(super) fn kill(&self) {
        self.signals.set_notice();
        if let Some(task) = self.task() {
            task.kill();
        }
    }

    /// The others of its process are to go on without it.
    pub(super) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        self.kill();
    }

    /// As whom it acts.
    pub fn credentials(&self) -> Credentials {
        self.credentials.lock().clone()
    }

    /// Changes as whom it acts.
    pub fn change_credentials<R>(&self, change: impl FnOnce(&mut Credentials) -> R) -> R {
        change(&mut self.credentials.lock())
    }

    /// Its name.
    pub fn name(&self) -> alloc::string::String {
        alloc::string::String::from_utf8_lossy(&self.name.lock()).into_owned()
    }

    /// The same as bytes.
    pub fn name_bytes(&self) -> Name {
        self.name.lock().clone()
    }

    /// Names it; what is too long is cut, and a zero byte ends it.
    pub fn set_name(&self, name: &[u8]) {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        *self.name.lock() = name[..end].iter().copied().take(NAME_LEN).collect();
    }

    /// How it is scheduled.
    pub fn scheduling(&self) -> Scheduling {
        *self.scheduling.lock()
    }

    /// Says how.
    pub fn set_scheduling(&self, scheduling: Scheduling) {
        *self.scheduling.lock() = scheduling;
    }

    /// Sets the word that is cleared at its end.
    pub fn set_clear_at_end(&self, word: Option<VirtAddr>) {
        *self.clear_at_end.lock() = word;
    }

    /// That word; it is done with.
    pub(super) fn take_clear_at_end(&self) -> Option<VirtAddr> {
        self.clear_at_end.lock().take()
    }

    /// The list of locks whose waiters are told of its end: where it begins, and how long the head is.
    pub fn robust_list(&self) -> (VirtAddr, u64) {
        *self.robust_list.lock()
    }

    /// Sets it.
    pub fn set_robust_list(&self, head: VirtAddr, len: u64) {
        *self.robust_list.lock() = (head, len);
    }

    /// What the call that is being cut short is to go on with (`Restart::Block`).
    pub fn set_restart(&self, block: RestartBlock) {
        *self.restart.lock() = Some(block);
    }

    /// What that was; once.
    pub fn take_restart(&self) -> Option<RestartBlock> {
        self.restart.lock().take()
    }

    /// Its last exception.
    pub(super) fn last_trap(&self) -> Trap {
        *self.trap.lock()
    }

    /// Notes its last exception.
    pub(super) fn note_trap(&self, vector: u64, error: u64, address: Option<VirtAddr>) {
        let mut trap = self.trap.lock();
        (trap.vector, trap.error) = (vector, error);
        if let Some(address) = address {
            trap.address = address.as_u64();
        }
    }

    /// Whether it waits for signals that it takes itself.
    pub(super) fn waits_for_signals(&self) -> bool {
        self.waits_for_signals.load(Ordering::Acquire)
    }

    pub(super) fn set_waits_for_signals(&self, waits: bool) {
        self.waits_for_signals.store(waits, Ordering::Release);
    }

    /// Ticks of the timer at which it was found running.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The timer has found it running. From its interrupt handler.
    #[inline]
    pub fn charge_tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
}
