//! The scheduler of one CPU: round robin, with a slot for direct switches.
//!
//! Locks: the run queue's own, innermost but for the heap and the frame allocator. The direct switch takes none.
//!
//! Rules for the hand-off slot: only the running task's CPU fills it, never while the idle task runs, and every way off
//! the CPU looks into it, so a task in it cannot be forgotten. Parking takes it out and runs it *on the slice of the
//! one that parks*; being preempted moves it to the run queue.
#![expect(
    unsafe_code,
    reason = "gives up the running task's reference on the way into a queue"
)]

use alloc::sync::Arc;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use intrusive_collections::{Bound, LinkedList, RBTree};

use super::link::{RunAdapter, TimerAdapter};
use super::park::Woken;
use super::spawn::SpawnError;
use super::switch::{self, Loaded, Slot};
use super::{Outcome, Task, WaitReason, current, reaper, watch};
use crate::arch::{Clock, Cpu, Irq, Machine, Switch};
use crate::sync::IrqLock;

pub(super) use super::switch::Body;

/// Ticks that a task, or a pair that hands over to each other, runs before the next in line gets the CPU.
const SLICE: u32 = 2;

/// The scheduler's part of a CPU's data.
#[derive(Debug)]
pub struct CpuSched {
    pub(super) handoff: Slot,
    /// A task that has left its stack for ever.
    pub(super) ended: Slot,
    pub(super) loaded: Loaded,
    pub(super) idle: AtomicPtr<Task>,
    /// Ticks left of the slice.
    slice: AtomicU32,
    queue: IrqLock<LinkedList<RunAdapter>>,
    counters: Counters,
}

impl CpuSched {
    /// Nothing to run.
    pub const fn new() -> Self {
        Self {
            handoff: Slot::new(),
            ended: Slot::new(),
            loaded: Loaded::new(),
            idle: AtomicPtr::new(core::ptr::null_mut()),
            slice: AtomicU32::new(SLICE),
            queue: IrqLock::new(LinkedList::new(RunAdapter::NEW)),
            counters: Counters::new(),
        }
    }

    #[inline]
    fn idle_runs(&self) -> bool {
        core::ptr::eq(self.idle.load(Ordering::Relaxed), Machine::running())
    }

    /// Somebody waits for the CPU.
    pub(super) fn is_wanted(&self) -> bool {
        !self.handoff.is_empty() || !self.queue.lock().is_empty()
    }

    fn enqueue(&self, task: Arc<Task>) {
        self.queue.lock().push_back(task);
        if self.idle_runs() {
            Machine::request_reschedule();
        }
    }

    /// The next in line, with a slice of its own.
    fn dequeue(&self) -> Option<Arc<Task>> {
        let task = self.queue.lock().pop_front()?;
        self.slice.store(SLICE, Ordering::Relaxed);
        self.counters.queued.add();
        Some(task)
    }
}

impl Default for CpuSched {
    fn default() -> Self {
        Self::new()
    }
}

/// A number that only its CPU changes, with preemption off.
#[derive(Debug)]
struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    fn add(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Counters {
    direct: Counter,
    queued: Counter,
    idle: Counter,
    preempted: Counter,
}

impl Counters {
    const fn new() -> Self {
        Self {
            direct: Counter::new(),
            queued: Counter::new(),
            idle: Counter::new(),
            preempted: Counter::new(),
        }
    }
}

/// How often what happened on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Switches to a task that the one before had woken, past the run queue.
    pub direct: u64,
    /// Tasks taken from the run queue.
    pub queued: u64,
    /// Switches to the idle task.
    pub idle: u64,
    /// Tasks that lost the CPU because their slice was used up.
    pub preempted: u64,
}

/// The counters of this CPU since it started.
pub fn stats() -> Stats {
    let counters = &Machine::local().sched.counters;
    Stats {
        direct: counters.direct.get(),
        queued: counters.queued.get(),
        idle: counters.idle.get(),
        preempted: counters.preempted.get(),
    }
}

/// Makes the calling context this CPU's idle task and starts the reaper. Needs the heap, kernel stacks and per-CPU data.
/// Called once, before interrupts are enabled for the first time.
///
/// # Errors
/// No memory for the reaper's stack.
pub fn init() -> Result<(), SpawnError> {
    let idle = Task::new("idle", None, Body::adopted());
    switch::adopt_idle(&Machine::local().sched, idle);
    reaper::start()
}

/// The running task, for [`current`].
#[inline]
pub(super) fn running() -> *const Task {
    Machine::running()
}

/// Interrupts are off from deciding to park to leaving the CPU: whoever resumes the task finds it either running or
/// gone, and nothing on this CPU gets in between.
#[must_use = "interrupts stay off until it is left"]
pub(super) struct Section(<Machine as Irq>::Flags);

impl Section {
    #[inline]
    pub(super) fn enter() -> Self {
        Self(Machine::disable())
    }

    /// [`enter`](Self::enter) for a task that may sleep in it; panics at the caller's caller when a lock is held.
    #[track_caller]
    #[inline]
    pub(super) fn enter_to_sleep(reason: &WaitReason) -> Self {
        let flags = Machine::disable();
        if Machine::preempt_count() != 0 {
            may_not_sleep(reason, flags);
        }
        if !Machine::were_enabled(flags) {
            may_not_sleep(reason, flags);
        }
        Self(flags)
    }

    /// Interrupts are as they were before.
    #[inline]
    pub(super) fn leave(self) {
        Machine::restore(self.0);
    }
}

#[track_caller]
#[cold]
#[inline(never)]
fn may_not_sleep(reason: &WaitReason, flags: <Machine as Irq>::Flags) -> ! {
    Machine::restore(flags);
    match Machine::preempt_count() {
        0 => panic!(
            "a task would wait for {} with interrupts off: a lock is held",
            reason.words()
        ),
        held => panic!(
            "a task would wait for {} with preemption off {held} deep: a lock is held",
            reason.words()
        ),
    }
}

/// Leaves the CPU to another task; the park word says PARKED. Interrupts are off. Returns when resumed.
#[inline]
pub(super) fn block(_me: &Task) {
    leave(&Machine::local().sched);
}

/// Runs whoever is next; the running task's reference has been left elsewhere.
#[inline]
fn leave(cpu: &CpuSched) {
    match cpu.handoff.take() {
        Some(next) => {
            cpu.counters.direct.add();
            switch::switch_to(cpu, next);
        }
        None => leave_to_queue(cpu),
    }
}

fn leave_to_queue(cpu: &CpuSched) {
    assert!(
        !cpu.idle_runs(),
        "the boot context is the idle task and cannot wait: spawn a task for it"
    );
    match cpu.dequeue() {
        Some(next) => switch::switch_to(cpu, next),
        None => {
            cpu.counters.idle.add();
            switch::switch_to_idle(cpu);
        }
    }
}

/// Lets a task that was parked run: next on this CPU if the hand-off slot is free, else at the end of the run queue.
#[inline(always)]
pub(super) fn resume(woken: Woken<'_>) {
    let task = switch::claim(woken);
    Machine::preempt_disable();
    let cpu = &Machine::local().sched;
    if cpu.idle_runs() {
        cpu.enqueue(task);
    } else if let Err(task) = cpu.handoff.put(task) {
        cpu.enqueue(task);
    }
    Machine::preempt_enable();
}

/// Lets a task that was parked run, at the end of the run queue.
pub(super) fn resume_queued(woken: Woken<'_>) {
    let task = switch::claim(woken);
    Machine::preempt_disable();
    Machine::local().sched.enqueue(task);
    Machine::preempt_enable();
}

/// Puts a new task at the end of the run queue.
pub(super) fn start(task: Arc<Task>) -> Result<(), SpawnError> {
    Machine::preempt_disable();
    Machine::local().sched.enqueue(task);
    Machine::preempt_enable();
    Ok(())
}

/// The scheduler is due ([`Cpu::request_reschedule`]) and preemption is on: runs the next in line. Called on the way out
/// of an interrupt with interrupts off, and by [`Cpu::preempt_enable`] with interrupts on.
pub fn preempt() {
    let section = Section::enter();
    if Machine::take_reschedule() {
        let cpu = &Machine::local().sched;
        if cpu.is_wanted() && !cpu.idle_runs() {
            cpu.counters.preempted.add();
        }
        rotate(cpu);
    }
    section.leave();
}

/// Lets everybody else in line run first.
#[track_caller]
pub(super) fn yield_now() {
    let section = Section::enter_to_sleep(&WaitReason::new("its next turn"));
    rotate(&Machine::local().sched);
    section.leave();
}

/// Gives the CPU to the next in line, if anybody is; the running task goes to the end of the line, behind the one that
/// it was about to hand over to. Interrupts are off.
pub(super) fn rotate(cpu: &CpuSched) {
    if let Some(task) = cpu.handoff.take() {
        cpu.enqueue(task);
    }
    let Some(next) = cpu.dequeue() else { return };
    if !cpu.idle_runs() {
        // SAFETY: it is not the idle task, and the switch follows.
        let task = unsafe { switch::give_up_running() };
        task.switches.count_involuntary();
        cpu.queue.lock().push_back(task);
    }
    switch::switch_to(cpu, next);
}

/// The timer has ticked. Called by its interrupt handler, with interrupts off.
pub fn on_tick() {
    let cpu = &Machine::local().sched;
    fire_timers();
    watch::on_tick();
    if cpu.idle_runs() {
        return;
    }
    if let Some(thread) = current().thread() {
        thread.charge_tick();
    }
    let left = cpu.slice.load(Ordering::Relaxed).saturating_sub(1);
    cpu.slice.store(left, Ordering::Relaxed);
    if left == 0 && cpu.is_wanted() {
        Machine::request_reschedule();
    }
}

/// Where a new task begins.
pub(super) extern "C" fn first(left: *mut usize) -> ! {
    // SAFETY: the first thing that a new task does, with what the switch to it gave.
    unsafe { switch::arrive(left) };
    Machine::enable();
    let job = current().body.take_job().expect("a task begins once, with a job");
    exit(job())
}

/// Ends the running task.
pub(super) fn exit(outcome: Outcome) -> ! {
    current().finish(outcome);
    // Never left: the task does not come back.
    let _ = Section::enter_to_sleep(&WaitReason::new("nothing: it has ended"));
    let cpu = &Machine::local().sched;
    assert!(!cpu.idle_runs(), "the idle task has ended");
    switch::end_running(cpu);
    leave(cpu);
    unreachable!("a task that has ended was switched to");
}

/// Nobody waits for what `task` does.
pub(super) fn wait_in_background(task: &Task) {
    task.set_in_background();
}

/// The reaper has done everything before it announced the end.
pub(super) fn joined(_task: &Task) {}

/// Armed timers of all tasks, earliest first.
static TIMERS: IrqLock<RBTree<TimerAdapter>> = IrqLock::new(RBTree::new(TimerAdapter::NEW));
/// When the earliest fires.
static EARLIEST: AtomicU64 = AtomicU64::new(u64::MAX);

pub(super) fn now() -> Duration {
    let (ticks, frequency) = (Machine::ticks(), Machine::frequency());
    let nanos = u128::from(ticks % frequency) * 1_000_000_000 / u128::from(frequency);
    Duration::new(ticks / frequency, nanos as u32)
}

/// `delay` from now, in ticks of the clock.
pub(super) fn deadline(delay: Duration) -> u64 {
    let ticks = delay.as_nanos() * u128::from(Machine::frequency()) / 1_000_000_000;
    Machine::ticks().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
}

pub(super) fn arm(task: &Arc<Task>) {
    let mut timers = TIMERS.lock();
    timers.insert(Arc::clone(task));
    EARLIEST.fetch_min(task.timer.deadline(), Ordering::Relaxed);
}

/// Also waits for a timer that is just being fired: afterwards the interrupt handler has forgotten the task.
pub(super) fn disarm(task: &Arc<Task>) {
    let mut timers = TIMERS.lock();
    // The first of those with this deadline: they stand next to each other, and a plain search may end at any of them.
    let mut cursor = timers.lower_bound_mut(Bound::Included(&task.timer.deadline()));
    while let Some(other) = cursor.get() {
        if core::ptr::eq(other, Arc::as_ptr(task)) {
            cursor.remove();
            return;
        }
        if other.timer.deadline() != task.timer.deadline() {
            return;
        }
        cursor.move_next();
    }
}

/// Whether any timer is armed.
pub(super) fn has_timers() -> bool {
    !TIMERS.lock().is_empty()
}

fn fire_timers() {
    let now = Machine::ticks();
    if EARLIEST.load(Ordering::Relaxed) > now {
        return;
    }
    let mut timers = TIMERS.lock();
    let mut cursor = timers.front_mut();
    while cursor.get().is_some_and(|task| task.timer.deadline() <= now) {
        if let Some(task) = cursor.remove()
            && let Some(woken) = task.fire_timer()
        {
            // Under the lock: the task cannot end before it has disarmed its timer.
            resume_queued(woken);
        }
    }
    let next = cursor.get().map_or(u64::MAX, |task| task.timer.deadline());
    EARLIEST.store(next, Ordering::Relaxed);
}
