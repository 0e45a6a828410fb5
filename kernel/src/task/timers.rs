//! Things that are to happen at a time.
//!
//! A background task sleeps until the earliest is due and does them one after the other, with no lock held, so they may take
//! locks and wake tasks but should not wait themselves. The resolution is that of [`super::sleep()`]. The task begins with the
//! first timer: machines without any have none.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::{SpawnError, WaitQueue, WaitReason, engine, spawn};
use crate::sync::{Once, SpinLock};

/// Something that is to happen.
pub trait Timed: Send + Sync {
    /// The time has come; `timer` is what [`schedule`] gave.
    fn due(&self, timer: TimerId);
}

/// A timer that was set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at: Duration,
    number: u64,
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.number, self.at)
    }
}

static TIMERS: SpinLock<BTreeMap<TimerId, Arc<dyn Timed>>> = SpinLock::new(BTreeMap::new());
/// The number of the next timer.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Who waits for the earliest to change.
fn changed() -> &'static WaitQueue {
    static EARLIEST: WaitReason = WaitReason::new("the earliest timer");
    static CHANGED: Once<WaitQueue> = Once::new();
    CHANGED.call_once(|| WaitQueue::new(&EARLIEST))
}

/// Has `what` told when [`super::now`] shows `at`. It may be told before this returns: whoever goes by the timer's name takes
/// [`prepare`] and [`set`].
///
/// # Errors
/// No memory for the task that does it.
pub fn schedule(at: Duration, what: Arc<dyn Timed>) -> Result<TimerId, SpawnError> {
    let timer = prepare(at)?;
    set(timer, what);
    Ok(timer)
}

/// A timer for when [`super::now`] shows `at`. Nobody is told before it is [`set`], so that it can be noted down first.
///
/// # Errors
/// No memory for the task that tells.
pub fn prepare(at: Duration) -> Result<TimerId, SpawnError> {
    start()?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(TimerId { at, number })
}

/// Has `what` told when the time of `timer` has come. One that was cancelled before is set all the same: who is told finds it noted
/// down no more.
pub fn set(timer: TimerId, what: Arc<dyn Timed>) {
    TIMERS.lock().insert(timer, what);
    changed().wake_all();
}

/// Takes a timer back; false when it is due already, and told or about to be.
pub fn cancel(timer: TimerId) -> bool {
    let taken = TIMERS.lock().remove(&timer);
    taken.is_some()
}

fn start() -> Result<(), SpawnError> {
    static STARTED: Once<()> = Once::new();
    if STARTED.get().is_some() {
        return Ok(());
    }
    // Two who are first at once make two: they share the work.
    let task = spawn("timers", None, || -> () {
        loop {
            work();
        }
    })?;
    engine::wait_in_background(&task);
    STARTED.call_once(|| ());
    Ok(())
}

/// Does what is due, and waits for the next. Timers that are set meanwhile have their turn after a wait, whatever they are set
/// to: one that sets itself again at once must not keep the CPU.
fn work() {
    let newest = NEXT.load(Ordering::Relaxed);
    while let Some((id, what)) = take_due(newest) {
        what.due(id);
    }
    let first = || TIMERS.lock().first_key_value().map(|(id, _)| *id);
    let next = first();
    let is_other = || (first() != next).then_some(());
    match next {
        None => changed().wait_until(is_other),
        Some(id) => {
            let left = id.at.saturating_sub(super::now()).max(Duration::from_nanos(1));
            changed().wait_timeout(left, is_other).unwrap_or(());
        }
    }
}

/// The earliest timer, if it is due and older than number `newest`.
fn take_due(newest: u64) -> Option<(TimerId, Arc<dyn Timed>)> {
    let now = TimerId {
        at: super::now(),
        number: u64::MAX,
    };
    let mut timers = TIMERS.lock();
    let due = timers.range(..=now).map(|(id, _)| *id);
    let id = due.into_iter().find(|id| id.number < newest)?;
    timers.remove_entry(&id)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Completion;
    use super::*;

    static DONE: WaitReason = WaitReason::new("a timer of the test");

    /// Sets itself to be due at once, until it is over.
    struct Restless(Arc<Completion>);

    impl Timed for Restless {
        fn due(&self, _timer: TimerId) {
            if !self.0.is_done() {
                let again: Arc<dyn Timed> = Arc::new(Self(Arc::clone(&self.0)));
                let _ = schedule(Duration::ZERO, again);
            }
        }
    }

    struct Once(Arc<Completion>);

    impl Timed for Once {
        fn due(&self, _timer: TimerId) {
            self.0.complete();
        }
    }

    #[test]
    fn a_timer_that_sets_itself_at_once_lets_others_have_their_turn() {
        let done = Arc::new(Completion::new(&DONE));
        schedule(Duration::ZERO, Arc::new(Restless(Arc::clone(&done)))).expect("the host has threads");
        let soon = super::super::now() + Duration::from_millis(20);
        schedule(soon, Arc::new(Once(Arc::clone(&done)))).expect("the host has threads");
        done.wait();
    }
}
