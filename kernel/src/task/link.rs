//! The lists that tasks are linked into without allocating.
//!
//! Each list has a link of its own in the task, so a task can wait for a page, sit in a wait queue and have a timer
//! running at the same time.
#![allow(missing_docs, reason = "the macro's constructors cannot be documented")]

use alloc::sync::Arc;

use intrusive_collections::{KeyAdapter, LinkedListAtomicLink, RBTreeAtomicLink, intrusive_adapter};

use super::Task;

intrusive_adapter!(pub WaitAdapter = Arc<Task>: Task { wait_link => LinkedListAtomicLink });
intrusive_adapter!(pub FaultAdapter = Arc<Task>: Task { fault_link => LinkedListAtomicLink });
intrusive_adapter!(pub FutexAdapter = Arc<Task>: Task { futex_link => LinkedListAtomicLink });
intrusive_adapter!(pub(super) RunAdapter = Arc<Task>: Task { run_link => LinkedListAtomicLink });
intrusive_adapter!(pub(super) TimerAdapter = Arc<Task>: Task { timer_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for TimerAdapter {
    type Key = u64;

    fn get_key(&self, task: &'a Task) -> u64 {
        task.timer.deadline()
    }
}
