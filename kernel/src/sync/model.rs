//! The atomics and locks of code whose interleavings are explored.
//!
//! Under `--cfg loom` these are loom's, otherwise the kernel's own, so that the source that runs in the kernel is the
//! source that loom tries in every order. Only what has such a test uses them: [`mod@crate::task::park`],
//! [`mod@crate::task::wait`] (and what is built on them), and the queue of [`crate::uffd`].

#[cfg(loom)]
pub use loom::sync::atomic;

#[cfg(not(loom))]
pub use core::sync::atomic;

/// A lock that interrupt handlers may take.
#[cfg(not(loom))]
pub type Lock<T> = super::IrqLock<T>;

/// A lock that only tasks take.
#[cfg(not(loom))]
pub type SpinLock<T> = super::SpinLock<T>;

/// The same for loom.
#[cfg(loom)]
pub type SpinLock<T> = Lock<T>;

/// For loom, where there are no interrupts.
#[cfg(loom)]
#[derive(Debug)]
pub struct Lock<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Lock<T> {
    /// An unlocked lock around `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("a model that panicked has ended")
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}
