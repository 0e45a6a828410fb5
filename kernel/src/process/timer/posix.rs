//! Timers of `timer_create`.
//!
//! A timer whose signal waits to be delivered counts further times instead of sending another (`timer_getoverrun`).

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use super::interval::{Interval, Setting};
use super::timers::{self, TimerId};
use crate::abi::errno::Errno;
use crate::abi::signal::SigInfo;
use crate::process::clock::{self, Clock};
use crate::process::signal::{Pending, send_to_process, send_to_thread};
use crate::process::{Pid, Process, table};
use crate::sync::SpinLock;

/// Most timers of a process.
const MOST: usize = 1024;

/// Who is told when a timer goes off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Nobody.
    Nobody,
    /// The process, by this signal and with this word.
    Process(u8, u64),
    /// A thread.
    Thread(Pid, u8, u64),
}

/// A timer.
#[derive(Debug)]
pub struct PosixTimer {
    number: u32,
    clock: Clock,
    process: Weak<Process>,
    notify: Notify,
    state: SpinLock<(Interval, Option<TimerId>)>,
    /// Times that it went off unnoticed before its last signal was delivered.
    overrun: AtomicU32,
}

/// Makes a timer; its number.
///
/// # Errors
/// EAGAIN: there are too many.
pub fn create(
    process: &Arc<Process>,
    clock: Clock,
    notify: impl FnOnce(u32) -> Notify,
) -> Result<u32, Errno> {
    let mut timers = process.timers.posix.lock();
    if timers.len() >= MOST {
        return Err(Errno::EAGAIN);
    }
    let number = (0..)
        .find(|number| !timers.contains_key(number))
        .ok_or(Errno::EAGAIN)?;
    let timer = PosixTimer {
        number,
        clock,
        process: Arc::downgrade(process),
        notify: notify(number),
        state: SpinLock::new((Interval::default(), None)),
        overrun: AtomicU32::new(0),
    };
    timers.insert(number, Arc::new(timer));
    Ok(number)
}

impl PosixTimer {
    /// The timer with this number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn find(process: &Process, number: u64) -> Result<Arc<Self>, Errno> {
        let timer = process.timers.posix.lock().get(&(number as u32)).cloned();
        timer.ok_or(Errno::EINVAL)
    }

    /// Deletes the timer with this number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn delete(process: &Process, number: u64) -> Result<(), Errno> {
        let timer = process.timers.posix.lock().remove(&(number as u32));
        timer.ok_or(Errno::EINVAL)?.stop();
        Ok(())
    }

    /// How it stands.
    pub fn get(&self) -> Setting {
        let mut setting = self.state.lock().0.setting(clock::now(self.clock));
        if matches!(self.notify, Notify::Nobody) && setting.value <= Duration::from_micros(1) {
            setting.value = Duration::ZERO;
        }
        setting
    }

    /// Sets it, to a time from now on or to one of its clock; how it stood.
    pub fn set(self: &Arc<Self>, setting: Setting, is_absolute: bool) -> Setting {
        let before = self.get();
        self.stop();
        let interval = Interval::set(setting, is_absolute, clock::now(self.clock));
        self.overrun.store(0, Ordering::Relaxed);
        self.state.lock().0 = interval;
        self.arm();
        before
    }

    /// Times that it went off before its last signal was delivered, beside the one that was told.
    pub fn overrun(&self) -> u32 {
        self.overrun.load(Ordering::Relaxed)
    }

    /// One of its signals is delivered.
    pub(in crate::process) fn delivered(process: &Process, info: &SigInfo) {
        if let Ok(timer) = Self::find(process, info.words[0] & u64::from(u32::MAX)) {
            timer
                .overrun
                .store((info.words[0] >> 32) as u32, Ordering::Relaxed);
        }
    }

    fn arm(self: &Arc<Self>) {
        let at = self.state.lock().0.at;
        let Some(at) = at else { return };
        let on_monotonic = clock::now(Clock::Monotonic).saturating_add(clock::until(self.clock, at));
        // Without memory for the task it never goes off; there is nobody to tell.
        let Ok(id) = timers::prepare(on_monotonic) else {
            return;
        };
        let mut state = self.state.lock();
        if state.0.at != Some(at) {
            // Another thread has set or stopped it.
            return;
        }
        // Noted down before it can be due. Another thread may have been faster.
        let other = state.1.replace(id);
        drop(state);
        if let Some(other) = other {
            timers::cancel(other);
        }
        let me: Arc<dyn timers::Timed> = Arc::<Self>::clone(self);
        timers::set(id, me);
    }

    /// It does not go off any more.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.0.at = None;
        if let Some(id) = state.1.take() {
            timers::cancel(id);
        }
    }

    /// Tells whoever is to be told; `missed` times more than once.
    fn tell(&self, process: &Arc<Process>, missed: u64) {
        let (pending_of, signal, word) = match self.notify {
            Notify::Nobody => return,
            Notify::Process(signal, word) => (None, signal, word),
            Notify::Thread(tid, signal, word) => match table::thread(tid) {
                Some(thread) => (Some(thread), signal, word),
                None => return,
            },
        };
        let pending: &Pending = match &pending_of {
            Some(thread) => &thread.signals.pending,
            None => &process.signals.pending,
        };
        if pending.count_timer(signal, self.number, missed + 1) {
            return;
        }
        let info = SigInfo::timer(signal, self.number, missed as u32, word);
        // A full queue loses it, as on Linux.
        let _ = match &pending_of {
            Some(thread) => send_to_thread(thread, info),
            None => send_to_process(process, info),
        };
    }
}

impl timers::Timed for PosixTimer {
    fn due(&self, timer: TimerId) {
        let mut state = self.state.lock();
        if state.1 != Some(timer) {
            return;
        }
        state.1 = None;
        let missed = state.0.advance(clock::now(self.clock));
        drop(state);
        let Some(process) = self.process.upgrade() else {
            return;
        };
        self.tell(&process, missed);
        if let Ok(me) = Self::find(&process, self.number.into())
            && core::ptr::eq(&raw const *me, self)
        {
            me.arm();
        }
    }
}
