//! Timers that are read: how often one has gone off since it was read last.

use alloc::sync::{Arc, Weak};
use core::fmt;
use core::time::Duration;

use super::{File, Io, Notifier, OpenFile, OpenFlags, Readiness, Sink};
use crate::abi::errno::Errno;
use crate::process::clock::{self, Clock};
use crate::process::timer::{Interval, Setting};
use crate::sync::SpinLock;
use crate::syscall::{Error, user};
use crate::task::WaitReason;
use crate::task::timers::{self, Timed, TimerId};

/// `TFD_IOC_SET_TICKS`.
const SET_TICKS: u32 = 0x4008_5400;

static WAITING: WaitReason = WaitReason::new("a timer, by its descriptor");

/// A timer.
pub struct TimerFile {
    clock: Clock,
    /// The clock's number, to be shown.
    number: u32,
    state: SpinLock<State>,
    notifier: Notifier,
    me: Weak<Self>,
}

struct State {
    interval: Interval,
    timer: Option<TimerId>,
    /// How often it has gone off unread.
    count: u64,
    /// How it was set, to be shown.
    flags: u32,
}

impl TimerFile {
    /// A timer that goes by `clock`, Linux's number `number`, and is not set.
    pub fn new(clock: Clock, number: u32) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            clock,
            number,
            state: SpinLock::new(State {
                interval: Interval::default(),
                timer: None,
                count: 0,
                flags: 0,
            }),
            notifier: Notifier::new(&WAITING),
            me: Weak::clone(me),
        })
    }

    /// How it stands: what is left, and the time between two.
    pub fn get(&self) -> Setting {
        let mut state = self.state.lock();
        self.catch_up(&mut state);
        let Some(at) = state.interval.at else {
            return Setting {
                value: Duration::ZERO,
                interval: state.interval.every,
            };
        };
        Setting {
            value: clock::until(self.clock, at),
            interval: state.interval.every,
        }
    }

    /// Sets it, to a time from now on or to one of its clock; how it stood.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn set(&self, setting: Setting, is_absolute: bool, flags: u32) -> Result<Setting, Errno> {
        let before = self.get();
        let interval = Interval::set(setting, is_absolute, clock::now(self.clock));
        let mut state = self.state.lock();
        let old = state.timer.take();
        (state.interval, state.count, state.flags) = (interval, 0, flags);
        drop(state);
        if let Some(old) = old {
            timers::cancel(old);
        }
        self.arm()?;
        Ok(before)
    }

    /// Has it go off at its next time.
    fn arm(&self) -> Result<(), Errno> {
        loop {
            let Some(at) = self.state.lock().interval.at else {
                return Ok(());
            };
            let monotonic = clock::now(Clock::Monotonic).saturating_add(clock::until(self.clock, at));
            let timer = timers::prepare(monotonic).map_err(|_| Errno::ENOMEM)?;
            let mut state = self.state.lock();
            if state.interval.at != Some(at) {
                // Another thread has set it, or counted the times that have come.
                continue;
            }
            // Noted down before it can be due. Another thread may have been faster.
            let other = state.timer.replace(timer);
            drop(state);
            if let Some(other) = other {
                timers::cancel(other);
            }
            // One that is set does not stay open by that.
            timers::set(timer, Arc::new(Alarm(Weak::clone(&self.me))));
            return Ok(());
        }
    }

    /// Counts the times that have come.
    fn catch_up(&self, state: &mut State) {
        let now = clock::now(self.clock);
        if state.interval.at.is_some_and(|at| at <= now) {
            let times = 1 + state.interval.advance(now);
            state.count = state.count.saturating_add(times);
        }
    }

    /// The times that it went off, if any.
    fn take(&self) -> Option<u64> {
        let mut state = self.state.lock();
        self.catch_up(&mut state);
        let count = core::mem::take(&mut state.count);
        (count > 0).then_some(count)
    }
}

/// What a timer leaves with those who keep the time.
struct Alarm(Weak<TimerFile>);

impl Timed for Alarm {
    fn due(&self, timer: TimerId) {
        if let Some(file) = self.0.upgrade() {
            file.due(timer);
        }
    }
}

impl TimerFile {
    fn due(&self, timer: TimerId) {
        let mut state = self.state.lock();
        if state.timer != Some(timer) {
            return;
        }
        state.timer = None;
        self.catch_up(&mut state);
        drop(state);
        self.notifier.notify(Readiness::READABLE);
        // Without memory it does not go off again; there is nobody to tell.
        let _ = self.arm();
    }
}

impl File for TimerFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[timerfd]")
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let count = self.notifier.wait_unless(io.nonblocking, || self.take())?;
        to.put(&count.to_ne_bytes())?;
        Ok(8)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let mut state = self.state.lock();
        self.catch_up(&mut state);
        if state.count > 0 {
            Readiness::IN
        } else {
            Readiness::empty()
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        if command != SET_TICKS {
            return Err(Errno::ENOTTY.into());
        }
        let count = user::read_u64(argument)?;
        if count == 0 {
            return Err(Errno::EINVAL.into());
        }
        self.state.lock().count = count;
        self.notifier.notify(Readiness::READABLE);
        Ok(0)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let setting = self.get();
        let state = self.state.lock();
        let (count, flags) = (state.count, state.flags);
        drop(state);
        let show = |time: Duration| (time.as_secs(), time.subsec_nanos());
        let (value, interval) = (show(setting.value), show(setting.interval));
        writeln!(
            f,
            "clockid: {}\nticks: {count}\nsettime flags: 0{flags:o}",
            self.number
        )?;
        writeln!(f, "it_value: ({}, {})", value.0, value.1)?;
        writeln!(f, "it_interval: ({}, {})", interval.0, interval.1)
    }
}

/// Stops a timer when its last descriptor is closed.
impl Drop for TimerFile {
    fn drop(&mut self) {
        if let Some(timer) = self.state.get_mut().timer.take() {
            timers::cancel(timer);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn timers_that_are_due_while_they_are_set_go_off_all_the_same() {
        let setting = Setting {
            value: Duration::from_nanos(1),
            interval: Duration::ZERO,
        };
        let set = |_| {
            let timer = TimerFile::new(Clock::Monotonic, 1);
            timer.set(setting, false, 0).expect("the host has threads");
            timer
        };
        let timers: alloc::vec::Vec<_> = (0..100_000).map(set).collect();
        let given_up = crate::task::now() + Duration::from_secs(60);
        for (number, timer) in timers.iter().enumerate() {
            while timer.state.lock().timer.is_some() {
                assert!(crate::task::now() < given_up, "timer {number} never went off");
                crate::task::yield_now();
            }
        }
    }
}
