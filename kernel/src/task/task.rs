//! A task.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayString;
use intrusive_collections::{LinkedListAtomicLink, RBTreeAtomicLink};

use super::exit::Ended;
use super::park::ParkWord;
use super::signal::Signals;
use super::sleep::Timer;
use super::wait::Waiting;
use super::{engine, table};
use crate::mm::space::Space;
use crate::process::Thread;
use crate::process::futex::FutexSlot;
use crate::sync::Once;
use crate::uffd::{EventSlot, FaultSlot};

/// Longest name of a task, in bytes; longer ones are cut.
pub const NAME_LEN: usize = 32;

/// The name of a task.
pub type TaskName = ArrayString<NAME_LEN>;

/// Number of a task; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(u64);

impl TaskId {
    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The task with this number.
    pub(crate) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task is doing, as far as an observer can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// On a CPU, or ready to be.
    Runnable,
    /// Waits to be woken.
    Parked,
    /// Over.
    Ended,
}

/// How often a task was left for another one. Only the task itself counts.
#[derive(Debug, Default)]
pub struct Switches {
    voluntary: AtomicU64,
    involuntary: AtomicU64,
}

impl Switches {
    /// Because it has to wait.
    #[inline]
    pub(super) fn count_voluntary(&self) {
        self.voluntary.store(self.voluntary() + 1, Ordering::Relaxed);
    }

    /// Because another one is in line.
    pub(super) fn count_involuntary(&self) {
        self.involuntary.store(self.involuntary() + 1, Ordering::Relaxed);
    }

    /// How often it had to wait.
    #[inline]
    pub fn voluntary(&self) -> u64 {
        self.voluntary.load(Ordering::Relaxed)
    }

    /// How often another one was in line: preempted, or by its own leave.
    pub fn involuntary(&self) -> u64 {
        self.involuntary.load(Ordering::Relaxed)
    }
}

/// A task. Always lives in an [`Arc`]; the scheduler keeps one reference from its beginning to its end.
#[derive(Debug)]
pub struct Task {
    // What a switch and a wake-up touch comes first.
    pub(super) park: ParkWord,
    pub(super) body: engine::Body,
    space: Option<Arc<Space>>,
    thread: Once<Arc<Thread>>,
    pub(super) waiting: Waiting,
    pub(super) run_link: LinkedListAtomicLink,
    /// Links the task into the one queue of waiters that it stands in.
    pub wait_link: LinkedListAtomicLink,
    pub(super) timer: Timer,
    pub(super) timer_link: RBTreeAtomicLink,
    pub(super) ended: Ended,
    pub(super) signals: Signals,
    id: TaskId,
    name: TaskName,
    pub(super) switches: Switches,
    /// It waits without anybody waiting for it.
    in_background: AtomicBool,
    /// Links the task into the queue of the userfault context that its fault or its event is delivered to.
    pub fault_link: LinkedListAtomicLink,
    /// The fault that the task waits for.
    pub fault: FaultSlot,
    /// The event that it waits to be read.
    pub event: EventSlot,
    /// Links the task into the bucket of the word in memory that it waits for.
    pub futex_link: LinkedListAtomicLink,
    /// Which word that is.
    pub(crate) futex: FutexSlot,
}

impl Task {
    pub(super) fn new(name: &str, space: Option<Arc<Space>>, body: engine::Body) -> Arc<Self> {
        let id = TaskId::next();
        let task = Arc::new(Self {
            park: ParkWord::new(),
            body,
            space,
            thread: Once::new(),
            waiting: Waiting::default(),
            run_link: LinkedListAtomicLink::new(),
            wait_link: LinkedListAtomicLink::new(),
            timer: Timer::new(),
            timer_link: RBTreeAtomicLink::new(),
            ended: Ended::new(id),
            signals: Signals::new(),
            id,
            name: cut(name),
            switches: Switches::default(),
            in_background: AtomicBool::new(false),
            fault_link: LinkedListAtomicLink::new(),
            fault: FaultSlot::default(),
            event: EventSlot::default(),
            futex_link: LinkedListAtomicLink::new(),
            futex: FutexSlot::default(),
        });
        table::enter(&task);
        task
    }

    /// Its number.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, to keep.
    pub(crate) fn short_name(&self) -> TaskName {
        self.name
    }

    /// Its address space; a task without one runs in whatever is loaded and may touch kernel memory only.
    #[inline]
    pub fn space(&self) -> Option<&Arc<Space>> {
        self.space.as_ref()
    }

    /// The thread of a process that the task runs, if it runs one.
    #[inline]
    pub fn thread(&self) -> Option<&Arc<Thread>> {
        self.thread.get()
    }

    /// The number that programs know it by: its thread's, or its own where it runs none.
    #[inline]
    pub fn told_id(&self) -> TaskId {
        match self.thread() {
            Some(thread) => TaskId::from_u64(thread.tid().as_u32().into()),
            None => self.id(),
        }
    }

    /// Says which thread it runs; once, before the task does.
    pub(super) fn set_thread(&self, thread: Arc<Thread>) {
        self.thread.call_once(|| thread);
    }

    /// From now on it does not count among those that wait when nothing can run: nobody waits for what it does.
    #[cfg(target_os = "none")]
    pub(super) fn set_in_background(&self) {
        self.in_background.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for what it does.
    pub fn is_in_background(&self) -> bool {
        self.in_background.load(Ordering::Relaxed)
    }

    /// How often it was left for another task.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state_unless(self.ended.has_ended())
    }

    /// [`Self::state`] without waiting for a lock, for interrupt handlers and panics.
    pub(super) fn seeming_state(&self) -> State {
        self.state_unless(self.ended.seems_ended())
    }

    /// Whether no signal but a fatal one cuts short what it waits for, or waited for last ([`WaitReason`]).
    ///
    /// [`WaitReason`]: super::WaitReason
    pub fn cannot_be_interrupted(&self) -> bool {
        self.waiting.is_uninterruptible()
    }

    fn state_unless(&self, ended: bool) -> State {
        if ended {
            State::Ended
        } else if self.park.is_parked() {
            State::Parked
        } else {
            State::Runnable
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        table::leave(self.id);
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// As much of `name` as fits, cut between characters.
fn cut(name: &str) -> TaskName {
    let mut short = TaskName::new();
    for c in name.chars() {
        if short.try_push(c).is_err() {
            break;
        }
    }
    short
}
