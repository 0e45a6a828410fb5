//! Leaving one task's stack for another's, and who owns a task meanwhile.
//!
//! The scheduler has **one reference** to each task that has not ended. It is never counted up or down on the way but
//! moves: from the run queue or the hand-off slot ([`Arc`]) into the CPU's *running* pointer, from there back into the
//! queue (preempted), into the park word (parked: nobody holds it in hand until the one [`Woken`] of that park picks it
//! up), or into the CPU's *ended* slot and on to the reaper. The idle tasks are the exception: they never leave their
//! CPU, whose `idle` pointer holds their reference.
//!
//! A task that has been resumed elsewhere before it has left its stack here is waited for: `on_cpu` is cleared by
//! whoever comes after it on the CPU it leaves ([`arrive`]).
#![expect(
    unsafe_code,
    reason = "stack switches, and references that are kept as raw pointers"
)]

use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::Task;
use super::park::Woken;
use super::sched::CpuSched;
use super::spawn::{Job, SpawnError};
use crate::arch::{Cpu, Machine, Switch};
use crate::mm::space::Space;
use crate::mm::stack::KernelStack;
use crate::sync::SpinLock;

/// What a switch leaves and finds; its address is what travels through the switch.
#[repr(C)]
#[derive(Debug)]
struct Context {
    /// Where the registers are saved while the task does not run. First: the machine's switch writes here.
    stack_pointer: AtomicUsize,
    /// The stack is in use: the task runs, or is about to be left.
    on_cpu: AtomicBool,
    /// The task has run for the last time.
    ended: AtomicBool,
}

impl Context {
    const fn new(stack_pointer: usize, on_cpu: bool) -> Self {
        Self {
            stack_pointer: AtomicUsize::new(stack_pointer),
            on_cpu: AtomicBool::new(on_cpu),
            ended: AtomicBool::new(false),
        }
    }
}

/// What a task is made of on bare metal.
pub(super) struct Body {
    context: Context,
    job: SpinLock<Option<Job>>,
    stack: SpinLock<Option<KernelStack>>,
}

impl Body {
    /// A stack on which `job` will run.
    pub(super) fn new(job: Job) -> Result<Self, SpawnError> {
        let stack = KernelStack::new().map_err(|_| SpawnError::NoStack)?;
        // SAFETY: the stack is fresh, nothing else uses it, and it is far larger than 256 bytes.
        let stack_pointer = unsafe { Machine::prepare(stack.top(), super::sched::first) };
        Ok(Self {
            context: Context::new(stack_pointer, false),
            job: SpinLock::new(Some(job)),
            stack: SpinLock::new(Some(stack)),
        })
    }

    /// The context that called this: it has a stack already, and runs.
    pub(super) const fn adopted() -> Self {
        Self {
            context: Context::new(0, true),
            job: SpinLock::new(None),
            stack: SpinLock::new(None),
        }
    }

    /// What the task is to do; once.
    pub(super) fn take_job(&self) -> Option<Job> {
        self.job.lock().take()
    }

    /// The stack of a task that has left it for ever.
    pub(super) fn take_stack(&self) -> Option<KernelStack> {
        self.stack.lock().take()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// A place for one owned reference to a task; only its CPU uses it, but interrupts may come in between.
#[derive(Debug)]
pub(super) struct Slot(AtomicPtr<Task>);

impl Slot {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts `task` in; gives it back when the slot is taken.
    #[inline]
    pub(super) fn put(&self, task: Arc<Task>) -> Result<(), Arc<Task>> {
        let raw = Arc::into_raw(task).cast_mut();
        match self
            .0
            .compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => Ok(()),
            // SAFETY: `raw` came from `into_raw` above and was not stored.
            Err(_) => Err(unsafe { Arc::from_raw(raw) }),
        }
    }

    /// Takes out what is in. Interrupts are off.
    #[inline]
    pub(super) fn take(&self) -> Option<Arc<Task>> {
        let raw = self.0.load(Ordering::Relaxed);
        if raw.is_null() {
            return None;
        }
        // Nobody can come in between: the slot belongs to this CPU.
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: what is in the slot came from `into_raw` in `put`, and is taken out once.
        Some(unsafe { Arc::from_raw(raw) })
    }

    /// Whether nothing is in it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }
}

/// The scheduler's reference to a task that was parked.
#[inline]
pub(super) fn claim(woken: Woken<'_>) -> Arc<Task> {
    // SAFETY: a parked task's reference was left in its park word when it gave up the running pointer, which came from
    // `Arc::into_raw`; there is one `Woken` per park, so it is picked up once.
    unsafe { Arc::from_raw(woken.task()) }
}

/// The scheduler's reference to the running task, for a place in a queue or the ended slot. Interrupts are off.
///
/// # Safety
/// The running task is not the idle task, and the caller switches away from it before interrupts come on.
pub(super) unsafe fn give_up_running() -> Arc<Task> {
    // SAFETY: the running pointer came from `Arc::into_raw` in `switch_to`, and the caller replaces it.
    unsafe { Arc::from_raw(Machine::running()) }
}

/// Makes the calling context the idle task of this CPU. Called once per CPU, with interrupts off.
pub(super) fn adopt_idle(cpu: &CpuSched, idle: Arc<Task>) {
    let idle = Arc::into_raw(idle);
    cpu.idle.store(idle.cast_mut(), Ordering::Relaxed);
    Machine::set_running(idle);
}

/// Goes on with `next`, an owned reference, which is not the running task. Returns when the caller's task runs again,
/// perhaps on another CPU. Interrupts are off, preemption is on.
#[inline]
pub(super) fn switch_to(cpu: &CpuSched, next: Arc<Task>) {
    // SAFETY: the reference goes into the running pointer.
    unsafe { switch_raw(cpu, Arc::into_raw(next)) }
}

/// Goes on with this CPU's idle task, which is not the running one; otherwise as [`switch_to`].
pub(super) fn switch_to_idle(cpu: &CpuSched) {
    // SAFETY: the idle pointer holds a reference for ever, and only this CPU runs its idle task.
    unsafe { switch_raw(cpu, cpu.idle.load(Ordering::Relaxed)) }
}

/// # Safety
/// `next` is kept alive by a reference that now belongs to the running pointer, and nobody else switches to it.
#[inline]
unsafe fn switch_raw(cpu: &CpuSched, next: *const Task) {
    debug_assert!(
        !ptr::eq(Machine::running(), next),
        "a task was switched to that runs"
    );
    // SAFETY: the running task has a reference behind it, and `next` has the caller's.
    let (left, task) = unsafe { (&*Machine::running(), &*next) };
    let (save, load) = (&left.body.context, &task.body.context);
    while load.on_cpu.load(Ordering::Acquire) {
        Machine::relax();
    }
    load.on_cpu.store(true, Ordering::Relaxed);
    if let Some(space) = task.space() {
        cpu.loaded.load(space);
    }
    Machine::set_running(next);
    let save = ptr::from_ref(save).cast_mut().cast::<usize>();
    // SAFETY: `on_cpu` was clear, so the stack pointer was saved or prepared and no CPU runs on the stack; the task has
    // not ended, so the stack is alive. The flag of the task that is left is still set, so nobody uses what is saved
    // before `arrive`. The stack pointer is the first field of its context, an atomic, so it may be written.
    let left = unsafe { Machine::switch(save, load.stack_pointer.load(Ordering::Relaxed)) };
    // SAFETY: the switch that came back here was made by these lines.
    unsafe { arrive(left) };
}

/// The first thing on the stack that was switched to: the task that was left has left its own.
///
/// # Safety
/// `left` is what the machine's switch gave.
#[inline]
pub(super) unsafe fn arrive(left: *mut usize) {
    // SAFETY: every switch is made with the address of a `Context`. It is alive: its task may be run, and end,
    // elsewhere only after the flag is cleared, and if it has ended the CPU's ended slot holds it.
    let left = unsafe { &*left.cast::<Context>() };
    let ended = left.ended.load(Ordering::Relaxed);
    left.on_cpu.store(false, Ordering::Release);
    if ended {
        super::reaper::bury(&Machine::local().sched);
    }
}

/// Marks the running task as one that is left for ever and keeps it for the reaper. Interrupts are off, and a switch
/// follows.
pub(super) fn end_running(cpu: &CpuSched) {
    // SAFETY: the idle task does not end, and the caller switches away.
    let task = unsafe { give_up_running() };
    task.body.context.ended.store(true, Ordering::Relaxed);
    assert!(
        cpu.ended.put(task).is_ok(),
        "the slot is emptied after every switch from a task that has ended"
    );
}

/// The address space whose tables a CPU has loaded, kept alive by a reference of its own.
///
/// Tasks without a space run in whatever is loaded, so a space can stay loaded longer than its last task.
#[derive(Debug)]
pub(super) struct Loaded(AtomicPtr<Space>);

impl Loaded {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Loads `space` unless it is loaded. Interrupts are off.
    #[inline]
    fn load(&self, space: &Arc<Space>) {
        if !ptr::eq(self.0.load(Ordering::Relaxed), Arc::as_ptr(space)) {
            self.replace(space);
        }
    }

    #[cold]
    fn replace(&self, space: &Arc<Space>) {
        space.activate();
        if let Some(old) = self.exchange(Some(Arc::clone(space))) {
            old.deactivate();
        }
    }

    /// Lets go of a space that nobody but this CPU knows any more; its tables are unloaded by its drop. Interrupts are
    /// off.
    pub(super) fn release_if_last(&self) {
        let space = self.0.load(Ordering::Relaxed);
        if space.is_null() {
            return;
        }
        // SAFETY: from `into_raw` in `exchange`, and still in; the handle is not dropped.
        let handle = ManuallyDrop::new(unsafe { Arc::from_raw(space) });
        if Arc::strong_count(&handle) == 1 {
            drop(self.exchange(None));
        }
    }

    fn exchange(&self, new: Option<Arc<Space>>) -> Option<Arc<Space>> {
        let new = new.map_or(ptr::null(), Arc::into_raw);
        let old = self.0.swap(new.cast_mut(), Ordering::Relaxed);
        // SAFETY: what is in came from `into_raw` above, and the swap took it out once.
        (!old.is_null()).then(|| unsafe { Arc::from_raw(old) })
    }
}
