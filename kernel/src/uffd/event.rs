//! What a monitor reads.

use super::classify::{Trap, TrapKind};
use crate::mm::addr::VirtAddr;
use crate::task::TaskId;

/// A message of the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A task waits for a page.
    Pagefault {
        /// Why.
        kind: TrapKind,
        /// Whether the access was a store.
        write: bool,
        /// The page's address; the exact one with [`Features::EXACT_ADDRESS`](super::Features::EXACT_ADDRESS).
        addr: VirtAddr,
        /// Who, with [`Features::THREAD_ID`](super::Features::THREAD_ID).
        thread: Option<TaskId>,
    },
}

impl Event {
    pub(super) fn pagefault(trap: Trap, addr: VirtAddr, thread: Option<TaskId>) -> Self {
        Self::Pagefault {
            kind: trap.kind,
            write: trap.write,
            addr,
            thread,
        }
    }
}

/// Why there is nothing to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// Nothing is pending, and the call was not to wait.
    WouldBlock,
    /// The context was closed.
    Closed,
    /// The attached monitor ended: nothing is delivered here any more, and this reader is not the one to serve it.
    Orphaned,
}
