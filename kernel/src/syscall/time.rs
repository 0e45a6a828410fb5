//! Clocks and sleeps.

use core::time::Duration;

use super::{Call, Error, Restart, Result, user};
use crate::abi::errno::Errno;
use crate::process::clock::{self, Clock, TimeSpec};
use crate::process::{Pid, RestartBlock, TICK, find, table};
use crate::task::{WaitQueue, WaitReason};

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const PROCESS_CPUTIME: u32 = 2;
const THREAD_CPUTIME: u32 = 3;
const MONOTONIC_RAW: u32 = 4;
const REALTIME_COARSE: u32 = 5;
const MONOTONIC_COARSE: u32 = 6;
const BOOTTIME: u32 = 7;
const REALTIME_ALARM: u32 = 8;
const BOOTTIME_ALARM: u32 = 9;
const TAI: u32 = 11;

/// What the clock with this number shows.
fn read(call: &Call<'_>, number: u32) -> core::result::Result<Duration, Errno> {
    Ok(match number {
        REALTIME | REALTIME_COARSE | REALTIME_ALARM | TAI => clock::now(Clock::Realtime),
        MONOTONIC | MONOTONIC_RAW | MONOTONIC_COARSE | BOOTTIME | BOOTTIME_ALARM => {
            clock::now(Clock::Monotonic)
        }
        PROCESS_CPUTIME => Duration::from_nanos(call.thread.process().times().user),
        THREAD_CPUTIME => Duration::from_nanos(call.thread.ticks() * TICK),
        // CPU clocks of others: the complement of their number, and what kind.
        other if (other as i32) < 0 => cpu_clock(other)?,
        _ => return Err(Errno::EINVAL),
    })
}

fn cpu_clock(number: u32) -> core::result::Result<Duration, Errno> {
    const PER_THREAD: u32 = 4;
    let pid = Pid::new(!((number as i32) >> 3) as u32);
    match number & PER_THREAD {
        0 => {
            let process = find(pid).ok_or(Errno::EINVAL)?;
            Ok(Duration::from_nanos(process.times().user))
        }
        _ => {
            let thread = table::thread(pid).ok_or(Errno::EINVAL)?;
            Ok(Duration::from_nanos(thread.ticks() * TICK))
        }
    }
}

/// `clock_gettime`.
pub fn clock_gettime(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = call.args;
    let now = read(call, number as u32)?;
    user::write(at, &TimeSpec::from(now).to_bytes())?;
    Ok(0)
}

/// `clock_getres`.
pub fn clock_getres(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = call.args;
    read(call, number as u32)?;
    let resolution = match number as u32 {
        REALTIME_COARSE | MONOTONIC_COARSE => TICK,
        _ => 1,
    };
    if at != 0 {
        user::write(at, &TimeSpec::from(Duration::from_nanos(resolution)).to_bytes())?;
    }
    Ok(0)
}

/// `gettimeofday`: time, time zone.
pub fn gettimeofday(call: &mut Call<'_>) -> Result {
    let [at, zone, ..] = call.args;
    let now = clock::now(Clock::Realtime);
    if at != 0 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&now.as_secs().to_le_bytes());
        bytes[8..].copy_from_slice(&u64::from(now.subsec_micros()).to_le_bytes());
        user::write(at, &bytes)?;
    }
    if zone != 0 {
        user::write(zone, &[0; 8])?;
    }
    Ok(0)
}

/// `time`.
pub fn time(call: &mut Call<'_>) -> Result {
    let seconds = clock::now(Clock::Realtime).as_secs();
    if call.args[0] != 0 {
        user::write_u64(call.args[0], seconds)?;
    }
    Ok(seconds)
}

/// `nanosleep`: how long, what was left.
pub fn nanosleep(call: &mut Call<'_>) -> Result {
    let [at, left, ..] = call.args;
    let time = TimeSpec::from_bytes(&user::read_array(at)?).duration()?;
    sleep_for(call, Clock::Monotonic, time, left)
}

/// `clock_nanosleep`: clock, flags, time, what was left.
pub fn clock_nanosleep(call: &mut Call<'_>) -> Result {
    /// `TIMER_ABSTIME`.
    const ABSOLUTE: u32 = 1;
    let [number, flags, at, left, ..] = call.args;
    let clock = match number as u32 {
        REALTIME | TAI | REALTIME_ALARM => Clock::Realtime,
        MONOTONIC | BOOTTIME | BOOTTIME_ALARM => Clock::Monotonic,
        THREAD_CPUTIME | PROCESS_CPUTIME | MONOTONIC_RAW | REALTIME_COARSE | MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let time = TimeSpec::from_bytes(&user::read_array(at)?).duration()?;
    if flags as u32 & ABSOLUTE == 0 {
        // Time that passes is the same by either clock.
        return sleep_for(call, Clock::Monotonic, time, left);
    }
    match sleep_until(call, clock, time) {
        true => Ok(0),
        false => Err(Restart::UnlessHandled.into()),
    }
}

fn sleep_for(call: &mut Call<'_>, clock: Clock, time: Duration, left: u64) -> Result {
    let end = clock::now(clock).saturating_add(time);
    sleep_on(call, end, left)
}

/// Sleeps until the monotonic clock shows `end`; goes on so after a signal without handler.
fn sleep_on(call: &mut Call<'_>, end: Duration, left: u64) -> Result {
    if sleep_until(call, Clock::Monotonic, end) {
        return Ok(0);
    }
    if left != 0 {
        let time = clock::until(Clock::Monotonic, end);
        user::write(left, &TimeSpec::from(time).to_bytes())?;
    }
    call.thread.set_restart(RestartBlock {
        call: |call| {
            let [seconds, nanos, left, ..] = call.args;
            sleep_on(call, Duration::new(seconds, nanos as u32), left)
        },
        args: [end.as_secs(), end.subsec_nanos().into(), left, 0, 0, 0],
    });
    Err(Restart::Block.into())
}

/// Sleeps until a clock shows `time`; false when a signal came first.
fn sleep_until(call: &Call<'_>, clock: Clock, time: Duration) -> bool {
    static TIME: WaitReason = WaitReason("time to pass");
    let queue = WaitQueue::new(&TIME);
    let thread = call.thread;
    let timeout = clock::until(clock, time);
    let woken = queue.wait_timeout(timeout, || thread.signal_is_pending().then_some(()));
    woken.is_none() || clock::until(clock, time).is_zero()
}

/// `restart_syscall`.
pub fn restart_syscall(call: &mut Call<'_>) -> Result {
    let block = call.thread.take_restart().ok_or(Error::Errno(Errno::EINTR))?;
    call.args = block.args;
    (block.call)(call)
}
