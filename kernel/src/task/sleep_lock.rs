//! A lock whose holder may sleep.

use super::wait::{WaitQueue, WaitReason};
use crate::sync::model::atomic::{AtomicBool, Ordering};

/// A lock for long work: whoever finds it taken sleeps, and whoever holds it may. It has no contents; what it protects is
/// said where it stands.
///
/// No spin lock may be held by whoever takes it. Spin locks come after it.
#[derive(Debug)]
pub struct SleepLock {
    taken: AtomicBool,
    waiters: WaitQueue,
}

/// The lock is held until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct SleepGuard<'a>(&'a SleepLock);

impl SleepLock {
    /// Free; `reason` is what those wait for who find it taken.
    #[cfg(not(loom))]
    pub const fn new(reason: &'static WaitReason) -> Self {
        Self {
            taken: AtomicBool::new(false),
            waiters: WaitQueue::new(reason),
        }
    }

    /// Free; `reason` is what those wait for who find it taken.
    #[cfg(loom)]
    pub fn new(reason: &'static WaitReason) -> Self {
        Self {
            taken: AtomicBool::new(false),
            waiters: WaitQueue::new(reason),
        }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// It has to wait while a spin lock is held.
    #[track_caller]
    pub fn lock(&self) -> SleepGuard<'_> {
        self.waiters.wait_until(|| self.take());
        SleepGuard(self)
    }

    /// Waits for the lock; `None` if the current task is killed first. Its holder may wait for somebody who never comes.
    ///
    /// # Panics
    /// It has to wait while a spin lock is held.
    #[track_caller]
    pub fn lock_unless_killed(&self) -> Option<SleepGuard<'_>> {
        let task = super::current();
        let look = || match self.take() {
            Some(()) => Some(true),
            None => task.is_killed().then_some(false),
        };
        self.waiters.wait_until(look).then(|| SleepGuard(self))
    }

    /// Takes the lock if it is free.
    fn take(&self) -> Option<()> {
        // Acquire: what the last holder did is visible.
        self.taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(drop)
    }
}

impl Drop for SleepGuard<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.waiters.wake_one();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::task::spawn::spawn_returning;

    static REASON: WaitReason = WaitReason("a test");

    #[test]
    fn who_is_killed_waits_for_no_lock_and_does_not_release_it() {
        let lock = Arc::new(SleepLock::new(&REASON));
        let held = lock.lock();
        let waiter = {
            let lock = Arc::clone(&lock);
            spawn_returning("waiter", None, move || lock.lock_unless_killed().is_none()).unwrap()
        };
        waiter.task().kill();
        assert_eq!(waiter.join().ok(), Some(true));
        assert!(lock.take().is_none(), "it is held still");
        drop(held);
        assert!(lock.take().is_some());
    }
}
