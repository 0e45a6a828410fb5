//! Process and thread numbers. A process has the number of its first thread.
//!
//! A number is in use as long as somebody owns its [`Claim`]: its thread, or its process until that is waited for. Those of
//! groups and sessions are left out when one is given (`clone`).

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use super::Thread;
use crate::sync::SpinLock;

/// The number of a process or a thread; from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(u32);

impl Pid {
    /// The parent of those that have no other. It is the kernel's, has no threads, and waits for every child of its.
    pub const INIT: Self = Self(1);

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
/// Where numbers begin, and begin again: the first ones are a system's own (as on Linux).
const FROM: u32 = 300;

struct Table {
    last: u32,
    /// Numbers in use, with the thread that has them.
    numbers: BTreeMap<u32, Weak<Thread>>,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table {
    last: FROM - 1,
    numbers: BTreeMap::new(),
});

/// A number in use; free again when dropped.
#[derive(Debug)]
pub struct Claim(Pid);

impl Claim {
    /// The next free number; `None` when all are in use.
    pub fn next() -> Option<Arc<Self>> {
        let mut table = TABLE.lock();
        for _ in 0..MAX {
            table.last = if table.last + 1 < MAX {
                table.last + 1
            } else {
                FROM
            };
            let number = table.last;
            if let Entry::Vacant(free) = table.numbers.entry(number) {
                free.insert(Weak::new());
                return Some(Arc::new(Self(Pid(number))));
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
        let gone = TABLE.lock().numbers.remove(&self.0.0);
        // It may be the last that holds the thread's memory.
        drop(gone);
    }
}

/// Makes `thread` known under the number that it has claimed.
pub fn enter_thread(thread: &Arc<Thread>) {
    let entry = Arc::downgrade(thread);
    let old = TABLE.lock().numbers.insert(thread.tid().as_u32(), entry);
    drop(old);
}

/// Has the number of a thread that has ended mean nobody.
pub fn leave_thread(tid: Pid) {
    let mut table = TABLE.lock();
    let old = table.numbers.get_mut(&tid.0).map(core::mem::take);
    drop(table);
    drop(old);
}

/// The thread with this number.
pub fn thread(tid: Pid) -> Option<Arc<Thread>> {
    TABLE.lock().numbers.get(&tid.0)?.upgrade()
}

/// All threads, by number.
pub fn threads() -> Vec<Arc<Thread>> {
    TABLE.lock().numbers.values().filter_map(Weak::upgrade).collect()
}
