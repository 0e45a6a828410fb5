//! Locks.
//!
//! | type | while it is held | for |
//! | --- | --- | --- |
//! | [`SpinLock`] | preemption is off on this CPU | data that only tasks touch |
//! | [`RwLock`] | preemption is off on this CPU | the same, mostly read |
//! | [`IrqLock`] | interrupts are off on this CPU | data that interrupt handlers touch too |
//!
//! No lock may be held where a task can sleep: a delegated fault drops every guard first. The locks are `spin`'s; this
//! module adds what a kernel needs around them.
#![expect(
    unsafe_code,
    reason = "guards drop the inner guard before they restore preemption or interrupts"
)]

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::arch::{Cpu, Irq, Machine};

pub mod model;
mod published;
mod registry;

pub use published::Published;
pub use registry::Registry;
pub use spin::Once;

/// A spin lock that keeps the holder on its CPU.
#[derive(Default, Debug)]
pub struct SpinLock<T>(spin::Mutex<T>);

/// Access to what a [`SpinLock`] protects.
#[must_use]
pub struct SpinGuard<'a, T>(ManuallyDrop<spin::MutexGuard<'a, T>>);

impl<T> SpinLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        Machine::preempt_disable();
        SpinGuard(ManuallyDrop::new(self.0.lock()))
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        Machine::preempt_disable();
        match self.0.try_lock() {
            Some(guard) => Some(SpinGuard(ManuallyDrop::new(guard))),
            None => {
                Machine::preempt_enable();
                None
            }
        }
    }

    /// The value, for whoever owns the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// The value, out of the lock.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else; the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.0) };
        Machine::preempt_enable();
    }
}

/// A spin lock that is also taken by interrupt handlers.
#[derive(Default, Debug)]
pub struct IrqLock<T>(spin::Mutex<T>);

/// Access to what an [`IrqLock`] protects.
#[must_use]
pub struct IrqGuard<'a, T> {
    guard: ManuallyDrop<spin::MutexGuard<'a, T>>,
    flags: <Machine as Irq>::Flags,
}

impl<T> IrqLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let flags = Machine::disable();
        IrqGuard {
            guard: ManuallyDrop::new(self.0.lock()),
            flags,
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let flags = Machine::disable();
        match self.0.try_lock() {
            Some(guard) => Some(IrqGuard {
                guard: ManuallyDrop::new(guard),
                flags,
            }),
            None => {
                Machine::restore(flags);
                None
            }
        }
    }
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for IrqGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else; the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        Machine::restore(self.flags);
    }
}

/// A reader-writer spin lock that keeps its holders on their CPUs.
#[derive(Default, Debug)]
pub struct RwLock<T>(spin::RwLock<T>);

/// Shared access to what a [`RwLock`] protects.
#[must_use]
pub struct ReadGuard<'a, T>(ManuallyDrop<spin::RwLockReadGuard<'a, T>>);

/// Exclusive access to what a [`RwLock`] protects.
#[must_use]
pub struct WriteGuard<'a, T>(ManuallyDrop<spin::RwLockWriteGuard<'a, T>>);

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(spin::RwLock::new(value))
    }

    /// Waits for shared access.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        Machine::preempt_disable();
        ReadGuard(ManuallyDrop::new(self.0.read()))
    }

    /// Waits for exclusive access.
    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        Machine::preempt_disable();
        WriteGuard(ManuallyDrop::new(self.0.write()))
    }

    /// The value, for whoever owns the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else; the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.0) };
        Machine::preempt_enable();
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else; the field is not used again.
        unsafe { ManuallyDrop::drop(&mut self.0) };
        Machine::preempt_enable();
    }
}
