//! Timers of programs: `alarm` and `setitimer`, `timer_create`.
//!
//! | file | what |
//! | --- | --- |
//! | `interval` | the three interval timers of a process |
//! | `posix` | those that `timer_create` makes |
//!
//! Those that go by a clock are [`crate::task::timers`]; those that go by CPU time are looked at when the timer's interrupt comes
//! while the process runs.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::sync::SpinLock;
use crate::task::timers;

mod interval;
mod posix;

pub use interval::{Interval, Kind, Setting};
pub use posix::{Notify, PosixTimer, create};

use interval::Intervals;

/// The timers of a process.
#[derive(Debug, Default)]
pub struct Timers {
    /// The interval timers.
    pub intervals: Intervals,
    /// Those of `timer_create`, by number.
    pub(super) posix: SpinLock<BTreeMap<u32, Arc<PosixTimer>>>,
}

impl Timers {
    /// Stops all of them: the process ends.
    pub(super) fn stop_all(&self) {
        self.intervals.stop();
        self.delete_all();
    }

    /// Deletes those of `timer_create`.
    pub(super) fn delete_all(&self) {
        let all = core::mem::take(&mut *self.posix.lock());
        all.values().for_each(|timer| timer.stop());
    }
}
