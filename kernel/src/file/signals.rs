//! What files have to do with signals.

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
pub fn broken_pipe() {}
