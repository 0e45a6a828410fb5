//! Tasks that wait at a context, oldest first.
//!
//! Hardly ever is it more than one task: a fault is read and resolved before the next one comes. So the first has a place
//! of its own, and to wait there and to be woken from it costs no list operation.

use alloc::sync::Arc;
use core::mem;

use intrusive_collections::LinkedList;

use super::slot::FaultState;
use crate::mm::addr::VirtAddr;
use crate::task::Task;
use crate::task::link::FaultAdapter;

/// The tasks. Under the queue lock of their context.
#[derive(Debug)]
pub(super) struct Waiters {
    /// The oldest, if it came when nobody else waited.
    first: Option<Arc<Task>>,
    rest: LinkedList<FaultAdapter>,
}

impl Waiters {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            rest: LinkedList::new(FaultAdapter::new()),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }

    /// `task` waits from now on, and is the youngest.
    #[inline(always)]
    pub(super) fn push(&mut self, task: Arc<Task>) {
        if self.is_empty() {
            self.first = Some(task);
        } else {
            self.rest.push_back(task);
        }
    }

    /// The oldest; it does not wait here any more.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Arc<Task>> {
        self.first.take().or_else(|| self.rest.pop_front())
    }

    /// Takes `task` out; false when it does not wait here.
    #[cold]
    pub(super) fn remove(&mut self, task: &Arc<Task>) -> bool {
        if self.first.take_if(|first| Arc::ptr_eq(first, task)).is_some() {
            return true;
        }
        let mut cursor = self.rest.front_mut();
        while let Some(waiting) = cursor.get() {
            if core::ptr::eq(waiting, Arc::as_ptr(task)) {
                cursor.remove();
                return true;
            }
            cursor.move_next();
        }
        false
    }

    /// Lets all tasks go on whose address lies in `[start, end)`, and returns how many those were.
    #[inline(always)]
    pub(super) fn wake(&mut self, start: VirtAddr, end: VirtAddr) -> usize {
        let mut woken = 0;
        if let Some(task) = self.first.take_if(|task| task.fault.lies_in(start, end)) {
            release(&task);
            woken += 1;
        }
        if !self.rest.is_empty() {
            woken += self.wake_rest(start, end);
        }
        woken
    }

    #[cold]
    fn wake_rest(&mut self, start: VirtAddr, end: VirtAddr) -> usize {
        let mut woken = 0;
        let mut cursor = self.rest.front_mut();
        while let Some(task) = cursor.get() {
            if !task.fault.lies_in(start, end) {
                cursor.move_next();
                continue;
            }
            if let Some(task) = cursor.remove() {
                release(&task);
                woken += 1;
            }
        }
        woken
    }

    /// Takes all of `others`, who came before.
    pub(super) fn take_older(&mut self, others: &mut Self) {
        let mut younger = mem::replace(self, mem::replace(others, Self::new()));
        while let Some(task) = younger.pop() {
            self.push(task);
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.first.as_deref().into_iter().chain(self.rest.iter())
    }

    /// Calls `visit` with each, as long as it says so.
    pub(super) fn visit(&self, mut visit: impl FnMut(Arc<Task>) -> bool) {
        if let Some(task) = &self.first
            && !visit(Arc::clone(task))
        {
            return;
        }
        let mut cursor = self.rest.front();
        while let Some(task) = cursor.clone_pointer() {
            if !visit(task) {
                return;
            }
            cursor.move_next();
        }
    }
}

#[inline(always)]
fn release(task: &Task) {
    task.fault.set(FaultState::Idle);
    task.unpark();
}
