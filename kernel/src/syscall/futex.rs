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

/// `futex`: word, operation, value, timeout or second count, second word, third value.
pub fn futex(call: &mut Call<'_>) -> Result {
    let [at, operation, value, timeout, second, third] = *call.args;
    let operation = operation as u32;
    let scope = match operation & PRIVATE {
        0 => Scope::Shared,
        _ => Scope::Private,
    };
    let on_realtime = operation & CLOCK_REALTIME != 0;
    let (word, second) = (VirtAddr::new(at), VirtAddr::new(second));
    let task = task::current();
    let space = task.space().ok_or(Errno::EFAULT)?;
    let count = |woken: usize| Ok(woken as u64);
    match operation & !(PRIVATE | CLOCK_REALTIME) {
        command @ (WAIT | WAIT_BITSET) if command == WAIT_BITSET || !on_realtime => {
            let clock = if on_realtime {
                Clock::Realtime
            } else {
                Clock::Monotonic
            };
            let time = match timeout {
                0 => None,
                timeout => Some(TimeSpec::from_bytes(&user::read_array(timeout)?).duration()?),
            };
            let (bits, deadline) = match command {
                WAIT => (
                    ANYBODY,
                    time.map(|time| (clock, clock::now(clock).saturating_add(time))),
                ),
                _ => (third as u32, time.map(|time| (clock, time))),
            };
            wait(call, word, scope, value as u32, deadline, bits)
        }
        _ if on_realtime => Err(Errno::ENOSYS.into()),
        WAKE => count(futex::wake(space, word, scope, at_least_one(value), ANYBODY)?),
        WAKE_BITSET => count(futex::wake(
            space,
            word,
            scope,
            at_least_one(value),
            third as u32,
        )?),
        command @ (REQUEUE | CMP_REQUEUE) => {
            // The fourth argument is a count here.
            let (wake, requeue) = (value as i32, timeout as i32);
            if wake < 0 || requeue < 0 {
                return Err(Errno::EINVAL.into());
            }
            let how = Requeue {
                wake: wake as usize,
                requeue: requeue as usize,
                expected: (command == CMP_REQUEUE).then_some(third as u32),
            };
            count(futex::requeue(space, word, second, scope, how)?)
        }
        WAKE_OP => {
            let op = WakeOp::decode(third as u32)?;
            let counts = (at_least_one(value), at_least_one(timeout));
            count(futex::wake_op(space, word, second, scope, counts, op)?)
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn wait(
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
    wait(call, VirtAddr::new(word), scope, value, deadline, bits)
}
