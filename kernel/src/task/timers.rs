//! Things that are to happen at a time.
//!
//! A background task sleeps until the earliest is due and does them one after the other, with no lock held, so they may take
//! locks and wake tasks but should not wait themselves. The resolution is that of [`super::sleep`]. The task begins with the
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
static CHANGED: WaitQueue = WaitQueue::new(&WaitReason("the earliest timer"));

/// Has `what` told when [`super::now`] shows `at`.
///
/// # Errors
/// No memory for the task that does it.
pub fn schedule(at: Duration, what: Arc<dyn Timed>) -> Result<TimerId, SpawnError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    start()?;
    let id = TimerId {
        at,
        number: NEXT.fetch_add(1, Ordering::Relaxed),
    };
    TIMERS.lock().insert(id, what);
    CHANGED.wake_all();
    Ok(id)
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

/// Does the next thing that is due, or waits for it.
fn work() {
    let now = super::now();
    let mut timers = TIMERS.lock();
    let earliest = timers.first_entry();
    let due = match earliest {
        Some(entry) if entry.key().at <= now => Ok(entry.remove_entry()),
        Some(entry) => Err(Some(*entry.key())),
        None => Err(None),
    };
    drop(timers);
    let next = match due {
        Ok((id, what)) => {
            what.due(id);
            return;
        }
        Err(next) => next,
    };
    let first = || TIMERS.lock().first_key_value().map(|(id, _)| *id);
    let changed = || (first() != next).then_some(());
    match next {
        None => CHANGED.wait_until(changed),
        Some(id) => CHANGED.wait_timeout(id.at - now, changed).unwrap_or(()),
    }
}
