//! Tasks that sleep until there is a message.
//!
//! A context usually has one monitor that reads, serves, and reads again. It keeps its place here while it serves, so that
//! going to sleep and being woken cost a flag and not two list operations and two references. Further readers queue up
//! behind it.

use alloc::sync::Arc;

use intrusive_collections::LinkedList;

use crate::task::Task;
use crate::task::link::WaitAdapter;

/// Somebody who does not sleep in read, but wants to know when there is something to read (Linux: poll).
pub trait Watcher: Send + Sync {
    /// There is a message, or there was. Called with the context's queue locked: neither sleeps nor allocates.
    fn readable(&self);
}

/// The readers of a context. Under its queue lock.
#[derive(Debug)]
pub(super) struct Readers {
    /// Who slept here last, and may again.
    last: Option<Arc<Task>>,
    /// Whether `last` sleeps now.
    last_sleeps: bool,
    /// Others that sleep, in the order in which they came.
    others: LinkedList<WaitAdapter>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            last_sleeps: false,
            others: LinkedList::new(WaitAdapter::new()),
        }
    }

    /// Whether `task` is the one that slept here last.
    #[inline]
    fn is_last(&self, task: &Arc<Task>) -> bool {
        self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, task))
    }

    /// `task` is about to sleep; it may be here already.
    #[inline]
    pub(super) fn enter(&mut self, task: &Arc<Task>) {
        if self.is_last(task) {
            self.last_sleeps = true;
        } else if !self.last_sleeps && !task.wait_link.is_linked() {
            self.last = Some(Arc::clone(task));
            self.last_sleeps = true;
        } else if !task.wait_link.is_linked() {
            self.others.push_back(Arc::clone(task));
        }
    }

    /// `task` found what it wanted without being woken, if it was here at all.
    #[inline]
    pub(super) fn leave(&mut self, task: &Arc<Task>) {
        if self.is_last(task) {
            self.last_sleeps = false;
        } else if task.wait_link.is_linked() {
            self.unlink(task);
        }
    }

    #[cold]
    fn unlink(&mut self, task: &Arc<Task>) {
        let mut cursor = self.others.front_mut();
        while let Some(reader) = cursor.get() {
            if core::ptr::eq(reader, &raw const **task) {
                cursor.remove();
                return;
            }
            cursor.move_next();
        }
    }

    /// Whether a task sleeps here.
    pub(super) fn any_sleeps(&self) -> bool {
        self.last_sleeps || !self.others.is_empty()
    }

    /// Takes one that sleeps, which the caller wakes.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<&Task> {
        if !self.last_sleeps && !self.promote() {
            return None;
        }
        self.last_sleeps = false;
        self.last.as_deref()
    }

    /// The first of the others, if there are any, takes the place of who slept here last and does not sleep now.
    #[cold]
    #[inline(never)]
    fn promote(&mut self) -> bool {
        let Some(reader) = self.others.pop_front() else {
            return false;
        };
        self.last = Some(reader);
        self.last_sleeps = true;
        true
    }

    /// Lets all of them look again.
    #[cold]
    pub(super) fn wake_all(&mut self) {
        while let Some(reader) = self.take() {
            reader.unpark();
        }
    }

    /// Lets all of them look again, for the last time here.
    pub(super) fn disband(&mut self) {
        self.wake_all();
        self.last = None;
    }
}
