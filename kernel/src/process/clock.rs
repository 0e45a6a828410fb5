//! The clocks that programs read.
//!
//! One counter is behind all of them (the CPU's time-stamp counter), so they agree with each other and with the vDSO to the
//! nanosecond. The wall clock is that counter and the date that the machine's own clock showed at first asking.

use core::time::Duration;

use crate::abi::errno::Errno;
use crate::sync::Once;
use crate::task;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A clock that can be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Time of day.
    Realtime,
    /// Since the machine began.
    Monotonic,
}

/// What a clock shows.
pub fn now(clock: Clock) -> Duration {
    match clock {
        Clock::Monotonic => monotonic(),
        Clock::Realtime => realtime(),
    }
}

/// How long it is until a clock shows `time`.
pub fn until(clock: Clock, time: Duration) -> Duration {
    time.saturating_sub(now(clock))
}

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

/// `struct timespec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeSpec {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanos: i64,
}

impl TimeSpec {
    /// Bytes in memory.
    pub const SIZE: usize = 16;

    /// From memory.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            seconds: word(0),
            nanos: word(8),
        }
    }

    /// As it lies in memory.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanos.to_le_bytes());
        bytes
    }

    /// As a time.
    ///
    /// # Errors
    /// EINVAL: negative, or more nanoseconds than a second has.
    pub fn duration(self) -> Result<Duration, Errno> {
        let seconds = u64::try_from(self.seconds).map_err(|_| Errno::EINVAL)?;
        let nanos = u64::try_from(self.nanos).map_err(|_| Errno::EINVAL)?;
        if nanos >= SECOND {
            return Err(Errno::EINVAL);
        }
        Ok(Duration::new(seconds, nanos as u32))
    }
}

impl From<Duration> for TimeSpec {
    fn from(time: Duration) -> Self {
        Self {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanos: time.subsec_nanos().into(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn odd_times_are_refused() {
        let spec = |seconds, nanos| TimeSpec { seconds, nanos };
        assert_eq!(spec(1, 999_999_999).duration(), Ok(Duration::new(1, 999_999_999)));
        assert_eq!(spec(1, 1_000_000_000).duration(), Err(Errno::EINVAL));
        assert_eq!(spec(-1, 0).duration(), Err(Errno::EINVAL));
        assert_eq!(spec(0, -1).duration(), Err(Errno::EINVAL));
        let time = spec(3, 4);
        assert_eq!(TimeSpec::from_bytes(&time.to_bytes()), time);
    }
}
