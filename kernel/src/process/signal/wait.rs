//! Waiting for signals: `rt_sigtimedwait`, `rt_sigsuspend`, `pause`.

use alloc::sync::Arc;
use core::time::Duration;

use super::SignalSet;
use crate::abi::errno::Errno;
use crate::abi::signal::{SI_TIMER, SigInfo};
use crate::process::Thread;
use crate::process::timer::PosixTimer;
use crate::syscall::{Error, Restart};
use crate::task::{WaitQueue, WaitReason};

static SIGNAL: WaitReason = WaitReason::new("a signal");

/// Takes the next signal of `thread`, the current one, that is in `wanted`.
#[inline]
pub fn take(thread: &Thread, wanted: SignalSet) -> Option<SigInfo> {
    let own = thread.signals.pending.take(wanted);
    let process = thread.process();
    let info = own.or_else(|| process.signals.pending.take(wanted))?;
    if info.code == SI_TIMER {
        PosixTimer::delivered(process, &info);
    }
    Some(info)
}

/// Waits until a signal of `wanted` is there, and takes it. They are blocked as a rule; while the thread waits they are not,
/// so that whoever sends one finds it.
///
/// # Errors
/// EAGAIN: `timeout` has passed. EINTR: another signal came.
pub fn wait_for(
    thread: &Arc<Thread>,
    wanted: SignalSet,
    timeout: Option<Duration>,
) -> Result<SigInfo, Error> {
    let wanted = wanted - SignalSet::UNSTOPPABLE;
    if let Some(info) = take(thread, wanted) {
        return Ok(info);
    }
    if timeout == Some(Duration::ZERO) {
        return Err(Errno::EAGAIN.into());
    }
    let blocked = thread.signals.blocked();
    thread.set_waits_for_signals(true);
    thread.block(blocked - wanted);
    let queue = WaitQueue::new(&SIGNAL);
    let look = || thread.signal_is_pending().then_some(());
    match timeout {
        Some(timeout) => queue.wait_timeout(timeout, look),
        None => {
            queue.wait_until(look);
            None
        }
    };
    thread.block(blocked);
    thread.set_waits_for_signals(false);
    match take(thread, wanted) {
        Some(info) => Ok(info),
        None if thread.signal_is_pending() => Err(Errno::EINTR.into()),
        None => Err(Errno::EAGAIN.into()),
    }
}

/// Waits for a signal that is delivered.
///
/// # Errors
/// Always: [`Restart::UnlessHandled`].
pub fn suspend(thread: &Arc<Thread>) -> Error {
    let queue = WaitQueue::new(&SIGNAL);
    queue.wait_until(|| thread.signal_is_pending().then_some(()));
    Restart::UnlessHandled.into()
}
