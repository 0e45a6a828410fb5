//! What stands for a process or a thread once it may be gone: what a descriptor of one holds (Linux: `struct pid`).
//!
//! ```text
//!   Living ──last thread ends──► Ended ──waited for──► Gone
//! ```
//!
//! A handle keeps the number, so that nobody else gets it, and nothing of the process's memory.

use alloc::sync::Arc;

use super::table::{self, Claim, Pid};
use super::{Process, Thread, with_tree};
use crate::file::{Notifier, Readiness};

/// A process, or a thread alone.
#[derive(Debug)]
pub struct Handle {
    claim: Arc<Claim>,
    of_thread: bool,
    changes: Arc<Notifier>,
}

/// How far a life has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It goes on.
    Living,
    /// It is over, and somebody may ask how.
    Ended,
    /// Nobody can ask any more.
    Gone,
}

impl Handle {
    /// Of a process, also of one that has ended.
    pub fn of_process(process: &Process) -> Self {
        Self {
            claim: Arc::clone(process.claim()),
            of_thread: false,
            changes: Arc::clone(&process.changes),
        }
    }

    /// Of a thread.
    pub fn of_thread(thread: &Thread) -> Self {
        Self {
            claim: thread.claim(),
            of_thread: true,
            changes: Arc::clone(&thread.process().changes),
        }
    }

    /// Of the first thread of a process, which has ended.
    pub fn of_ended_leader(process: &Process) -> Self {
        Self {
            of_thread: true,
            ..Self::of_process(process)
        }
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.claim.pid()
    }

    /// Whether it stands for a thread alone.
    pub fn is_of_thread(&self) -> bool {
        self.of_thread
    }

    /// The process, or that of the thread; also one that has ended, but `None` for one that was waited for.
    pub fn process(&self) -> Option<Arc<Process>> {
        let process = with_tree(|tree| tree.get(self.pid()).cloned());
        process.or_else(|| Some(Arc::clone(self.thread()?.process())))
    }

    /// The thread with the number: of a process, its first one.
    pub fn thread(&self) -> Option<Arc<Thread>> {
        table::thread(self.pid())
    }

    /// How far it has come. A process's first thread has not ended before the process has (as on Linux 6.18).
    pub fn life(&self) -> Life {
        let pid = self.pid();
        let of_process = with_tree(|tree| tree.get(pid).map(|_| tree.is_zombie(pid)));
        match of_process {
            Some(true) => Life::Ended,
            Some(false) => Life::Living,
            None if self.thread().is_some() => Life::Living,
            None => Life::Gone,
        }
    }

    /// Tells of changes of that, and may tell when there are none.
    pub fn changes(&self) -> &Notifier {
        &self.changes
    }
}

impl Process {
    /// A thread of it has ended, or it has, or was waited for: those who have handles look again.
    pub(super) fn note_change(&self) {
        self.changes.notify(Readiness::READABLE | Readiness::HUP);
    }
}
