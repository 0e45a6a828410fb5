//! All tasks, for diagnosis.

use alloc::sync::Arc;
use core::fmt;

use super::task::{State, Task, TaskId};
use crate::sync::Registry;

static TASKS: Registry<TaskId, Task> = Registry::new();

pub(super) fn enter(task: &Arc<Task>) {
    TASKS.enter(task.id(), task);
}

pub(super) fn leave(id: TaskId) {
    TASKS.leave(id);
}

/// Calls `f` for each task that exists, in the order of their numbers. Takes memory for the list.
pub fn for_each(f: impl FnMut(&Arc<Task>)) {
    TASKS.all().iter().for_each(f);
}

/// [`for_each`] without waiting and without memory, for interrupt handlers and panics; says whether that could be done.
pub fn look_at_each(f: impl FnMut(&Arc<Task>)) -> bool {
    TASKS.look_at_each(f)
}

/// One line about a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskInfo<'a> {
    /// Its number.
    pub id: TaskId,
    /// Its name.
    pub name: &'a str,
    /// What it is doing.
    pub state: State,
    /// What it waits for: in words, and an address or number that says which one.
    pub waits_for: Option<(&'static str, usize)>,
}

impl Task {
    /// What an observer can tell about the task.
    pub fn info(&self) -> TaskInfo<'_> {
        self.info_as(self.state())
    }

    /// [`Self::info`] without waiting for a lock, for interrupt handlers and panics.
    pub fn look(&self) -> TaskInfo<'_> {
        self.info_as(self.seeming_state())
    }

    fn info_as(&self, state: State) -> TaskInfo<'_> {
        let waits_for = if state == State::Parked {
            self.waiting.get()
        } else {
            None
        };
        TaskInfo {
            id: self.id(),
            name: self.name(),
            state,
            waits_for,
        }
    }
}

impl fmt::Display for TaskInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ({}): ", self.id, self.name)?;
        match (self.state, self.waits_for) {
            (State::Runnable, _) => f.write_str("can run"),
            (State::Ended, _) => f.write_str("has ended"),
            (State::Parked, Some((reason, 0))) => write!(f, "waits for {reason}"),
            // Numbers that are no addresses.
            (State::Parked, Some((reason, which @ ..0x1000))) => write!(f, "waits for {reason} {which}"),
            (State::Parked, Some((reason, which))) => write!(f, "waits for {reason} {which:#x}"),
            (State::Parked, None) => f.write_str("waits"),
        }
    }
}
