//! A shared slot for a reference to something that lives for ever.

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Holds `None` or a `&'static T`; both ends need no lock.
pub struct Published<T>(AtomicPtr<T>);

impl<T> Published<T> {
    /// Holds nothing.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Makes everybody see `value`.
    #[inline]
    pub fn set(&self, value: &'static T)
    where
        T: Sync,
    {
        self.0.store(ptr::from_ref(value).cast_mut(), Ordering::Release);
    }

    /// What was set last.
    #[inline]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null or from a `&'static T` (`set` is the only writer); never used to write.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
