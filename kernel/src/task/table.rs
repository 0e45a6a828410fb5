//! All tasks, for diagnosis.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use super::task::{State, Task, TaskId};
use crate::sync::SpinLock;

static TASKS: SpinLock<BTreeMap<TaskId, Weak<Task>>> = SpinLock::new(BTreeMap::new());

pub(super) fn enter(task: &Arc<Task>) {
    TASKS.lock().insert(task.id(), Arc::downgrade(task));
}

pub(super) fn leave(id: TaskId) {
    // The entry is dropped after the lock: it may be the last that holds the task's memory.
    let entry = TASKS.lock().remove(&id);
    drop(entry);
}

/// Calls `f` for each task that exists, in the order of their numbers. Takes memory for the list.
pub fn for_each(mut f: impl FnMut(&Arc<Task>)) {
    // Tasks may end meanwhile, and the last reference to one may be the one taken here: it must not go under the lock.
    let tasks: Vec<Arc<Task>> = TASKS.lock().values().filter_map(Weak::upgrade).collect();
    tasks.iter().for_each(&mut f);
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
        let state = self.state();
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
