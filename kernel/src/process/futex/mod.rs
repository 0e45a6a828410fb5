//! Futexes: waiting for a word in memory to change.
//!
//! ```text
//!   wait:  in line ── look at the word ── as expected? sleep : out of line
//!   wake:  (the word was changed before) ── take waiters out of line, wake them
//! ```
//!
//! A waiter gets in line before it looks, so a change between the look and the sleep finds it in line. The look may fault, and
//! wait for a monitor; no lock is held. Whoever is woken and then finds that it was not to wait passes the wake-up on.
//!
//! | file | what |
//! | --- | --- |
//! | `key` | which word is meant |
//! | `queue` | who waits for which word |
//! | `operation` | what `FUTEX_WAKE_OP` does to the word |
//!
//! The word faults as on Linux 6.18: a wait on a private word as for a load, on a shared one as for a store; waking touches
//! shared words alone. The word that `FUTEX_WAKE_OP` changes is not waited for.

use alloc::sync::Arc;
use core::time::Duration;

use super::{Thread, clock};
use crate::abi::errno::Errno;
use crate::arch::{Machine, TaskMemory};
use crate::mm::addr::VirtAddr;
use crate::mm::space::Space;
use crate::mm::uaccess::{on_behalf, without_waiting};
use crate::syscall::{Error, Restart};

mod key;
mod operation;
mod queue;

pub use key::Scope;
pub use operation::WakeOp;

use key::Word;
pub use queue::FutexSlot;
use queue::Waiter;

/// The bits of everybody (`FUTEX_BITSET_MATCH_ANY`).
pub const ANYBODY: u32 = u32::MAX;

/// Until when to wait.
pub type Deadline = Option<(clock::Clock, Duration)>;

/// The word at `addr`; `None`: it cannot be read.
#[inline]
pub(super) fn load(addr: VirtAddr) -> Option<u32> {
    on_behalf(|| Machine::load_u32(addr))
}

/// Stores `new` to the word at `addr` if it is `old`; says whether it was. `None`: it cannot be written.
pub(super) fn exchange_if(addr: VirtAddr, old: u32, new: u32) -> Option<bool> {
    Some(on_behalf(|| Machine::compare_exchange_u32(addr, old, new))? == old)
}

/// Changes the word at `addr`; what it was before. `None`: it cannot be written, or only once a monitor has resolved a fault.
fn change(addr: VirtAddr, to: impl Fn(u32) -> u32) -> Option<u32> {
    without_waiting(|| {
        loop {
            let before = Machine::load_u32(addr)?;
            if Machine::compare_exchange_u32(addr, before, to(before))? == before {
                return Some(before);
            }
        }
    })
}

/// Waits while the word at `addr` of `space`, the current task's, is `expected`, until somebody wakes one of `bits`. May sleep for the word itself.
///
/// # Errors
/// EAGAIN: the word is not `expected`. ETIMEDOUT. EFAULT, EINVAL: it is no word. A signal: [`Restart::IfAsked`] without a
/// deadline, else [`Restart::Block`].
#[inline(always)]
pub fn wait(
    thread: &Arc<Thread>,
    space: &Arc<Space>,
    addr: VirtAddr,
    scope: Scope,
    expected: u32,
    deadline: Deadline,
    bits: u32,
) -> Result<(), Error> {
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let word = Word::of(space, addr, scope)?;
    let waiter = Waiter::enter(&word, bits);
    let found = load(addr);
    if found != Some(expected) {
        if waiter.leave() {
            // It was woken by somebody who may have meant another.
            waiter.pass_on();
        }
        return Err(found.map_or(Errno::EFAULT, |_| Errno::EAGAIN).into());
    }
    let timeout = deadline.map(|(clock, time)| clock::until(clock, time));
    waiter.sleep(timeout, || thread.signal_is_pending());
    if waiter.leave() {
        return Ok(());
    }
    match deadline {
        Some((clock, time)) if clock::until(clock, time).is_zero() => Err(Errno::ETIMEDOUT.into()),
        Some(_) => Err(Restart::Block.into()),
        None => Err(Restart::IfAsked.into()),
    }
}

/// Wakes up to `count` of those who wait for the word at `addr` with one of `bits`; says how many.
///
/// # Errors
/// EINVAL: no bits, or no aligned address. EFAULT: there is no such word.
#[inline(always)]
pub fn wake(
    space: &Arc<Space>,
    addr: VirtAddr,
    scope: Scope,
    count: usize,
    bits: u32,
) -> Result<usize, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let word = Word::of(space, addr, scope)?;
    Ok(queue::wake(&word.key, count, bits))
}

/// [`wake`] of a word that may be shared.
///
/// # Errors
/// As there.
#[inline(never)]
pub fn wake_shared(space: &Arc<Space>, addr: VirtAddr, count: usize, bits: u32) -> Result<usize, Errno> {
    wake(space, addr, Scope::Shared, count, bits)
}

/// Wakes up to `count` who wait for the word at `addr` of `space` as one that may be shared (as Linux does for the words that
/// it writes itself).
pub(super) fn wake_in(space: &Arc<Space>, addr: VirtAddr, count: usize) {
    // A word that is none has no waiters.
    let _ = wake_shared(space, addr, count, ANYBODY);
}

/// What to do with those who wait for a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requeue {
    /// So many are woken.
    pub wake: usize,
    /// So many of the others wait for the other word from now on.
    pub requeue: usize,
    /// Only if the word is this.
    pub expected: Option<u32>,
}

/// Has those who wait for the word at `from` wait for the one at `to`, but for some who are woken; says how many were either.
///
/// # Errors
/// EAGAIN: the word is not as expected. Otherwise as for [`wake`].
pub fn requeue(
    space: &Arc<Space>,
    from: VirtAddr,
    to: VirtAddr,
    scope: Scope,
    how: Requeue,
) -> Result<usize, Errno> {
    let from_word = Word::of(space, from, scope)?;
    let to_word = Word::of(space, to, scope)?;
    if let Some(expected) = how.expected
        && load(from).ok_or(Errno::EFAULT)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    Ok(queue::requeue(
        &from_word.key,
        &to_word,
        space,
        how.wake,
        how.requeue,
    ))
}

/// Changes the word at `second`, wakes up to `count` who wait for the word at `first`, and up to `more` of those who wait for
/// the other if that was as `op` says; says how many.
///
/// # Errors
/// EFAULT: the word cannot be changed, or not without a monitor. Otherwise as for [`wake`].
pub fn wake_op(
    space: &Arc<Space>,
    first: VirtAddr,
    second: VirtAddr,
    scope: Scope,
    (count, more): (usize, usize),
    op: WakeOp,
) -> Result<usize, Errno> {
    let first = Word::of(space, first, scope)?;
    let second_word = Word::of(space, second, scope)?;
    let before = change(second, |word| op.apply(word)).ok_or(Errno::EFAULT)?;
    let mut woken = queue::wake(&first.key, count, ANYBODY);
    if op.holds(before) {
        woken += queue::wake(&second_word.key, more, ANYBODY);
    }
    Ok(woken)
}
