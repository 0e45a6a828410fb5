//! What files have to do with signals.

use crate::abi::errno::Errno;
use crate::abi::signal::{SI_USER, SIGPIPE, SigInfo};
use crate::process::signal::{SignalSet, send_to_thread};
use crate::syscall::Error;
use crate::task;

/// Whether a signal waits for the current task, so that its waits end.
pub fn is_pending() -> bool {
    let task = task::current();
    match task.thread() {
        Some(thread) => thread.signal_is_pending(),
        None => task.is_killed(),
    }
}

/// The current thread writes where nobody reads: it gets a SIGPIPE.
pub fn broken_pipe() {
    let task = task::current();
    let Some(thread) = task.thread() else { return };
    let (pid, uid) = (thread.process().pid(), thread.credentials().user.real);
    let info = SigInfo::sent(SIGPIPE, SI_USER, pid.as_u32(), uid);
    // There is always room for it.
    let _ = send_to_thread(thread, info);
}

/// Runs a wait of the current thread during which the signals of `mask` are blocked and no others, if there is one. A signal
/// that ends it is delivered with that mask in place.
///
/// # Errors
/// What `wait` says.
pub fn with_mask(mask: Option<u64>, wait: impl FnOnce() -> Result<u64, Error>) -> Result<u64, Error> {
    let task = task::current();
    let (Some(thread), Some(mask)) = (task.thread(), mask) else {
        return wait();
    };
    thread.block_for_wait(SignalSet::from_bits(mask));
    let outcome = wait();
    if !matches!(outcome, Err(Error::Restart(_) | Error::Errno(Errno::EINTR))) {
        thread.unblock_after_wait();
    }
    outcome
}
