//! A thread of a process.

use alloc::sync::Arc;

use super::Process;
use super::table::{self, Claim, Pid};
use crate::mm::addr::VirtAddr;
use crate::sync::SpinLock;
use crate::task::{self, Task};

/// A thread of a process. The kernel task that runs it changes when it executes another program.
#[derive(Debug)]
pub struct Thread {
    claim: Claim,
    process: Arc<Process>,
    task: SpinLock<Option<Arc<Task>>>,
    /// The word that is cleared, and whose waiters are woken, when the thread ends.
    clear_at_end: SpinLock<Option<VirtAddr>>,
}

impl Thread {
    /// A thread that has not begun.
    pub fn new(claim: Claim, process: &Arc<Process>) -> Arc<Self> {
        let thread = Arc::new(Self {
            claim,
            process: Arc::clone(process),
            task: SpinLock::new(None),
            clear_at_end: SpinLock::new(None),
        });
        table::enter_thread(&thread);
        process.add_thread(&thread);
        thread
    }

    /// Its number.
    pub fn tid(&self) -> Pid {
        self.claim.pid()
    }

    /// The process that it is a thread of.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The task that runs it, from its beginning to its end.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.task.lock().clone()
    }

    /// Notes which task runs it.
    pub fn set_task(&self, task: Option<Arc<Task>>) {
        *self.task.lock() = task;
    }

    /// Whether there is a signal to deliver, or the thread is to end: a wait that can be cut short is.
    #[inline]
    pub fn signal_is_pending(&self) -> bool {
        task::current().is_killed()
    }

    /// Sets the word that is cleared at its end.
    pub fn set_clear_at_end(&self, word: Option<VirtAddr>) {
        *self.clear_at_end.lock() = word;
    }
}
