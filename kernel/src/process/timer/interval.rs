//! `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use super::timers::{self, TimerId};
use crate::abi::errno::Errno;
use crate::abi::signal::{SIGALRM, SIGPROF, SIGVTALRM, SigInfo};
use crate::process::Process;
use crate::process::signal::send_to_process;
use crate::sync::SpinLock;
use crate::task;

/// Which time they go by, by Linux's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Time that passes: SIGALRM.
    Real,
    /// CPU time in user mode: SIGVTALRM.
    Virtual,
    /// CPU time: SIGPROF.
    Profile,
}

impl Kind {
    /// From Linux's number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn from_number(number: u64) -> Result<Self, Errno> {
        match number as u32 {
            0 => Ok(Self::Real),
            1 => Ok(Self::Virtual),
            2 => Ok(Self::Profile),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// How a timer is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// Time until it goes off; zero: it does not.
    pub value: Duration,
    /// Time until it does again; zero: it does not.
    pub interval: Duration,
}

/// When a timer goes off, by the clock that it goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interval {
    /// `None`: it is not set.
    pub at: Option<Duration>,
    /// Time from then to the next time; zero: once.
    pub every: Duration,
}

impl Interval {
    /// As somebody sees it at `now`. One that is due has a moment left (as on Linux, where zero means that it is not set).
    pub fn setting(&self, now: Duration) -> Setting {
        const MOMENT: Duration = Duration::from_micros(1);
        Setting {
            value: self
                .at
                .map_or(Duration::ZERO, |at| at.saturating_sub(now).max(MOMENT)),
            interval: self.every,
        }
    }

    /// Set at `now`, to a time from then on.
    pub fn of(setting: Setting, now: Duration) -> Self {
        Self {
            at: (!setting.value.is_zero()).then(|| now.saturating_add(setting.value)),
            every: setting.interval,
        }
    }

    /// Set at `now`, to a time from then on or to one of the same clock.
    pub fn set(setting: Setting, is_absolute: bool, now: Duration) -> Self {
        match is_absolute {
            true if !setting.value.is_zero() => Self {
                at: Some(setting.value),
                every: setting.interval,
            },
            _ => Self::of(setting, now),
        }
    }

    /// It goes off at `now`: when it does the next time, which is not past, and how many times were missed.
    pub fn advance(&mut self, now: Duration) -> u64 {
        let Some(at) = self.at else { return 0 };
        if self.every.is_zero() {
            self.at = None;
            return 0;
        }
        let missed = now.saturating_sub(at).as_nanos() / self.every.as_nanos();
        let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
        self.at = Some(at + self.every.saturating_mul(missed + 1));
        missed.into()
    }
}

/// The timers of a process.
#[derive(Debug, Default)]
pub struct Intervals {
    real: SpinLock<Option<Arc<Real>>>,
    cpu: SpinLock<[Interval; 2]>,
    any_cpu: AtomicBool,
}

/// The timer that goes by time that passes.
#[derive(Debug)]
struct Real {
    process: Weak<Process>,
    state: SpinLock<(Interval, Option<TimerId>)>,
}

impl timers::Timed for Real {
    fn due(&self, timer: TimerId) {
        let mut state = self.state.lock();
        if state.1 != Some(timer) {
            return;
        }
        let now = task::now();
        state.0.advance(now);
        state.1 = None;
        let next = state.0.at;
        drop(state);
        let Some(process) = self.process.upgrade() else {
            return;
        };
        // There is always room for it.
        let _ = send_to_process(&process, SigInfo::kernel(SIGALRM));
        let again = process.timers.intervals.real.lock().clone();
        if let (Some(me), Some(at)) = (again, next)
            && core::ptr::eq(&raw const *me, self)
        {
            me.arm(at);
        }
    }
}

impl Real {
    fn arm(self: &Arc<Self>, at: Duration) {
        // Without memory for the task it never goes off; there is nobody to tell.
        let Ok(id) = timers::prepare(at) else { return };
        let mut state = self.state.lock();
        if state.0.at != Some(at) {
            // It was stopped.
            return;
        }
        // Noted down before it can be due.
        state.1 = Some(id);
        drop(state);
        let me: Arc<dyn timers::Timed> = Arc::<Self>::clone(self);
        timers::set(id, me);
    }

    fn stop(&self) {
        let mut state = self.state.lock();
        state.0.at = None;
        if let Some(id) = state.1.take() {
            timers::cancel(id);
        }
    }
}

impl Intervals {
    /// How the timer stands.
    pub fn get(&self, process: &Process, kind: Kind) -> Setting {
        match kind {
            Kind::Real => {
                let real = self.real.lock().clone();
                real.map_or(Setting::default(), |real| {
                    real.state.lock().0.setting(task::now())
                })
            }
            kind => self.cpu.lock()[index(kind)].setting(cpu_time(process)),
        }
    }

    /// Sets the timer; how it stood.
    pub fn set(&self, process: &Arc<Process>, kind: Kind, setting: Setting) -> Setting {
        let before = self.get(process, kind);
        if kind != Kind::Real {
            let mut cpu = self.cpu.lock();
            cpu[index(kind)] = Interval::of(setting, cpu_time(process));
            let any = cpu.iter().any(|timer| timer.at.is_some());
            self.any_cpu.store(any, Ordering::Release);
            return before;
        }
        let interval = Interval::of(setting, task::now());
        let new = interval.at.map(|_| {
            Arc::new(Real {
                process: Arc::downgrade(process),
                state: SpinLock::new((interval, None)),
            })
        });
        let old = core::mem::replace(&mut *self.real.lock(), new.clone());
        if let Some(old) = old {
            old.stop();
        }
        if let (Some(new), Some(at)) = (new, interval.at) {
            new.arm(at);
        }
        before
    }

    /// None goes off any more.
    pub(super) fn stop(&self) {
        let real = self.real.lock().take();
        if let Some(real) = real {
            real.stop();
        }
        self.any_cpu.store(false, Ordering::Release);
    }

    /// The process was found running; timers that go by CPU time may be due.
    #[inline]
    pub(in crate::process) fn look(&self, process: &Arc<Process>) {
        if self.any_cpu.load(Ordering::Acquire) {
            self.look_at_cpu(process);
        }
    }

    #[cold]
    fn look_at_cpu(&self, process: &Arc<Process>) {
        let now = cpu_time(process);
        for (kind, signal) in [(Kind::Virtual, SIGVTALRM), (Kind::Profile, SIGPROF)] {
            let mut cpu = self.cpu.lock();
            let timer = &mut cpu[index(kind)];
            let is_due = timer.at.is_some_and(|at| at <= now);
            if is_due {
                timer.advance(now);
            }
            drop(cpu);
            if is_due {
                let _ = send_to_process(process, SigInfo::kernel(signal));
            }
        }
    }
}

fn index(kind: Kind) -> usize {
    usize::from(kind == Kind::Profile)
}

fn cpu_time(process: &Process) -> Duration {
    let times = process.times();
    Duration::from_nanos(times.user + times.system)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_timer_that_repeats_goes_off_in_the_future_and_counts_what_it_missed() {
        let setting = Setting {
            value: SECOND,
            interval: SECOND,
        };
        let mut timer = Interval::of(setting, 10 * SECOND);
        assert_eq!(timer.at, Some(11 * SECOND));
        assert_eq!(timer.advance(11 * SECOND), 0);
        assert_eq!(timer.at, Some(12 * SECOND));
        assert_eq!(timer.advance(15 * SECOND + SECOND / 2), 3);
        assert_eq!(timer.at, Some(16 * SECOND));
        assert_eq!(timer.setting(15 * SECOND).value, SECOND);
    }

    #[test]
    fn a_timer_without_interval_goes_off_once_and_one_that_is_due_is_not_unset() {
        let setting = Setting {
            value: SECOND,
            interval: Duration::ZERO,
        };
        let mut timer = Interval::of(setting, SECOND);
        assert!(!timer.setting(5 * SECOND).value.is_zero());
        timer.advance(5 * SECOND);
        assert_eq!(timer.at, None);
        assert_eq!(timer.setting(6 * SECOND), Setting::default());
    }
}
