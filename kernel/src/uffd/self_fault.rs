//! Whether a fault would wait for the very task that faults.
//!
//! The attached monitor serves alone: a fault of its own is refused in any case. Any other task may read too, and then may
//! well be served by a second reader, as on Linux; its fault is refused when nobody is left for that: it holds a fault that
//! it has read and not resolved, no other task sleeps in read, and every other that holds one, or is attached, waits for a
//! page of the context itself.

use super::queue::{Queue, State};
use crate::task::{Task, TaskId};

impl Queue {
    /// Whether a fault of `task`, which has read messages before, could be resolved by nobody but itself.
    #[cold]
    #[inline(never)]
    pub(super) fn is_served_by_itself(&self, task: &Task) -> bool {
        let me = task.id();
        let holds = self.read.iter().any(|waiter| waiter.fault.reader() == Some(me));
        if !holds || self.readers.any_sleeps() {
            return false;
        }
        let attached = match (self.state, &self.monitor) {
            (State::Open, Some(monitor)) => Some(monitor.id),
            _ => None,
        };
        let holders = self.read.iter().filter_map(|waiter| waiter.fault.reader());
        !holders
            .chain(attached)
            .any(|server| server != me && !self.waits(server))
    }

    /// Whether the task waits for a page of this context.
    fn waits(&self, task: TaskId) -> bool {
        self.read
            .iter()
            .chain(self.pending.iter())
            .any(|waiter| waiter.id() == task)
    }
}
