//! A process.

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::table::{self, Pid};
use super::{Mm, Thread};
use crate::file::{Place, Table};
use crate::sync::SpinLock;
use crate::task::{Completion, WaitReason};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By `exit` or `exit_group` with this status.
    Exited(u8),
    /// By a signal.
    Signalled(u8),
}

/// A process: threads that share memory, files and signal handlers.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    parent: SpinLock<Weak<Self>>,
    mm: SpinLock<Arc<Mm>>,
    files: Arc<Table>,
    place: Arc<Place>,
    /// The path that was executed.
    exe: SpinLock<String>,
    threads: SpinLock<Vec<Arc<Thread>>>,
    ending: SpinLock<Option<Ending>>,
    ended: Completion,
}

static ENDS: WaitReason = WaitReason("the end of process");

impl Process {
    /// A process without threads, whose first one will have number `pid`.
    pub fn new(
        pid: Pid,
        parent: Weak<Self>,
        mm: Arc<Mm>,
        files: Arc<Table>,
        place: Arc<Place>,
        exe: String,
    ) -> Arc<Self> {
        let process = Arc::new(Self {
            pid,
            parent: SpinLock::new(parent),
            mm: SpinLock::new(mm),
            files,
            place,
            exe: SpinLock::new(exe),
            threads: SpinLock::new(Vec::new()),
            ending: SpinLock::new(None),
            ended: Completion::new(&ENDS).about(pid.as_u32() as usize),
        });
        table::enter_process(&process);
        process
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The process that is told of its end.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.parent.lock().upgrade()
    }

    /// Its memory.
    pub fn mm(&self) -> Arc<Mm> {
        Arc::clone(&self.mm.lock())
    }

    /// Its descriptors.
    pub fn files(&self) -> &Arc<Table> {
        &self.files
    }

    /// Where it stands in the tree of files.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The path that was executed.
    pub fn exe(&self) -> String {
        self.exe.lock().clone()
    }

    /// Its threads that have not ended.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().clone()
    }

    /// Another thread of it begins.
    pub fn add_thread(&self, thread: &Arc<Thread>) {
        self.threads.lock().push(Arc::clone(thread));
    }

    /// Says how it ends; the first one who says so is right.
    pub fn end(&self, ending: Ending) {
        self.ending.lock().get_or_insert(ending);
    }

    /// How it ends, or has ended.
    pub fn ending(&self) -> Option<Ending> {
        *self.ending.lock()
    }

    /// A thread has ended; with the last one, the process.
    pub fn remove_thread(&self, thread: &Thread) {
        let mut threads = self.threads.lock();
        threads.retain(|other| other.tid() != thread.tid());
        let was_last = threads.is_empty();
        drop(threads);
        if was_last {
            self.files.close_all();
            self.ended.complete();
        }
    }

    /// Waits until its last thread has ended; says how.
    pub fn wait(&self) -> Ending {
        self.ended.wait();
        self.ending().unwrap_or(Ending::Exited(0))
    }
}
