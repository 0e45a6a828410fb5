//! What files have to do with signals.

use crate::abi::signal::{SI_USER, SIGPIPE, SigInfo};
use crate::process::signal::send_to_thread;
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
