//! What can be asked for, and what of it makes sense.

use alloc::collections::TryReserveError;

use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::Granule;
use crate::mm::range::VirtRange;
use crate::mm::space::Space;
use crate::mm::vma::{TooManyVmas, Vma};

/// What is to become of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemapRequest {
    /// What is mapped now; page-aligned. Empty: nothing moves, and what is mapped from its start on is mapped once more.
    pub old: VirtRange,
    /// Bytes that are to be mapped; rounded up to pages.
    pub len: u64,
    /// Where.
    pub to: RemapTo,
    /// The old range stays mapped and loses its contents (`MREMAP_DONTUNMAP`).
    pub leave_mapped: bool,
}

/// Where a mapping is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapTo {
    /// Where it is.
    Here,
    /// Where it is, or elsewhere if there is no room (`MREMAP_MAYMOVE`).
    Anywhere,
    /// There; whatever is mapped there goes (`MREMAP_MAYMOVE | MREMAP_FIXED`).
    At(VirtAddr),
}

/// Why a mapping stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemapError {
    /// The old range is not page-aligned or outside what tasks may map, or the new length is zero or too large (Linux:
    /// EINVAL).
    BadRange,
    /// The fixed place is not page-aligned, ends above what tasks may map (EINVAL), or begins below (EPERM).
    BadPlace,
    /// The old range cannot stay mapped where it does not move, or changes its size (EINVAL).
    CannotStay,
    /// The fixed place shares an address with the old range (EINVAL).
    Overlaps,
    /// Nothing is mapped at the start of the old range (EFAULT).
    NotMapped,
    /// The old range ends past the area that it begins in. Several areas can only be moved to a fixed place as they are, and
    /// only if none of them is registered; those before the first that is have moved (EFAULT).
    SeveralAreas,
    /// Part of a large page would move, or a large page to a place that is none (EINVAL).
    SplitsPage,
    /// Memory in large pages neither grows nor leaves an area behind (EINVAL).
    LargePages,
    /// Only shared memory can be mapped a second time (EINVAL).
    NotShared,
    /// The mapping's end in its object would be past 2^63 (EINVAL).
    BadOffset,
    /// There is no room, or none here (ENOMEM).
    NoRoom,
    /// The space would have too many areas (ENOMEM).
    TooManyAreas,
    /// No memory for tables or for noting who is to be told (ENOMEM). What was at the fixed place, and the tail that was
    /// not wanted, may be gone.
    OutOfMemory,
}

impl From<TooManyVmas> for RemapError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl From<OutOfFrames> for RemapError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

impl From<TryReserveError> for RemapError {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

impl RemapRequest {
    /// The request with its length in whole pages, if it can be one at all.
    pub(super) fn checked(mut self) -> Result<Self, RemapError> {
        let pages = self.len.checked_next_multiple_of(PAGE_SIZE);
        self.len = pages
            .filter(|len| (1..=USER_TOP.as_u64()).contains(len))
            .ok_or(RemapError::BadRange)?;
        if !self.old.is_aligned(PAGE_SIZE) || self.old.end > USER_TOP {
            return Err(RemapError::BadRange);
        }
        if self.leave_mapped && (self.to == RemapTo::Here || self.len != self.old.len()) {
            return Err(RemapError::CannotStay);
        }
        if let RemapTo::At(at) = self.to {
            let new = VirtRange::from_len(at, self.len)
                .filter(|new| new.is_aligned(PAGE_SIZE) && Space::window().covers(new))
                .ok_or(RemapError::BadPlace)?;
            if self.old.overlaps(&new) {
                return Err(RemapError::Overlaps);
            }
        }
        Ok(self)
    }

    /// The request in whole pages of the area's memory type, which it begins with, and what else large pages ask for.
    pub(super) fn in_pages_of(mut self, vma: &Vma) -> Result<Self, RemapError> {
        let Granule::Huge = vma.ty.granule() else {
            return Ok(self);
        };
        let size = Granule::Huge.size();
        let place = match self.to {
            RemapTo::At(at) => at,
            RemapTo::Here | RemapTo::Anywhere => self.old.start,
        };
        if !self.old.start.is_aligned(size) || !place.is_aligned(size) {
            return Err(RemapError::SplitsPage);
        }
        self.old.end = self.old.start + self.old.len().next_multiple_of(size);
        self.len = self.len.next_multiple_of(size);
        if self.len > self.old.len() || self.leave_mapped {
            return Err(RemapError::LargePages);
        }
        Ok(self)
    }
}

/// Whether `kept` of the area can become `len` bytes, here or elsewhere.
pub(super) fn check_move(vma: &Vma, kept: VirtRange, len: u64) -> Result<(), RemapError> {
    if kept.is_empty() && !vma.is_shared() {
        return Err(RemapError::NotShared);
    }
    if kept.end > vma.range.end {
        return Err(RemapError::SeveralAreas);
    }
    let end = vma.offset_of(kept.start).checked_add(len);
    if end.is_none_or(|end| end > i64::MAX as u64) {
        return Err(RemapError::BadOffset);
    }
    Ok(())
}
