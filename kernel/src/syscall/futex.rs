//! `futex`.

use core::time::Duration;

use super::{Call, Error, Restart, Result, user};
use crate::abi::errno::Errno;
use crate::mm::addr::VirtAddr;
use crate::process::RestartBlock;
use crate::process::clock::{self, Clock, TimeSpec};
use crate::process::futex::{self, ANYBODY, Requeue, Scope, WakeOp};
use crate::task;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
/// Flags of the operation.
const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// So many, as the arguments count: at least one is woken.
fn at_least_one(count: u64) -> usize {
    (count as i32).max(1) as usize
}

/// The command of an operation.
const fn command(operation: u32) -> u32 {
    operation & !(PRIVATE | CLOCK_REALTIME)
}

const fn scope(operation: u32) -> Scope {
    match operation & PRIVATE {
        0 => Scope::Shared,
        _ => Scope::Private,
    }
}

/// `futex`: word, operation, value, timeout or second count, second word, third value.
pub fn futex(call: &mut Call<'_>) -> Result {
    let operation = call.args[1] as u32;
    let on_realtime = operation & CLOCK_REALTIME != 0;
    match command(operation) {
        WAIT_BITSET => wait(call),
        WAIT if !on_realtime => wait(call),
        _ if on_realtime => Err(Errno::ENOSYS.into()),
        WAKE | WAKE_BITSET => wake(call),
        REQUEUE | CMP_REQUEUE => requeue(call),
        WAKE_OP => wake_op(call),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// The bits of those that are meant: the third value, if the command is `with_bits`.
fn bits(call: &Call<'_>, with_bits: u32) -> u32 {
    match command(call.args[1] as u32) == with_bits {
        true => call.args[5] as u32,
        false => ANYBODY,
    }
}

/// `FUTEX_WAIT`, `FUTEX_WAIT_BITSET`. What most waits are, for a word of the process and for as long as it takes, is compiled on
/// its own.
#[inline(never)]
fn wait(call: &mut Call<'_>) -> Result {
    let [at, operation, value, timeout, ..] = *call.args;
    let bits = bits(call, WAIT_BITSET);
    if scope(operation as u32) == Scope::Private && timeout == 0 {
        return wait_for(call, VirtAddr::new(at), Scope::Private, value as u32, None, bits);
    }
    wait_until(call, bits)
}

#[inline(never)]
fn wait_until(call: &mut Call<'_>, bits: u32) -> Result {
    let [at, operation, value, timeout, ..] = *call.args;
    let operation = operation as u32;
    let clock = match operation & CLOCK_REALTIME {
        0 => Clock::Monotonic,
        _ => Clock::Realtime,
    };
    let time = match timeout {
        0 => None,
        timeout => Some(TimeSpec::from_bytes(&user::read_array(timeout)?).duration()?),
    };
    let deadline = time.map(|time| match command(operation) {
        WAIT => (clock, clock::now(clock).saturating_add(time)),
        _ => (clock, time),
    });
    wait_for(
        call,
        VirtAddr::new(at),
        scope(operation),
        value as u32,
        deadline,
        bits,
    )
}

/// `FUTEX_WAKE`, `FUTEX_WAKE_BITSET`.
#[inline(never)]
fn wake(call: &mut Call<'_>) -> Result {
    let [at, operation, value, ..] = *call.args;
    let (word, count) = (VirtAddr::new(at), at_least_one(value));
    let bits = bits(call, WAKE_BITSET);
    let task = task::current();
    let space = task.space().ok_or(Errno::EFAULT)?;
    let woken = match scope(operation as u32) {
        Scope::Private => futex::wake(space, word, Scope::Private, count, bits),
        Scope::Shared => futex::wake_shared(space, word, count, bits),
    };
    Ok(woken? as u64)
}

/// `FUTEX_REQUEUE`, `FUTEX_CMP_REQUEUE`: the fourth argument is a count.
fn requeue(call: &mut Call<'_>) -> Result {
    let [at, operation, wake, requeue, second, third] = *call.args;
    let operation = operation as u32;
    let (wake, requeue) = (wake as i32, requeue as i32);
    if wake < 0 || requeue < 0 {
        return Err(Errno::EINVAL.into());
    }
    let how = Requeue {
        wake: wake as usize,
        requeue: requeue as usize,
        expected: (command(operation) == CMP_REQUEUE).then_some(third as u32),
    };
    let task = task::current();
    let space = task.space().ok_or(Errno::EFAULT)?;
    let (word, second) = (VirtAddr::new(at), VirtAddr::new(second));
    Ok(futex::requeue(space, word, second, scope(operation), how)? as u64)
}

/// `FUTEX_WAKE_OP`: the fourth argument is a count.
fn wake_op(call: &mut Call<'_>) -> Result {
    let [at, operation, wake, more, second, third] = *call.args;
    let op = WakeOp::decode(third as u32)?;
    let counts = (at_least_one(wake), at_least_one(more));
    let task = task::current();
    let space = task.space().ok_or(Errno::EFAULT)?;
    let (word, second) = (VirtAddr::new(at), VirtAddr::new(second));
    Ok(futex::wake_op(space, word, second, scope(operation as u32), counts, op)? as u64)
}

#[inline(always)]
fn wait_for(
    call: &mut Call<'_>,
    word: VirtAddr,
    scope: Scope,
    value: u32,
    deadline: futex::Deadline,
    bits: u32,
) -> Result {
    let task = task::current();
    let space = task.space().ok_or(Errno::EFAULT)?;
    let waited = futex::wait(call.thread, space, word, scope, value, deadline, bits);
    if let (Err(Error::Restart(Restart::Block)), Some((clock, time))) = (waited, deadline) {
        let flags = u64::from(scope == Scope::Private) | u64::from(clock == Clock::Realtime) << 1;
        call.thread.set_restart(RestartBlock {
            call: wait_on,
            args: [
                word.as_u64(),
                flags,
                u64::from(value) | u64::from(bits) << 32,
                time.as_secs(),
                time.subsec_nanos().into(),
                0,
            ],
        });
    }
    waited.map(|()| 0)
}

/// A wait with a deadline goes on.
fn wait_on(call: &mut Call<'_>) -> Result {
    let [word, flags, value_and_bits, seconds, nanos, _] = *call.args;
    let scope = if flags & 1 != 0 {
        Scope::Private
    } else {
        Scope::Shared
    };
    let clock = if flags & 2 != 0 {
        Clock::Realtime
    } else {
        Clock::Monotonic
    };
    let deadline = Some((clock, Duration::new(seconds, nanos as u32)));
    let (value, bits) = (value_and_bits as u32, (value_and_bits >> 32) as u32);
    wait_for(call, VirtAddr::new(word), scope, value, deadline, bits)
}
