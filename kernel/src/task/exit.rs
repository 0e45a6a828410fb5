//! The end of a task.
//!
//! A task ends by returning from its closure or by [`exit`]. First its hooks run, on the task itself, so they may wait
//! and take locks. Then it leaves its CPU for good; another task gives its stack back, and only after that does
//! [`Task::join`] return.

use alloc::boxed::Box;
use alloc::collections::LinkedList;
use alloc::format;
use alloc::string::String;
use core::fmt;

use super::wait::WaitReason;
use super::{Completion, Task, TaskId, current, engine};
use crate::sync::SpinLock;

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did what it was to do.
    Done,
    /// It did not; one sentence says why.
    Failed(String),
}

/// What the closure of a task may return.
pub trait Ending {
    /// As an outcome.
    fn outcome(self) -> Outcome;
}

impl Ending for () {
    fn outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl Ending for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

impl<E: fmt::Display> Ending for Result<(), E> {
    fn outcome(self) -> Outcome {
        match self {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(format!("{error}")),
        }
    }
}

/// Called once, on the task that ends.
pub(crate) type Hook = Box<dyn FnOnce(&Task, &Outcome) + Send>;

/// Hooks, with the number under which they can be taken back if they have one. A list: linking one in or out takes no
/// memory.
type Hooks = LinkedList<(Option<u64>, Hook)>;

/// A hook with its place in the list of a task, or nothing. Dropping it drops the hook.
pub(crate) struct EndHook(Hooks);

impl EndHook {
    /// A hook that can be taken back under `number`. Takes memory.
    pub(crate) fn numbered(number: u64, hook: Hook) -> Self {
        Self(LinkedList::from([(Some(number), hook)]))
    }
}

/// What is known about the end of a task.
pub(super) struct Ended {
    outcome: SpinLock<Option<Outcome>>,
    hooks: SpinLock<Hooks>,
    stack_is_free: Completion,
}

static JOIN: WaitReason = WaitReason::new("the end of task");

impl Ended {
    pub(super) fn new(id: TaskId) -> Self {
        Self {
            outcome: SpinLock::new(None),
            hooks: SpinLock::new(Hooks::new()),
            stack_is_free: Completion::new(&JOIN).about(id.as_u64() as usize),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// [`Self::has_ended`] without waiting: no while the end is being written down.
    pub(super) fn seems_ended(&self) -> bool {
        self.outcome.try_lock().is_some_and(|outcome| outcome.is_some())
    }

    /// The last step: nothing of the task runs any more and its stack is free.
    pub(super) fn announce(&self) {
        self.stack_is_free.complete();
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ended").field(&*self.outcome.lock()).finish()
    }
}

impl Task {
    /// Waits until the task has ended and its stack is free; says how it ended.
    ///
    /// # Panics
    /// A lock is held, or a task waits for itself.
    #[track_caller]
    pub fn join(&self) -> Outcome {
        assert!(
            !core::ptr::eq(self, &raw const **current()),
            "{self} waits for its own end"
        );
        self.ended.stack_is_free.wait();
        engine::joined(self);
        self.outcome().expect("set before the stack is freed")
    }

    /// How the task ended; `None` while it lives.
    pub fn outcome(&self) -> Option<Outcome> {
        self.ended.outcome.lock().clone()
    }

    /// Has `hook` called when the task ends, on the task itself; at once and on the caller if it has ended already.
    pub fn on_end(&self, hook: impl FnOnce(&Self, &Outcome) + Send + 'static) {
        let mut hooks = self.ended.hooks.lock();
        // Looked at under the lock: `finish` sets the outcome under it once the last hook is taken.
        let Some(outcome) = self.outcome() else {
            hooks.push_back((None, Box::new(hook)));
            return;
        };
        drop(hooks);
        hook(self, &outcome);
    }

    /// Like [`Self::on_end`], but the hook can be taken back under its number, and no memory is taken. False, and nothing
    /// done, when the task has ended already.
    pub(crate) fn set_end_hook(&self, hook: &mut EndHook) -> bool {
        let mut hooks = self.ended.hooks.lock();
        if self.ended.has_ended() {
            return false;
        }
        hooks.append(&mut hook.0);
        true
    }

    /// Takes back what was set under `number`, unless it was called already.
    pub(crate) fn take_end_hook(&self, number: u64) -> Option<EndHook> {
        let mut hooks = self.ended.hooks.lock();
        let at = hooks.iter().position(|(other, _)| *other == Some(number))?;
        let mut hook = hooks.split_off(at);
        hooks.append(&mut hook.split_off(1));
        Some(EndHook(hook))
    }

    /// How many hooks will run.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn end_hooks(&self) -> usize {
        self.ended.hooks.lock().len()
    }

    /// Runs the hooks, then fixes the outcome. Called by the task itself.
    pub(super) fn finish(&self, outcome: Outcome) {
        loop {
            let mut hooks = self.ended.hooks.lock();
            if hooks.is_empty() {
                *self.ended.outcome.lock() = Some(outcome);
                return;
            }
            let batch = core::mem::take(&mut *hooks);
            drop(hooks);
            for (_, hook) in batch {
                hook(self, &outcome);
            }
        }
    }
}

/// Ends the current task. Values on its stack are not dropped: prefer returning from the task's closure.
///
/// # Panics
/// A lock is held.
pub fn exit(ending: impl Ending) -> ! {
    engine::exit(ending.outcome())
}
