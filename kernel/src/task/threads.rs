//! Tasks on the host: a task is a thread.
//!
//! The thread that parks waits on a condition variable of its task; the one that unparks it sets `resumed`. That a task
//! is resumed once per park is checked here, as the run queue of bare metal would check it. Under loom the same
//! functions run on loom's threads.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::any::Any;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Instant;

#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex};

use super::park::Woken;
use super::spawn::{Job, SpawnError};
use super::{Outcome, Task, WaitReason};
use crate::arch::{Cpu, Irq, Machine};

/// What a task is made of here.
pub(super) struct Body {
    job: std::sync::Mutex<Option<Job>>,
    resumed: Mutex<bool>,
    wake: Condvar,
    /// The thread, until somebody joins it.
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
    /// When the timer fires, if it is armed.
    alarm: std::sync::Mutex<Option<Instant>>,
}

impl Body {
    pub(super) fn new(job: Job) -> Result<Self, SpawnError> {
        Ok(Self {
            job: std::sync::Mutex::new(Some(job)),
            ..Self::detached()
        })
    }

    fn detached() -> Self {
        Self {
            job: std::sync::Mutex::new(None),
            resumed: Mutex::new(false),
            wake: Condvar::new(),
            thread: std::sync::Mutex::new(None),
            alarm: std::sync::Mutex::new(None),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Task {
    /// A task that no thread runs, for tests that drive what happens to it by hand.
    pub fn detached(name: &str) -> Arc<Self> {
        Self::new(name, None, Body::detached())
    }

    /// [`detached`](Self::detached), in an address space.
    pub fn detached_in(name: &str, space: Arc<crate::mm::space::Space>) -> Arc<Self> {
        Self::new(name, Some(space), Body::detached())
    }

    /// Makes the calling thread this task for as long as `f` runs.
    pub fn run_as<R>(self: &Arc<Self>, f: impl FnOnce() -> R) -> R {
        struct Back(Option<Arc<Task>>);
        impl Drop for Back {
            fn drop(&mut self) {
                // A model that has failed is torn down: its thread-locals are gone already.
                if cfg!(not(loom)) || !thread::panicking() {
                    become_task(self.0.take());
                }
            }
        }
        let _back = Back(become_task(Some(Arc::clone(self))));
        f()
    }

    /// Takes the token that [`Task::unpark`] left; for tests that drive a detached task by hand.
    pub fn take_token(&self) -> bool {
        self.park.take_token()
    }
}

#[cfg(not(loom))]
std::thread_local! {
    static CURRENT: RefCell<Option<Arc<Task>>> = const { RefCell::new(None) };
}
#[cfg(loom)]
loom::thread_local! {
    static CURRENT: RefCell<Option<Arc<Task>>> = RefCell::new(None);
}

/// Makes the calling thread `task`; who it was.
fn become_task(task: Option<Arc<Task>>) -> Option<Arc<Task>> {
    CURRENT.with(|current| core::mem::replace(&mut *current.borrow_mut(), task))
}

/// The calling thread's task; the reference is the thread's.
pub(super) fn running() -> *const Task {
    let known = CURRENT.with(|current| current.borrow().as_ref().map(Arc::as_ptr));
    known.unwrap_or_else(|| {
        let task = Task::detached(thread::current().name().unwrap_or("host thread"));
        let pointer = Arc::as_ptr(&task);
        become_task(Some(task));
        pointer
    })
}

/// The stretch from deciding to park to leaving the CPU. Threads have no interrupts.
pub(super) struct Section;

impl Section {
    /// Panics at the caller's caller when a lock is held.
    #[track_caller]
    pub(super) fn enter_to_sleep(reason: &WaitReason) -> Self {
        if cfg!(not(loom)) {
            let (held, enabled) = (Machine::preempt_count(), Machine::enabled());
            assert!(
                held == 0,
                "a task would wait for {} with preemption off {held} deep: a lock is held",
                reason.words()
            );
            assert!(
                enabled,
                "a task would wait for {} with interrupts off: a lock is held",
                reason.words()
            );
        }
        Self
    }

    pub(super) fn leave(self) {}
}

/// Stops the thread until it is resumed.
pub(super) fn block(me: &Task) {
    let mut resumed = me.body.resumed.lock().expect("only set and cleared under it");
    while !*resumed {
        let alarm = *me.body.alarm.lock().expect("only set and cleared under it");
        let Some(alarm) = alarm else {
            resumed = me.body.wake.wait(resumed).expect("as above");
            continue;
        };
        let left = alarm.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(resumed);
            *me.body.alarm.lock().expect("as above") = None;
            if let Some(woken) = me.fire_timer() {
                resume(woken);
            }
            resumed = me.body.resumed.lock().expect("as above");
        } else {
            resumed = me.body.wake.wait_timeout(resumed, left).expect("as above").0;
        }
    }
    *resumed = false;
}

/// Lets a parked task go on.
pub(super) fn resume(woken: Woken<'_>) {
    let task = woken.task();
    let mut resumed = task.body.resumed.lock().expect("only set and cleared under it");
    assert!(!*resumed, "{task} was resumed twice for one park");
    *resumed = true;
    task.body.wake.notify_one();
}

pub(super) fn yield_now() {
    super::current().switches.count_involuntary();
    thread::yield_now();
}

fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

pub(super) fn now() -> Duration {
    epoch().elapsed()
}

/// In nanoseconds.
pub(super) fn deadline(delay: Duration) -> u64 {
    u64::try_from((now() + delay).as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn arm(task: &Arc<Task>) {
    let at = epoch() + Duration::from_nanos(task.timer.deadline());
    *task.body.alarm.lock().expect("only set and cleared under it") = Some(at);
}

pub(super) fn disarm(task: &Arc<Task>) {
    *task.body.alarm.lock().expect("only set and cleared under it") = None;
}

/// Carries an outcome up the stack of a task that ends by `exit`.
struct Exit(Outcome);

pub(super) fn exit(outcome: Outcome) -> ! {
    resume_unwind(Box::new(Exit(outcome)))
}

/// Starts the thread of a new task, as one more CPU of the software machine that the caller is in.
pub(super) fn start(task: Arc<Task>) -> Result<(), SpawnError> {
    let handle = Arc::clone(&task);
    let machine = crate::arch::host::processor::current().machine;
    let name = task.name().to_string();
    let run = move || {
        let cpu = machine.map(crate::arch::host::SoftMachine::enter);
        become_task(Some(Arc::clone(&task)));
        if let Some(space) = task.space() {
            space.activate();
        }
        let job = task
            .body
            .job
            .lock()
            .expect("only taken under it")
            .take()
            .expect("a task starts once");
        task.finish(outcome_of(job));
        if let Some(space) = task.space() {
            space.unload_here();
        }
        task.ended.announce();
        // The task may own the last reference to its space, which is given back on the machine.
        become_task(None);
        drop(task);
        drop(cpu);
    };
    match thread::Builder::new().name(name).spawn(run) {
        Ok(thread) => {
            *handle.body.thread.lock().expect("only taken and set under it") = Some(thread);
            Ok(())
        }
        Err(_) => Err(SpawnError::NoStack),
    }
}

/// Nobody here looks for tasks that wait for ever.
pub(super) fn wait_in_background(_task: &Task) {}

/// Waits until nothing of a task that has ended is left.
pub(super) fn joined(task: &Task) {
    let thread = task
        .body
        .thread
        .lock()
        .expect("only taken and set under it")
        .take();
    if let Some(thread) = thread {
        // It has announced its end, so it did not panic.
        let _ = thread.join();
    }
}

/// Runs `job`; a panic is a failure of the task, not of whoever waits for it.
fn outcome_of(job: Job) -> Outcome {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(outcome) => outcome,
        Err(payload) => match payload.downcast::<Exit>() {
            Ok(exit) => exit.0,
            Err(panic) => Outcome::Failed(message(&*panic)),
        },
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked".to_string())
}
