//! `mremap`.

use super::super::{Call, Result};
use super::{in_pages, space};
use crate::abi::errno::Errno;
use crate::abi::mman::RemapFlags;
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::range::VirtRange;
use crate::mm::space::{RemapError, RemapRequest, RemapTo};

/// `mremap`.
pub fn mremap(call: &mut Call<'_>) -> Result {
    let [old, old_len, new_len, flags, place, _] = *call.args;
    let flags = RemapFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let old_len = in_pages(old_len).ok_or(Errno::EINVAL)?;
    let new_len = in_pages(new_len).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
    let top = USER_TOP.as_u64();
    if !old.is_multiple_of(PAGE_SIZE) || new_len > top {
        return Err(Errno::EINVAL.into());
    }
    let fixed = flags.contains(RemapFlags::FIXED);
    let stays = flags.contains(RemapFlags::DONTUNMAP);
    if fixed || stays {
        let bad_place = place > top - new_len || !place.is_multiple_of(PAGE_SIZE);
        if bad_place || !flags.contains(RemapFlags::MAYMOVE) || stays && old_len != new_len {
            return Err(Errno::EINVAL.into());
        }
    }
    let space = space(call);
    let start = VirtAddr::new(old);
    let Some(range) = VirtRange::from_len(start, old_len).filter(|range| range.end <= USER_TOP) else {
        // Nothing is mapped up to there. A mapping that becomes shorter finds out when it unmaps the rest.
        return match () {
            () if space.query(start).is_none() => Err(Errno::EFAULT.into()),
            () if new_len < old_len => Err(Errno::EINVAL.into()),
            () if new_len == old_len && !fixed && !stays => Ok(old),
            () => Err(Errno::EFAULT.into()),
        };
    };
    let to = if fixed {
        RemapTo::At(VirtAddr::new(place))
    } else if flags.contains(RemapFlags::MAYMOVE) {
        RemapTo::Anywhere
    } else {
        RemapTo::Here
    };
    let moved = space.remap(RemapRequest {
        old: range,
        len: new_len,
        to,
        leave_mapped: stays,
    });
    let moved = moved.map_err(errno)?;
    if let Some(more) = VirtRange::from_len(moved.start + old_len, new_len.saturating_sub(old_len))
        && !more.is_empty()
        && space.query(more.start).is_some_and(|vma| vma.is_locked_at_once())
    {
        // As far as that goes: the mapping is longer in any case.
        let _ = space.populate_to_lock(more);
    }
    Ok(moved.start.as_u64())
}

fn errno(error: RemapError) -> Errno {
    match error {
        RemapError::BadRange
        | RemapError::BadPlace
        | RemapError::CannotStay
        | RemapError::Overlaps
        | RemapError::SplitsPage
        | RemapError::LargePages
        | RemapError::NotShared
        | RemapError::BadOffset => Errno::EINVAL,
        RemapError::NotMapped | RemapError::SeveralAreas => Errno::EFAULT,
        RemapError::NoRoom | RemapError::TooManyAreas | RemapError::OutOfMemory => Errno::ENOMEM,
    }
}
