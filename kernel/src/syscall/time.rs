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

/// `struct timex`: bytes, and where its fields are.
mod timex {
    pub const SIZE: usize = 208;
    pub const MODES: usize = 0;
    pub const MAXIMUM_ERROR: usize = 24;
    pub const ESTIMATED_ERROR: usize = 32;
    pub const STATUS: usize = 40;
    pub const CONSTANT: usize = 48;
    pub const PRECISION: usize = 56;
    pub const TOLERANCE: usize = 64;
    pub const SECONDS: usize = 72;
    pub const MICROSECONDS: usize = 80;
    pub const TICK: usize = 88;
    /// What is behind it is reserved, and stays as it is.
    pub const END: usize = 172;
}

/// `adjtimex`: what is known of the clock's discipline. Nobody disciplines it.
pub fn adjtimex(call: &mut Call<'_>) -> Result {
    tell_discipline(call.args[0])
}

/// `clock_adjtime`: of the wall clock alone.
pub fn clock_adjtime(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = *call.args;
    user::read_array::<{ timex::SIZE }>(at)?;
    match number as u32 {
        REALTIME => tell_discipline(at),
        other => Err(read(call, other)
            .map_or_else(|error| error, |_| Errno::EOPNOTSUPP)
            .into()),
    }
}

/// Fills in a `struct timex` that asks for nothing to be set.
///
/// # Errors
/// EPERM: it does. The clock is the machine's, and programs have no right to it, as in a container.
fn tell_discipline(at: u64) -> Result {
    const OFFSET_SS_READ: u32 = 0xa001;
    /// `STA_UNSYNC`.
    const NOT_SYNCHRONISED: u32 = 0x40;
    /// `TIME_ERROR`.
    const ERROR: u64 = 5;
    /// What Linux says of a clock that nobody has synchronised yet, in microseconds.
    const UNKNOWN: i64 = 16_000_000;
    let mut bytes: [u8; timex::SIZE] = user::read_array(at)?;
    let modes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    if modes != 0 && modes != OFFSET_SS_READ {
        return Err(Errno::EPERM.into());
    }
    bytes[timex::MODES + 8..timex::END].fill(0);
    let mut put = |at: usize, value: i64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(timex::MAXIMUM_ERROR, UNKNOWN);
    put(timex::ESTIMATED_ERROR, UNKNOWN);
    put(timex::STATUS, NOT_SYNCHRONISED.into());
    put(timex::CONSTANT, 2);
    put(timex::PRECISION, 1);
    // 500 parts in a million, with 16 bits behind the point.
    put(timex::TOLERANCE, 500 << 16);
    let now = clock::now(Clock::Realtime);
    put(timex::SECONDS, now.as_secs() as i64);
    put(timex::MICROSECONDS, now.subsec_micros().into());
    put(timex::TICK, 10_000);
    user::write(at, &bytes)?;
    Ok(ERROR)
}

/// `clock_gettime`.
pub fn clock_gettime(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = *call.args;
    let now = read(call, number as u32)?;
    user::write(at, &TimeSpec::from(now).to_bytes())?;
    Ok(0)
}

/// `clock_getres`.
pub fn clock_getres(call: &mut Call<'_>) -> Result {
    let [number, at, ..] = *call.args;
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
    let [at, zone, ..] = *call.args;
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
    let [at, left, ..] = *call.args;
    let time = TimeSpec::from_bytes(&user::read_array(at)?).duration()?;
    sleep_for(call, Clock::Monotonic, time, left)
}

/// `clock_nanosleep`: clock, flags, time, what was left.
pub fn clock_nanosleep(call: &mut Call<'_>) -> Result {
    /// `TIMER_ABSTIME`.
    const ABSOLUTE: u32 = 1;
    let [number, flags, at, left, ..] = *call.args;
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
            let [seconds, nanos, left, ..] = *call.args;
            sleep_on(call, Duration::new(seconds, nanos as u32), left)
        },
        args: [end.as_secs(), end.subsec_nanos().into(), left, 0, 0, 0],
    });
    Err(Restart::Block.into())
}

/// Sleeps until a clock shows `time`; false when a signal came first.
fn sleep_until(call: &Call<'_>, clock: Clock, time: Duration) -> bool {
    static TIME: WaitReason = WaitReason::new("time to pass");
    let queue = WaitQueue::new(&TIME);
    let thread = call.thread;
    let timeout = clock::until(clock, time);
    let woken = queue.wait_timeout(timeout, || thread.signal_is_pending().then_some(()));
    woken.is_none() || clock::until(clock, time).is_zero()
}

/// `restart_syscall`.
pub fn restart_syscall(call: &mut Call<'_>) -> Result {
    let block = call.thread.take_restart().ok_or(Error::Errno(Errno::EINTR))?;
    (block.call)(&mut Call {
        thread: call.thread,
        files: call.files,
        args: &block.args,
    })
}
