//! `mprotect`.

use super::super::{Call, Result};
use super::{in_pages, rights, space};
use crate::abi::errno::Errno;
use crate::abi::mman::Protection;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::ProtectError;
use crate::mm::vma::VmaFlags;

/// `mprotect`. What lies before the first area that cannot have the rights has them when it fails.
pub fn mprotect(call: &mut Call<'_>) -> Result {
    let [start, len, protection, ..] = *call.args;
    protect(call, start, len, protection)
}

/// `pkey_mprotect`: there are no keys but the one that everything has.
pub fn pkey_mprotect(call: &mut Call<'_>) -> Result {
    let [start, len, protection, key, ..] = *call.args;
    let key = key as u32 as i32;
    if key != -1 && key != 0 {
        return Err(Errno::EINVAL.into());
    }
    protect(call, start, len, protection)
}

/// `pkey_alloc`: as on a CPU without keys.
pub fn pkey_alloc(_call: &mut Call<'_>) -> Result {
    Err(Errno::EINVAL.into())
}

/// `pkey_free`: none was given.
pub fn pkey_free(_call: &mut Call<'_>) -> Result {
    Err(Errno::EINVAL.into())
}

fn protect(call: &Call<'_>, start: u64, len: u64, protection: u64) -> Result {
    let extends = Protection::GROWSDOWN | Protection::GROWSUP;
    let wanted = Protection::from_bits_retain(protection);
    if wanted.contains(extends) || !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let end = in_pages(len)
        .and_then(|len| start.checked_add(len))
        .filter(|end| *end > start);
    let mut range = VirtRange::new(VirtAddr::new(start), VirtAddr::new(end.ok_or(Errno::ENOMEM)?));
    if !(Protection::all()).contains(wanted) {
        return Err(Errno::EINVAL.into());
    }
    let space = space(call);
    if wanted.contains(Protection::GROWSUP) {
        return Err(Errno::EINVAL.into());
    }
    if wanted.contains(Protection::GROWSDOWN) {
        let below = space.first_from(range.start).ok_or(Errno::ENOMEM)?;
        if below.range.start >= range.end || !below.flags.contains(VmaFlags::GROWS_DOWN) {
            return Err(Errno::EINVAL.into());
        }
        range.start = below.range.start;
    }
    space
        .protect_each(range, rights(protection))
        .map_err(|error| match error {
            ProtectError::BadRange | ProtectError::NotMapped | ProtectError::TooManyAreas => Errno::ENOMEM,
            ProtectError::SplitsPage => Errno::EINVAL,
            ProtectError::ReadOnly => Errno::EACCES,
        })?;
    Ok(0)
}
