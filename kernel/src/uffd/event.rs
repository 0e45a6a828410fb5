//! What a monitor reads.

use super::api::Features;
use super::classify::{Trap, TrapKind};
use super::ctx::{Ctx, Uffd};
use super::guest::Stage;
use crate::mm::addr::{GuestPhysAddr, VirtAddr};
use crate::mm::range::VirtRange;
use crate::task::TaskId;

/// A message of the channel.
#[derive(PartialEq, Eq, Debug)]
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
    /// A task waits for a page of a guest's memory ([`super::guest`]).
    GuestFault {
        /// Why.
        kind: TrapKind,
        /// Whether the access was a store.
        write: bool,
        /// The page's guest-physical address; the exact one with
        /// [`Features::EXACT_ADDRESS`](super::Features::EXACT_ADDRESS).
        addr: GuestPhysAddr,
        /// Who, with [`Features::THREAD_ID`](super::Features::THREAD_ID): the task that runs the guest.
        thread: Option<TaskId>,
    },
    /// The space was forked. The child is complete and does not run yet.
    Fork {
        /// The child's context: the same features, on the same ranges.
        uffd: Uffd,
    },
    /// Memory has moved, and its registration with it.
    Remap {
        /// Where it was.
        from: VirtAddr,
        /// Where it is.
        to: VirtAddr,
        /// Bytes that were at `from`; there may be more at `to`.
        len: u64,
    },
    /// Contents are about to be dropped; the range stays mapped and registered.
    Remove {
        /// What is dropped.
        range: VirtRange,
    },
    /// Mappings are gone.
    Unmap {
        /// What the caller unmapped; parts of it may never have been registered.
        range: VirtRange,
    },
}

impl Event {
    /// What a context must have asked for to be told; nothing for a fault.
    pub fn feature(&self) -> Features {
        match self {
            Self::Pagefault { .. } | Self::GuestFault { .. } => Features::empty(),
            Self::Fork { .. } => Features::EVENT_FORK,
            Self::Remap { .. } => Features::EVENT_REMAP,
            Self::Remove { .. } => Features::EVENT_REMOVE,
            Self::Unmap { .. } => Features::EVENT_UNMAP,
        }
    }
}

/// [`Event::Pagefault`] or [`Event::GuestFault`] on its way: what fits into a reader's hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pagefault {
    /// Why, and how the page was accessed.
    pub trap: Trap,
    /// Where.
    pub addr: VirtAddr,
    /// Who.
    pub thread: Option<TaskId>,
}

impl Pagefault {
    /// The event, as a reader of `ctx` is told.
    #[inline]
    pub(super) fn told_by(self, ctx: &Ctx) -> Event {
        let Self { trap, addr, thread } = self;
        let (kind, write) = (trap.kind, trap.write);
        match ctx.stage() {
            Stage::One => Event::Pagefault {
                kind,
                write,
                addr,
                thread,
            },
            Stage::Two => Event::GuestFault {
                kind,
                write,
                addr: GuestPhysAddr::new(addr.as_u64()),
                thread,
            },
        }
    }
}

/// Why there is nothing to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// Nothing is pending, and the call was not to wait (Linux: EAGAIN).
    WouldBlock,
    /// The handshake has not been made (EINVAL).
    Fresh,
    /// The caller could not take the event, which stays queued, behind the others (Linux: EMFILE for a fork's descriptor).
    NotAdmitted,
    /// The caller was killed or interrupted while it waited (EINTR).
    Interrupted,
    /// The context was closed.
    Closed,
    /// The attached monitor ended: nothing is delivered here any more, and this reader is not the one to serve it.
    Orphaned,
}
