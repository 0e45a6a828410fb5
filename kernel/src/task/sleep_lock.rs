//! A lock whose holder may sleep.

use super::wait::{WaitQueue, WaitReason};
use crate::sync::model::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// Taken, and somebody may wait.
const AWAITED: u8 = 2;

/// A lock for long work: whoever finds it taken sleeps, and whoever holds it may. It has no contents; what it protects is
/// said where it stands.
///
/// No spin lock may be held by whoever takes it. Spin locks come after it.
#[derive(Debug)]
pub struct SleepLock {
    state: AtomicU8,
    waiters: WaitQueue,
}

/// The lock is held until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct SleepGuard<'a>(&'a SleepLock);

impl SleepLock {
    /// Free; `reason` is what those wait for who find it taken: no signal lets them do without, but perhaps a fatal one.
    #[cfg(not(loom))]
    pub const fn new(reason: &'static WaitReason) -> Self {
        Self {
            state: AtomicU8::new(FREE),
            waiters: WaitQueue::new(reason),
        }
    }

    /// Free; `reason` is what those wait for who find it taken: no signal lets them do without, but perhaps a fatal one.
    #[cfg(loom)]
    pub fn new(reason: &'static WaitReason) -> Self {
        Self {
            state: AtomicU8::new(FREE),
            waiters: WaitQueue::new(reason),
        }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// It has to wait while a spin lock is held.
    #[track_caller]
    #[inline]
    pub fn lock(&self) -> SleepGuard<'_> {
        if !self.try_take() {
            self.waiters.wait_until(|| self.take().then_some(()));
        }
        SleepGuard(self)
    }

    /// Waits for the lock; `None` if the current task is killed first. Its holder may wait for somebody who never comes.
    ///
    /// # Panics
    /// It has to wait while a spin lock is held.
    #[track_caller]
    #[inline]
    pub fn lock_unless_killed(&self) -> Option<SleepGuard<'_>> {
        let taken = self.try_take() || self.wait_unless_killed();
        taken.then(|| SleepGuard(self))
    }

    /// Takes the lock if it is free, also with a spin lock held.
    #[inline]
    pub fn try_lock(&self) -> Option<SleepGuard<'_>> {
        self.try_take().then(|| SleepGuard(self))
    }

    #[track_caller]
    #[cold]
    fn wait_unless_killed(&self) -> bool {
        let task = super::current();
        let look = || match self.take() {
            true => Some(true),
            false => task.is_killed().then_some(false),
        };
        self.waiters.wait_until(look)
    }

    /// Takes the lock if it is free.
    #[inline]
    fn try_take(&self) -> bool {
        // Acquire: what the last holder did is visible.
        self.state
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// The same for one who waits otherwise: whoever has the lock wakes somebody when he leaves it, this one too, behind whom
    /// others may wait.
    fn take(&self) -> bool {
        // Acquire: as above.
        self.state.swap(AWAITED, Ordering::Acquire) == FREE
    }
}

impl Drop for SleepGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == AWAITED {
            self.0.waiters.wake_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::task::spawn::spawn_returning;

    static REASON: WaitReason = WaitReason::new("a test");

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
        assert!(!lock.try_take(), "it is held still");
        drop(held);
        assert!(lock.try_take());
    }
}
