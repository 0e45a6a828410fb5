//! Process and thread numbers. A process has the number of its first thread.

use alloc::sync::{Arc, Weak};
use core::fmt;

use super::{Process, Thread};
use crate::sync::SpinLock;
use alloc::collections::BTreeMap;

/// The number of a process or a thread; from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(u32);

impl Pid {
    /// The number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The process or thread with this number, if there is one.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers are given in turn and come again after this one (Linux: `kernel.pid_max`).
const MAX: u32 = 32768;
/// Where numbers begin again.
const AGAIN_FROM: u32 = 300;

struct Table {
    last: u32,
    threads: BTreeMap<u32, Weak<Thread>>,
    processes: BTreeMap<u32, Weak<Process>>,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table {
    last: 0,
    threads: BTreeMap::new(),
    processes: BTreeMap::new(),
});

/// A number in use; free again when dropped.
#[derive(Debug)]
pub struct Claim(Pid);

impl Claim {
    /// The next free number; `None` when all are in use.
    pub fn next() -> Option<Self> {
        let mut table = TABLE.lock();
        for _ in 0..MAX {
            table.last = if table.last + 1 < MAX {
                table.last + 1
            } else {
                AGAIN_FROM
            };
            let number = table.last;
            if !table.threads.contains_key(&number) && !table.processes.contains_key(&number) {
                table.threads.insert(number, Weak::new());
                return Some(Self(Pid(number)));
            }
        }
        None
    }

    /// The number.
    pub fn pid(&self) -> Pid {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = TABLE.lock();
        table.threads.remove(&self.0.0);
        table.processes.remove(&self.0.0);
    }
}

/// Makes `thread` known under its number.
pub fn enter_thread(thread: &Arc<Thread>) {
    TABLE
        .lock()
        .threads
        .insert(thread.tid().as_u32(), Arc::downgrade(thread));
}

/// Makes `process` known under its number.
pub fn enter_process(process: &Arc<Process>) {
    TABLE
        .lock()
        .processes
        .insert(process.pid().as_u32(), Arc::downgrade(process));
}

/// The thread with this number.
pub fn thread(tid: Pid) -> Option<Arc<Thread>> {
    TABLE.lock().threads.get(&tid.0)?.upgrade()
}

/// The process with this number.
pub fn process(pid: Pid) -> Option<Arc<Process>> {
    TABLE.lock().processes.get(&pid.0)?.upgrade()
}

/// All processes, by number.
pub fn processes() -> alloc::vec::Vec<Arc<Process>> {
    let table = TABLE.lock();
    table.processes.values().filter_map(Weak::upgrade).collect()
}
