//! Timed waits.
//!
//! A task has one timer. `Alarm` arms it for the current task and disarms it when dropped; when the time has come the
//! timer interrupt notes it in the task and unparks it. The resolution is the tick of the timer.

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;
use core::time::Duration;

use super::park::Woken;
use super::wait::WaitReason;
use super::{Task, current_arc, engine, park_on};
use crate::sync::model::atomic::{AtomicBool, Ordering};

/// The timer of a task.
#[derive(Debug)]
pub(super) struct Timer {
    /// When it fires, in ticks of the engine's clock.
    deadline: AtomicU64,
    fired: AtomicBool,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            fired: AtomicBool::new(false),
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(core::sync::atomic::Ordering::Relaxed)
    }
}

impl Task {
    /// The time has come. Whoever gets the task back resumes it.
    pub(super) fn fire_timer(&self) -> Option<Woken<'_>> {
        self.timer.fired.store(true, Ordering::Release);
        self.wake()
    }
}

/// The current task's timer, armed until dropped.
#[derive(Debug)]
pub(super) struct Alarm {
    task: Arc<Task>,
}

impl Alarm {
    /// Fires after `delay` (at the first tick after it; at once for no delay at all).
    pub(super) fn after(delay: Duration) -> Self {
        let alarm = Self::unarmed();
        alarm
            .task
            .timer
            .deadline
            .store(engine::deadline(delay), core::sync::atomic::Ordering::Relaxed);
        if delay.is_zero() {
            alarm.task.timer.fired.store(true, Ordering::Release);
        } else {
            engine::arm(&alarm.task);
        }
        alarm
    }

    /// Fires when somebody calls [`Task::fire_timer`].
    pub(super) fn unarmed() -> Self {
        let task = current_arc();
        task.timer.fired.store(false, Ordering::Relaxed);
        Self { task }
    }

    /// Whether the time has come.
    pub(super) fn has_fired(&self) -> bool {
        self.task.timer.fired.load(Ordering::Acquire)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        engine::disarm(&self.task);
    }
}

/// Time since some moment before the first task, from a clock that never goes back.
pub fn now() -> Duration {
    engine::now()
}

/// Waits until `look` gives something, or `timeout` has passed: `None` then, unless it gives something after all. For a task
/// that those know who change what it looks at: they unpark it afterwards. `reason` and `which` are told to observers.
///
/// # Panics
/// It has to wait while a lock is held.
#[track_caller]
pub fn wait_told<T>(
    reason: &'static WaitReason,
    which: usize,
    timeout: Option<Duration>,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let alarm = timeout.map(Alarm::after);
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if alarm.as_ref().is_some_and(Alarm::has_fired) {
            return look();
        }
        park_on(reason, which);
    }
}

/// Lets at least `duration` pass; other tasks run meanwhile.
///
/// # Panics
/// A lock is held.
#[track_caller]
pub fn sleep(duration: Duration) {
    static REASON: WaitReason = WaitReason::new("time to pass, until tick");
    let alarm = Alarm::after(duration);
    while !alarm.has_fired() {
        park_on(&REASON, alarm.task.timer.deadline() as usize);
    }
}
