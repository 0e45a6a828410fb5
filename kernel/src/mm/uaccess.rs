//! Task memory as the kernel reaches it: an allegation until it is copied.
//!
//! A [`VirtAddr`] that a task gave may be anything. The functions here refuse what lies outside the tasks' half before
//! they touch it; everything else is found out by touching, and a touch that fails is an [`AccessError`], not a panic. A
//! touch may sleep, like any other of the task's: the page may be delegated. No lock may be held, but for
//! [`read_at_once`].
//!
//! The accesses count as the task's own: most tasks are the kernel's and reach their memory like this. What the kernel
//! does for a task, as in a system call, it marks with [`on_behalf`]; userfault contexts may tell the two apart.
#![expect(
    unsafe_code,
    reason = "copies between kernel memory and addresses that tasks name"
)]

use core::fmt;
use core::mem::MaybeUninit;

use super::addr::{USER_TOP, VirtAddr};
use super::fault::{FaultError, Origin, last_error};
use crate::arch::{Machine, TaskMemory};
use crate::task::{self, Current};
use crate::uffd::OriginBefore;

/// Why memory of the current task could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError {
    /// The address that failed.
    pub addr: VirtAddr,
    /// Why.
    pub why: FaultError,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access to {} failed: {}", self.addr, self.why)
    }
}

#[inline]
fn check(addr: VirtAddr, len: usize) -> Result<(), AccessError> {
    match addr.checked_add(len as u64) {
        Some(end) if end <= USER_TOP => Ok(()),
        _ => Err(AccessError {
            addr,
            why: FaultError::Unmapped,
        }),
    }
}

#[cold]
fn failed(addr: VirtAddr) -> AccessError {
    let (addr, why) = last_error().unwrap_or((addr, FaultError::Unmapped));
    AccessError { addr, why }
}

/// Copies from task memory.
///
/// # Errors
/// A byte could not be read; those before it are in `dst`.
#[inline]
pub fn read(src: VirtAddr, dst: &mut [u8]) -> Result<(), AccessError> {
    check(src, dst.len())?;
    // SAFETY: `dst` is valid for its length.
    match unsafe { Machine::copy_in(dst.as_mut_ptr(), src, dst.len()) } {
        0 => Ok(()),
        left => Err(failed(src + (dst.len() - left) as u64)),
    }
}

/// Copies words from task memory, aligned or not.
///
/// # Errors
/// One could not be read.
#[inline]
pub fn read_words<const N: usize>(src: VirtAddr) -> Result<[u64; N], AccessError> {
    read_words_into(src, &mut MaybeUninit::uninit()).copied()
}

/// [`read_words`] of so many that they are not moved again.
///
/// # Errors
/// As there.
#[inline]
pub fn read_words_into<const N: usize>(
    src: VirtAddr,
    room: &mut MaybeUninit<[u64; N]>,
) -> Result<&[u64; N], AccessError> {
    let len = size_of::<[u64; N]>();
    check(src, len)?;
    // SAFETY: there is room for the words.
    match unsafe { Machine::copy_in(room.as_mut_ptr().cast(), src, len) } {
        // SAFETY: every byte of them was written.
        0 => Ok(unsafe { room.assume_init_ref() }),
        left => Err(failed(src + (len - left) as u64)),
    }
}

/// [`read`] for somebody who must not sleep: nobody is asked for what is not there. Says whether all of it was. With a lock
/// held.
#[inline]
pub fn read_at_once(src: VirtAddr, dst: &mut [u8]) -> bool {
    // SAFETY: `dst` is valid for its length.
    check(src, dst.len()).is_ok()
        && unsafe { Machine::copy_in_at_once(dst.as_mut_ptr(), src, dst.len()) } == 0
}

/// Copies to task memory.
///
/// # Errors
/// A byte could not be written; those before it are.
#[inline]
pub fn write(dst: VirtAddr, src: &[u8]) -> Result<(), AccessError> {
    check(dst, src.len())?;
    // SAFETY: `src` is valid for its length.
    match unsafe { Machine::copy_out(dst, src.as_ptr(), src.len()) } {
        0 => Ok(()),
        left => Err(failed(dst + (src.len() - left) as u64)),
    }
}

/// Loads an aligned word with one instruction.
///
/// # Errors
/// It could not be read.
#[inline]
pub fn load(src: VirtAddr) -> Result<u64, AccessError> {
    check(src, 8)?;
    Machine::load_u64(src).ok_or_else(|| failed(src))
}

/// Stores an aligned word with one instruction.
///
/// # Errors
/// It could not be written.
#[inline]
pub fn store(dst: VirtAddr, value: u64) -> Result<(), AccessError> {
    check(dst, 8)?;
    if Machine::store_u64(dst, value) {
        Ok(())
    } else {
        Err(failed(dst))
    }
}

/// Has the accesses in `work` count as the kernel's on the current task's behalf ([`Origin::Kernel`]).
#[inline]
pub fn on_behalf<R>(work: impl FnOnce() -> R) -> R {
    on_account_of(Origin::Kernel, work)
}

/// Has the accesses in `work` fail where a monitor would have to be waited for ([`Origin::NoRetry`]).
pub fn without_waiting<R>(work: impl FnOnce() -> R) -> R {
    on_account_of(Origin::NoRetry, work)
}

/// Has the accesses in `work` count as the task's own ([`Origin::Task`]), whatever it is doing just now.
pub(crate) fn as_the_task<R>(work: impl FnOnce() -> R) -> R {
    on_account_of(Origin::Task, work)
}

/// Has the accesses in `work` count as `origin` says.
#[inline]
fn on_account_of<R>(origin: Origin, work: impl FnOnce() -> R) -> R {
    struct Restore(Current, OriginBefore);
    impl Drop for Restore {
        #[inline]
        fn drop(&mut self) {
            self.0.fault.restore_origin(self.1);
        }
    }
    let task = task::current();
    let before = task.fault.set_origin(origin);
    let _restored = Restore(task, before);
    work()
}
