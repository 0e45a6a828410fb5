//! The clocks that programs read.
//!
//! One counter is behind all of them (the CPU's time-stamp counter), so they agree with each other and with the vDSO to the
//! nanosecond. The wall clock is that counter and the date that the machine's own clock showed at first asking.

use core::time::Duration;

use crate::sync::Once;
use crate::task;

/// Time since the machine began to count.
pub fn monotonic() -> Duration {
    task::now()
}

/// Time since 1970-01-01, UTC.
pub fn realtime() -> Duration {
    task::now() + realtime_offset()
}

/// What the wall clock is ahead of the other; does not change. Whole seconds.
pub fn realtime_offset() -> Duration {
    static OFFSET: Once<Duration> = Once::new();
    *OFFSET.call_once(|| {
        let date = date_at_start().unwrap_or(0);
        Duration::from_secs(date.saturating_sub(task::now().as_secs()))
    })
}

#[cfg(target_os = "none")]
fn date_at_start() -> Option<u64> {
    crate::drivers::rtc::read()
}

/// The software machine has no such clock: its time begins with 1970.
#[cfg(not(target_os = "none"))]
fn date_at_start() -> Option<u64> {
    None
}
