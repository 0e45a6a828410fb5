//! A task that looks at a fixed interval for faults that nobody resolves, for as long as the machine runs.
//!
//! It has no timer, since a machine on which nothing but such looks can happen is at a standstill and should say so: the
//! timer's interrupt handler wakes it.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::park::park_on;
use super::wait::WaitReason;
use super::{SpawnError, Task, sched, spawn};
use crate::arch::{Clock, Machine};
use crate::sync::Once;
use crate::uffd::diagnosis;
use alloc::sync::Arc;

static WATCHER: Once<Arc<Task>> = Once::new();
static REASON: WaitReason = WaitReason::new("its next look");
/// When the next look is due, in ticks of the clock.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Prints from now on, every `interval`, the outstanding faults when one takes longer than that. The first call counts.
///
/// # Errors
/// No memory for the task's stack.
pub fn start(interval: Duration) -> Result<(), SpawnError> {
    let ticks = interval.as_nanos() * u128::from(Machine::frequency()) / 1_000_000_000;
    let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
    let task = spawn("watcher", None, move || -> () {
        loop {
            DUE.store(Machine::ticks().saturating_add(ticks), Ordering::Relaxed);
            park_on(&REASON, 0);
            diagnosis::report_if_any(interval);
        }
    })?;
    task.set_in_background();
    WATCHER.call_once(|| task);
    Ok(())
}

/// Wakes the watcher if its next look is due. Called by the timer's interrupt handler.
pub(super) fn on_tick() {
    if Machine::ticks() < DUE.load(Ordering::Relaxed) {
        return;
    }
    DUE.store(u64::MAX, Ordering::Relaxed);
    if let Some(woken) = WATCHER.get().and_then(|watcher| watcher.wake()) {
        sched::resume_queued(woken);
    }
}
