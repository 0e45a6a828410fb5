//! `mlock`, `munlock` and their kind. Locked pages are there when the call returns, so it may wait for a monitor.

use super::super::{Call, Result};
use super::space;
use crate::abi::errno::Errno;
use crate::abi::mman::{LockAllFlags, MLOCK_ONFAULT};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::{LockError, Space};
use crate::mm::vma::VmaFlags;
use crate::uffd::linux::{OnBehalf, on_behalf};

/// `mlock`.
pub fn mlock(call: &mut Call<'_>) -> Result {
    let [start, len, ..] = *call.args;
    lock(&space(call), start, len, VmaFlags::LOCKED)
}

/// `mlock2`.
pub fn mlock2(call: &mut Call<'_>) -> Result {
    let [start, len, flags, ..] = *call.args;
    let flags = match u64::from(flags as u32) {
        0 => VmaFlags::LOCKED,
        MLOCK_ONFAULT => VmaFlags::LOCKED | VmaFlags::LOCKED_ON_FAULT,
        _ => return Err(Errno::EINVAL.into()),
    };
    lock(&space(call), start, len, flags)
}

/// `munlock`.
pub fn munlock(call: &mut Call<'_>) -> Result {
    let [start, len, ..] = *call.args;
    if let Some(range) = whole_pages(start, len)? {
        space(call).set_lock(range, VmaFlags::empty()).map_err(errno)?;
    }
    Ok(0)
}

/// `mlockall`.
pub fn mlockall(call: &mut Call<'_>) -> Result {
    let flags = LockAllFlags::from_bits(u64::from(call.args[0] as u32)).ok_or(Errno::EINVAL)?;
    if flags.is_empty() || flags == LockAllFlags::ONFAULT {
        return Err(Errno::EINVAL.into());
    }
    let space = space(call);
    let mut lock = VmaFlags::LOCKED;
    lock.set(VmaFlags::LOCKED_ON_FAULT, flags.contains(LockAllFlags::ONFAULT));
    space.set_lock_of_future(if flags.contains(LockAllFlags::FUTURE) {
        lock
    } else {
        VmaFlags::empty()
    });
    if flags.contains(LockAllFlags::CURRENT) {
        space.set_lock_of_all(lock);
        if !lock.contains(VmaFlags::LOCKED_ON_FAULT) {
            for area in space.each_area() {
                // What cannot be populated stays as it is (as on Linux).
                let _ = space.populate_to_lock(area.range);
            }
        }
    }
    Ok(0)
}

/// `munlockall`.
pub fn munlockall(call: &mut Call<'_>) -> Result {
    let space = space(call);
    space.set_lock_of_future(VmaFlags::empty());
    space.set_lock_of_all(VmaFlags::empty());
    Ok(0)
}

/// The pages that the bytes from `start` on have a part in; `None` for none.
fn whole_pages(start: u64, len: u64) -> core::result::Result<Option<VirtRange>, Errno> {
    let within = start % PAGE_SIZE;
    let start = start - within;
    let len = len
        .wrapping_add(within)
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(0);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    if len == 0 {
        return Ok(None);
    }
    if end > USER_TOP.as_u64() {
        return Err(Errno::ENOMEM);
    }
    Ok(Some(VirtRange::new(VirtAddr::new(start), VirtAddr::new(end))))
}

fn lock(space: &Space, start: u64, len: u64, flags: VmaFlags) -> Result {
    let Some(range) = whole_pages(start, len)? else {
        return Ok(0);
    };
    space.set_lock(range, flags).map_err(errno)?;
    if !flags.contains(VmaFlags::LOCKED_ON_FAULT) {
        space
            .populate_to_lock(range)
            .map_err(|error| on_behalf(OnBehalf::Lock, error.why))?;
    }
    Ok(0)
}

fn errno(error: LockError) -> Errno {
    match error {
        LockError::BadRange | LockError::NotMapped | LockError::TooManyAreas => Errno::ENOMEM,
    }
}
