//! Readiness: whether a call on a file would wait, and how those are told who wait for several files at once.
//!
//! ```text
//!   File ── Notifier ──┬─ waiters: tasks in a read or write of this very file
//!                      └─ listeners ──► Poller of a poll, select or epoll_wait      (one per call)
//!                                   └─► an epoll instance's item                    (until it is removed)
//! ```
//!
//! The rule that no wake-up is lost: **a file changes its state first and calls [`Notifier::notify`] then; whoever waits is
//! registered first and looks then.** A listener that is told may find nothing (somebody was faster); it goes on waiting.
//!
//! `notify` is called with spin locks held, on the path of a page fault too: listeners neither sleep nor allocate. Locks, in
//! this order: a file's own, its notifier's list, a listener's, the wait queue's.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bitflags::bitflags;

use super::epoll::EpollFile;
use super::{OpenFile, signals};
use crate::abi::errno::Errno;
use crate::sync::model::Lock;
use crate::sync::model::atomic::{AtomicBool, Ordering};
use crate::syscall::{Error, Restart};
use crate::task::{WaitQueue, WaitReason};

bitflags! {
    /// What can be done without waiting. The values are Linux's `POLL*` and `EPOLL*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Readiness: u32 {
        /// Something can be read.
        const IN = 1;
        /// Something urgent can be read.
        const PRI = 2;
        /// Something can be written.
        const OUT = 4;
        /// An error is to be had. Always reported.
        const ERR = 8;
        /// The other end is gone. Always reported.
        const HUP = 0x10;
        /// The descriptor is not open.
        const NVAL = 0x20;
        /// The same as [`Self::IN`] but for streams with bands.
        const RDNORM = 0x40;
        /// Data of a band can be read.
        const RDBAND = 0x80;
        /// The same as [`Self::OUT`].
        const WRNORM = 0x100;
        /// Data of a band can be written.
        const WRBAND = 0x200;
        /// The other end will not write any more.
        const RDHUP = 0x2000;
    }
}

impl Readiness {
    /// Reading would not wait.
    pub const READABLE: Self = Self::IN.union(Self::RDNORM);
    /// Writing would not wait.
    pub const WRITABLE: Self = Self::OUT.union(Self::WRNORM);
    /// Of a file whose calls never wait.
    pub const ALWAYS: Self = Self::READABLE.union(Self::WRITABLE);
    /// Reported whether or not they were asked for.
    pub const UNASKED: Self = Self::ERR.union(Self::HUP);
}

/// Somebody who wants to know when a file's readiness may have changed.
pub trait Listener: Send + Sync {
    /// It may have, in these respects. Neither sleeps nor allocates.
    fn notify(&self, changed: Readiness);

    /// The epoll that it tells in turn, if it is an epoll's.
    fn epoll(&self) -> Option<Arc<EpollFile>> {
        None
    }
}

/// Somebody who wants to know when an open file is closed for good.
pub trait Watcher: Send + Sync {
    /// It is. No lock is held.
    fn closing(&self, file: &OpenFile);
}

/// The number of a listener at its notifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u64);

/// Those who wait for a file.
pub struct Notifier {
    waiters: WaitQueue,
    listeners: Lock<Listeners>,
}

struct Listeners {
    all: Vec<(Ticket, Arc<dyn Listener>)>,
    next: u64,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl Notifier {
    /// Nobody waits; `reason` is what tasks wait for in a call on the file itself.
    pub fn new(reason: &'static WaitReason) -> Self {
        Self {
            waiters: WaitQueue::new(reason),
            listeners: Lock::new(Listeners {
                all: Vec::new(),
                next: 0,
            }),
        }
    }

    /// The readiness may have changed in these respects: everybody looks again.
    pub fn notify(&self, changed: Readiness) {
        self.waiters.wake_all();
        for (_, listener) in &self.listeners.lock().all {
            listener.notify(changed);
        }
    }

    /// One of those who wait looks again, for what any of them can use up. Nobody else is told: nothing has changed.
    pub(super) fn wake_one(&self) {
        self.waiters.wake_one();
    }

    /// Waits until `look` gives something. It is called without locks and must not wait.
    ///
    /// # Errors
    /// A signal came first: [`Restart::IfAsked`].
    ///
    /// # Panics
    /// A spin lock is held.
    #[track_caller]
    pub fn wait<T>(&self, look: impl FnMut() -> Option<T>) -> Result<T, Error> {
        self.wait_unless(false, look)
    }

    /// [`Self::wait`], unless the caller does not want to wait.
    ///
    /// # Errors
    /// EAGAIN also.
    #[track_caller]
    pub fn wait_unless<T>(&self, nonblocking: bool, mut look: impl FnMut() -> Option<T>) -> Result<T, Error> {
        self.waiters.wait_until(|| match look() {
            Some(found) => Some(Ok(found)),
            None if nonblocking => Some(Err(Errno::EAGAIN.into())),
            None => signals::is_pending().then_some(Err(Restart::IfAsked.into())),
        })
    }

    /// Waits until `look` gives something, or `timeout` has passed. Whether a signal ends the wait is for `look` to say.
    ///
    /// # Panics
    /// A spin lock is held.
    #[track_caller]
    pub fn wait_for<T>(&self, timeout: Option<Duration>, look: impl FnMut() -> Option<T>) -> Option<T> {
        match timeout {
            Some(timeout) => self.waiters.wait_timeout(timeout, look),
            None => Some(self.waiters.wait_until(look)),
        }
    }

    /// Has `listener` told from now on.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn add(&self, listener: Arc<dyn Listener>) -> Result<Ticket, Errno> {
        let mut listeners = self.listeners.lock();
        listeners.all.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let ticket = Ticket(listeners.next);
        listeners.next += 1;
        listeners.all.push((ticket, listener));
        Ok(ticket)
    }

    /// Who is told.
    pub(super) fn listeners(&self) -> Vec<Arc<dyn Listener>> {
        let listeners = self.listeners.lock();
        let all = listeners.all.iter();
        all.map(|(_, listener)| Arc::clone(listener)).collect()
    }

    /// Has it told no more: it is not being told either when this returns.
    pub fn remove(&self, ticket: Ticket) {
        let mut listeners = self.listeners.lock();
        // From the end, where those are who leave as they came: a poll of many files that share one notifier.
        let place = listeners.all.iter().rposition(|(other, _)| *other == ticket);
        let removed = place.map(|place| listeners.all.swap_remove(place));
        drop(listeners);
        // What it owns is let go of without the lock.
        drop(removed);
    }
}

/// A task in one call that waits for several files.
#[derive(Debug)]
pub struct Poller {
    told: AtomicBool,
    queue: WaitQueue,
}

static POLLING: WaitReason = WaitReason::new("one of several files");

impl Poller {
    /// Nothing has been told.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            told: AtomicBool::new(false),
            queue: WaitQueue::new(&POLLING),
        })
    }

    /// Waits until it is told something that it has not been told before: a reason to look at the files again. False when
    /// `timeout` has passed first.
    ///
    /// # Errors
    /// A signal came first: [`Restart::UnlessHandled`].
    #[track_caller]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let look = || {
            // Acquire: the change of the file is visible.
            if self.told.swap(false, Ordering::Acquire) {
                Some(Ok(true))
            } else {
                signals::is_pending().then_some(Err(Restart::UnlessHandled.into()))
            }
        };
        match timeout {
            Some(timeout) => self.queue.wait_timeout(timeout, look).unwrap_or(Ok(false)),
            None => self.queue.wait_until(look),
        }
    }
}

impl Listener for Poller {
    fn notify(&self, _changed: Readiness) {
        self.told.store(true, Ordering::Release);
        self.queue.wake_all();
    }
}
