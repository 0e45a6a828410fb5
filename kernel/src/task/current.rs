//! The task that runs this code.
#![expect(
    unsafe_code,
    reason = "borrows the reference that the scheduler keeps while a task runs"
)]

use alloc::sync::Arc;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::task::TaskName;
use super::{Task, engine};

/// The running task, borrowed from the scheduler: no reference is counted. Stays on the stack of the task it names.
#[derive(Debug)]
pub struct Current {
    task: ManuallyDrop<Arc<Task>>,
    /// Another task has another current task.
    _not_send: PhantomData<*const ()>,
}

/// The running task; one load on bare metal.
///
/// Valid from `task::init` on, and in interrupt handlers, where it is the interrupted task. On the host every
/// thread is a task: one that was not spawned here gets a detached task at its first call.
#[inline]
pub fn current() -> Current {
    // SAFETY: the engine's pointer came from `Arc::into_raw`, and the reference behind it is not given up before the
    // task has left its stack for the last time, hence not before this value is gone. It is never dropped here.
    let task = ManuallyDrop::new(unsafe { Arc::from_raw(engine::running()) });
    Current {
        task,
        _not_send: PhantomData,
    }
}

/// A counted reference to the running task.
#[inline]
pub fn current_arc() -> Arc<Task> {
    Arc::clone(&current())
}

/// The running task's name, for reports; takes no lock, and before there are tasks it is "boot".
pub fn current_name() -> TaskName {
    // SAFETY: null, or as in `current`; only looked at.
    match unsafe { engine::running().as_ref() } {
        Some(task) => task.short_name(),
        None => TaskName::from("boot").unwrap_or_default(),
    }
}

impl Deref for Current {
    type Target = Arc<Task>;

    #[inline]
    fn deref(&self) -> &Arc<Task> {
        &self.task
    }
}
