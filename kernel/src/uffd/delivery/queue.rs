//! Linux's way: a message is queued, the faulting task sleeps, the monitor reads.
//!
//! With a *direct switch*: when the monitor already waits in read, waking it and going to sleep amount to one switch of
//! stacks, past the run queue; and so does the monitor's next read, back to the task it has just woken.

use alloc::sync::Arc;

use crate::task::{self, Task, WaitReason};

/// What a faulting task waits for.
static SERVED: WaitReason = WaitReason("a page from its monitor");

/// Wakes `reader`, if one waits, and sleeps until somebody wakes `task`, the current one. No lock is held.
#[inline]
pub fn hand_over(task: &Arc<Task>, reader: Option<Arc<Task>>) {
    if let Some(reader) = reader {
        reader.unpark();
    }
    while task.fault.is_waiting() {
        task::park_on(&SERVED, task.fault.addr().as_u64() as usize);
    }
}
