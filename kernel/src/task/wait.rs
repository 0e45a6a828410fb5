//! Wait queues.
//!
//! A waiter gets in line *before* it looks at its condition, and a waker changes the condition before it wakes, so a
//! wake-up between the look and the sleep finds the waiter in line. A waker takes the waiter out of the line and leaves
//! it a token, under the queue's lock; a waiter that leaves takes the lock, so that no waker holds on to it afterwards,
//! and passes on a wake-up that it was given and may not have needed. One that was woken looks once before it gets in line
//! again: what it finds then is what it was woken for.
//!
//! `wake_one` is for conditions that any of the waiters can use up; where waiters wait for different things, `wake_all`.
//!
//! loom explores every order of the steps of this file and of [`mod@crate::task::park`]:
//! `RUSTFLAGS="--cfg loom" cargo test -p faultline-kernel --release --lib --target-dir target/loom loom_`

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use intrusive_collections::LinkedList;

use super::link::WaitAdapter;
use super::sleep::Alarm;
use super::{Current, Task, current, park_on};
use crate::sync::Published;
use crate::sync::model::Lock;

/// What a task waits for, in words, and whether a signal ends that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitReason {
    words: &'static str,
    uninterruptible: bool,
}

impl WaitReason {
    /// A wait that a signal cuts short, or that no program sees; `words` are to be read after "waits for".
    pub const fn new(words: &'static str) -> Self {
        Self {
            words,
            uninterruptible: false,
        }
    }

    /// A wait that goes on whatever signal comes, or whatever but a fatal one (Linux: `TASK_UNINTERRUPTIBLE`,
    /// `TASK_KILLABLE`).
    pub const fn uninterruptible(words: &'static str) -> Self {
        Self {
            words,
            uninterruptible: true,
        }
    }

    pub(super) fn words(&self) -> &'static str {
        self.words
    }
}

/// What a task waits for at present, or waited for last.
#[derive(Default, Debug)]
pub(super) struct Waiting {
    reason: Published<WaitReason>,
    which: AtomicUsize,
}

impl Waiting {
    #[inline]
    pub(super) fn set(&self, reason: &'static WaitReason, which: usize) {
        self.reason.set(reason);
        self.which.store(which, Ordering::Relaxed);
    }

    /// The words, and the address or number that says which one.
    pub(super) fn get(&self) -> Option<(&'static str, usize)> {
        self.reason
            .get()
            .map(|reason| (reason.words, self.which.load(Ordering::Relaxed)))
    }

    /// Whether only a fatal signal cuts it short, if any does.
    pub(super) fn is_uninterruptible(&self) -> bool {
        self.reason.get().is_some_and(|reason| reason.uninterruptible)
    }
}

/// Tasks that wait for something to change.
#[derive(Debug)]
pub struct WaitQueue {
    waiters: Lock<LinkedList<WaitAdapter>>,
    reason: &'static WaitReason,
    /// Which one, for observers; 0: the queue's own address.
    which: usize,
}

impl WaitQueue {
    /// An empty queue; `reason` is what its waiters wait for.
    #[cfg(not(loom))]
    pub const fn new(reason: &'static WaitReason) -> Self {
        Self {
            waiters: Lock::new(LinkedList::new(WaitAdapter::NEW)),
            reason,
            which: 0,
        }
    }

    /// An empty queue; `reason` is what its waiters wait for.
    #[cfg(loom)]
    pub fn new(reason: &'static WaitReason) -> Self {
        Self {
            waiters: Lock::new(LinkedList::new(WaitAdapter::NEW)),
            reason,
            which: 0,
        }
    }

    /// The same queue, with a number to tell observers instead of its address.
    #[must_use]
    pub fn about(mut self, which: usize) -> Self {
        self.which = which;
        self
    }

    /// Waits until `condition` gives something. It is called without locks, any number of times, and must not wait
    /// itself: the task is in line already.
    ///
    /// # Panics
    /// It has to wait while a lock is held.
    #[track_caller]
    pub fn wait_until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let mut waiter = Waiter::new(self);
        loop {
            if let Some(value) = condition() {
                waiter.leave();
                return value;
            }
            waiter.step();
        }
    }

    /// [`wait_until`](Self::wait_until), but gives up after `timeout`; `None` then, unless the condition holds after
    /// all.
    ///
    /// # Panics
    /// It has to wait while a lock is held.
    #[track_caller]
    pub fn wait_timeout<T>(&self, timeout: Duration, condition: impl FnMut() -> Option<T>) -> Option<T> {
        self.wait_alarm(&Alarm::after(timeout), condition)
    }

    #[track_caller]
    pub(super) fn wait_alarm<T>(&self, alarm: &Alarm, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
        let mut waiter = Waiter::new(self);
        loop {
            if let Some(value) = condition() {
                waiter.leave();
                return Some(value);
            }
            if alarm.has_fired() {
                waiter.leave();
                // A wake-up may have been given to this waiter and nobody else.
                return condition();
            }
            waiter.step();
        }
    }

    /// Wakes the task that has waited longest; says whether there was one.
    pub fn wake_one(&self) -> bool {
        match self.waiters.lock().pop_front() {
            // Still under the lock: the waiter cannot leave, end and be freed meanwhile.
            Some(task) => {
                task.unpark();
                true
            }
            None => false,
        }
    }

    /// Wakes everybody who waits; says how many.
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        let mut waiters = self.waiters.lock();
        while let Some(task) = waiters.pop_front() {
            task.unpark();
            woken += 1;
        }
        woken
    }

    /// Whether nobody waits at this moment.
    pub fn is_empty(&self) -> bool {
        self.waiters.lock().is_empty()
    }
}

/// The current task on its way through a queue: it looks at its condition, gets in line, looks again, sleeps, and so on.
struct Waiter<'a> {
    queue: &'a WaitQueue,
    task: Current,
    is_in_line: bool,
}

impl<'a> Waiter<'a> {
    /// Not in line.
    #[inline]
    fn new(queue: &'a WaitQueue) -> Self {
        Self {
            queue,
            task: current(),
            is_in_line: false,
        }
    }

    /// The condition does not hold: to the end of the line; from there, to sleep.
    #[track_caller]
    fn step(&mut self) {
        if self.is_in_line {
            self.is_in_line = !self.park();
        } else {
            self.queue.waiters.lock().push_back(Arc::clone(&self.task));
            self.is_in_line = true;
        }
    }

    /// Sleeps. True when it was woken, and is out of the line; else it is in it still.
    #[track_caller]
    fn park(&self) -> bool {
        let which = match self.queue.which {
            0 => ptr::from_ref(self.queue).addr(),
            which => which,
        };
        park_on(self.queue.reason, which);
        let woken = !self.task.wait_link.is_linked();
        if woken {
            // With the lock, whoever woke it has let go of it.
            drop(self.queue.waiters.lock());
        }
        woken
    }

    /// Out of the line, if it is in it, because the condition holds or the time is up.
    ///
    /// A wake-up that came since the waiter got in line may have been for a change that this waiter did not use: it had
    /// found its condition before, and somebody behind it in line needs the later change. So it is passed on.
    #[inline]
    fn leave(&self) {
        if self.is_in_line {
            self.leave_line();
        }
    }

    #[inline(never)]
    fn leave_line(&self) {
        let mut waiters = self.queue.waiters.lock();
        let woken = !remove(&mut waiters, &self.task);
        if woken {
            self.task.park.take_token();
            if let Some(next) = waiters.pop_front() {
                next.unpark();
            }
        }
    }
}

/// Takes `task` out of the line; `false` when it is not in it.
fn remove(waiters: &mut LinkedList<WaitAdapter>, task: &Arc<Task>) -> bool {
    let mut cursor = waiters.front_mut();
    while let Some(waiter) = cursor.get() {
        if ptr::eq(waiter, Arc::as_ptr(task)) {
            cursor.remove();
            return true;
        }
        cursor.move_next();
    }
    false
}
