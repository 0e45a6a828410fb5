//! Timers of programs.

use core::time::Duration;

use super::{Call, Result, user};
use crate::abi::errno::Errno;
use crate::abi::signal::{SIGALRM, SIGNALS};
use crate::process::clock::{Clock, TimeSpec};
use crate::process::timer::{Kind, Notify, PosixTimer, Setting, create};
use crate::process::{Pid, table};

/// `struct timeval`, from memory.
fn time_of(bytes: &[u8]) -> core::result::Result<Duration, Errno> {
    let word = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let seconds = u64::try_from(word(0)).map_err(|_| Errno::EINVAL)?;
    match u32::try_from(word(8)) {
        Ok(micros) if micros < 1_000_000 => Ok(Duration::new(seconds, micros * 1000)),
        _ => Err(Errno::EINVAL),
    }
}

fn write_setting(at: u64, setting: Setting) -> core::result::Result<(), super::Error> {
    for (at, time) in [(at, setting.interval), (at + 16, setting.value)] {
        user::write_u64(at, time.as_secs())?;
        user::write_u64(at + 8, time.subsec_micros().into())?;
    }
    Ok(())
}

/// `setitimer`: which, new, old.
pub fn setitimer(call: &mut Call<'_>) -> Result {
    let [kind, new, old, ..] = *call.args;
    let setting = match new {
        0 => Setting::default(),
        at => {
            let bytes: [u8; 32] = user::read_array(at)?;
            Setting {
                interval: time_of(&bytes[..16])?,
                value: time_of(&bytes[16..])?,
            }
        }
    };
    let kind = Kind::from_number(kind)?;
    let process = call.thread.process();
    let before = process.timers.intervals.set(process, kind, setting);
    if old != 0 {
        write_setting(old, before)?;
    }
    Ok(0)
}

/// `getitimer`: which, where.
pub fn getitimer(call: &mut Call<'_>) -> Result {
    let [kind, at, ..] = *call.args;
    let kind = Kind::from_number(kind)?;
    let process = call.thread.process();
    write_setting(at, process.timers.intervals.get(process, kind))?;
    Ok(0)
}

/// `alarm`: gives the seconds that were left, rounded as on Linux.
pub fn alarm(call: &mut Call<'_>) -> Result {
    let setting = Setting {
        value: Duration::from_secs(u64::from(call.args[0] as u32)),
        interval: Duration::ZERO,
    };
    let process = call.thread.process();
    let left = process.timers.intervals.set(process, Kind::Real, setting).value;
    let rounds_up = left.subsec_micros() >= 500_000 || (left.as_secs() == 0 && !left.is_zero());
    Ok(left.as_secs() + u64::from(rounds_up))
}

/// `timer_create`: clock, how to tell, where the number goes.
pub fn timer_create(call: &mut Call<'_>) -> Result {
    const SIGNAL: u32 = 0;
    const NONE: u32 = 1;
    const THREAD: u32 = 2;
    const THREAD_ID: u32 = 4;
    let [clock, event, at, ..] = *call.args;
    let clock = match clock as u32 {
        0 | 8 | 11 => Clock::Realtime,
        1 | 7 | 9 => Clock::Monotonic,
        // CPU time.
        2 | 3 => return Err(Errno::EOPNOTSUPP.into()),
        _ => return Err(Errno::EINVAL.into()),
    };
    let process = call.thread.process();
    let number = match event {
        0 => create(process, clock, |number| Notify::Process(SIGALRM, number.into()))?,
        event => {
            let word = user::read_u64(event)?;
            let signal = user::read_u32(event + 8)?;
            let kind = user::read_u32(event + 12)?;
            let valid = || {
                let signal = u8::try_from(signal).ok();
                signal
                    .filter(|signal| (1..=SIGNALS).contains(signal))
                    .ok_or(Errno::EINVAL)
            };
            let notify = match kind {
                NONE => Notify::Nobody,
                SIGNAL | THREAD => Notify::Process(valid()?, word),
                THREAD_ID => {
                    let tid = Pid::new(user::read_u32(event + 16)?);
                    let thread = table::thread(tid).ok_or(Errno::EINVAL)?;
                    if thread.process().pid() != process.pid() {
                        return Err(Errno::EINVAL.into());
                    }
                    Notify::Thread(tid, valid()?, word)
                }
                _ => return Err(Errno::EINVAL.into()),
            };
            create(process, clock, |_| notify)?
        }
    };
    if let Err(error) = user::write_u32(at, number) {
        PosixTimer::delete(process, number.into())?;
        return Err(error);
    }
    Ok(0)
}

fn write_times(at: u64, setting: Setting) -> core::result::Result<(), super::Error> {
    user::write(at, &TimeSpec::from(setting.interval).to_bytes())?;
    user::write(at + 16, &TimeSpec::from(setting.value).to_bytes())
}

/// `timer_settime`: timer, flags, new, old.
pub fn timer_settime(call: &mut Call<'_>) -> Result {
    /// `TIMER_ABSTIME`.
    const ABSOLUTE: u32 = 1;
    let [number, flags, new, old, ..] = *call.args;
    if new == 0 {
        return Err(Errno::EINVAL.into());
    }
    let setting = Setting {
        interval: TimeSpec::from_bytes(&user::read_array(new)?).duration()?,
        value: TimeSpec::from_bytes(&user::read_array(new + 16)?).duration()?,
    };
    let timer = PosixTimer::find(call.thread.process(), number)?;
    let before = timer.set(setting, flags as u32 & ABSOLUTE != 0);
    if old != 0 {
        write_times(old, before)?;
    }
    Ok(0)
}

/// `timer_gettime`.
pub fn timer_gettime(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = *call.args;
    let timer = PosixTimer::find(call.thread.process(), number)?;
    write_times(at, timer.get())?;
    Ok(0)
}

/// `timer_getoverrun`.
pub fn timer_getoverrun(call: &mut Call<'_>) -> Result {
    let timer = PosixTimer::find(call.thread.process(), call.args[0])?;
    Ok(timer.overrun().into())
}

/// `timer_delete`.
pub fn timer_delete(call: &mut Call<'_>) -> Result {
    PosixTimer::delete(call.thread.process(), call.args[0])?;
    Ok(0)
}
