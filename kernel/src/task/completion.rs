//! An event that happens once.

use core::time::Duration;

use super::wait::{WaitQueue, WaitReason};
use crate::sync::model::atomic::{AtomicBool, Ordering};

/// Something that is not done, and then is for ever.
#[derive(Debug)]
pub struct Completion {
    done: AtomicBool,
    waiters: WaitQueue,
}

impl Completion {
    /// Not done; `reason` is what its waiters wait for.
    #[cfg(not(loom))]
    pub const fn new(reason: &'static WaitReason) -> Self {
        Self {
            done: AtomicBool::new(false),
            waiters: WaitQueue::new(reason),
        }
    }

    /// Not done; `reason` is what its waiters wait for.
    #[cfg(loom)]
    pub fn new(reason: &'static WaitReason) -> Self {
        Self {
            done: AtomicBool::new(false),
            waiters: WaitQueue::new(reason),
        }
    }

    /// The same, with a number to tell observers instead of its address.
    #[must_use]
    pub fn about(mut self, which: usize) -> Self {
        self.waiters = self.waiters.about(which);
        self
    }

    /// Whether it is done.
    pub fn is_done(&self) -> bool {
        // Acquire: what was done before `complete` is visible.
        self.done.load(Ordering::Acquire)
    }

    /// It is done: everybody who waits goes on.
    pub fn complete(&self) {
        self.done.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Waits until it is done.
    #[track_caller]
    pub fn wait(&self) {
        self.waiters.wait_until(|| self.is_done().then_some(()));
    }

    /// Waits until it is done or `gives_up` says so; says whether it is done. Whoever makes `gives_up` true unparks the task.
    #[track_caller]
    pub fn wait_unless(&self, gives_up: impl Fn() -> bool) -> bool {
        self.waiters
            .wait_until(|| (self.is_done() || gives_up()).then_some(()));
        self.is_done()
    }

    /// Waits until it is done, but no longer than `timeout`; says whether it is done.
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.waiters
            .wait_timeout(timeout, || self.is_done().then_some(()))
            .is_some()
    }
}
