//! What tasks say about areas: that their pages stay, that forks leave them out.

use super::Space;
use crate::mm::memtype::Granule;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, VmaFlags};

/// Why areas do not have a flag now, or not all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdviseError {
    /// The range is empty, not page-aligned, or outside what tasks may map (Linux: EINVAL, but an empty one is fine).
    BadRange,
    /// Part of the range is not mapped (ENOMEM). Locking has stopped there; leaving out of forks has not.
    NotMapped,
    /// An end of the range lies inside a large page; nothing changed (EINVAL).
    SplitsPage,
    /// Splitting areas would leave too many of them (ENOMEM of locking, EAGAIN of advice).
    TooManyAreas,
}

impl From<TooManyVmas> for AdviseError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Space {
    /// Says that the pages of `range` stay, or that they need not stay any longer (Linux: `mlock` and `munlock`, without
    /// the touching). Nothing is ever taken back here, so this only counts where it is asked for: discarding, guards, and
    /// moving pages between areas. Large pages stay anyway, and are passed over.
    ///
    /// # Errors
    /// See [`AdviseError`].
    pub fn set_locked(&self, range: VirtRange, locked: bool) -> Result<(), AdviseError> {
        if !Self::is_nameable(range) {
            return Err(AdviseError::BadRange);
        }
        let mut vmas = self.vmas.write();
        let mut at = range.start;
        while at < range.end {
            let Some(vma) = vmas.find(at) else {
                return Err(AdviseError::NotMapped);
            };
            let part = VirtRange::new(at, vma.range.end.min(range.end));
            if vma.ty.granule() == Granule::Base {
                vmas.update(part, |vma| vma.flags.set(VmaFlags::LOCKED, locked))?;
            }
            at = part.end;
        }
        Ok(())
    }

    /// Has forks leave `range` out, or not any longer (`MADV_DONTFORK`, `MADV_DOFORK`).
    ///
    /// # Errors
    /// See [`AdviseError`].
    pub fn set_left_out_of_forks(&self, range: VirtRange, left_out: bool) -> Result<(), AdviseError> {
        if !Self::is_nameable(range) {
            return Err(AdviseError::BadRange);
        }
        let mut vmas = self.vmas.write();
        if !vmas.can_split_at_ends_of(range) {
            return Err(AdviseError::SplitsPage);
        }
        vmas.update(range, |vma| vma.flags.set(VmaFlags::DONT_FORK, left_out))?;
        if vmas.mapped_in(range) == range.len() {
            Ok(())
        } else {
            Err(AdviseError::NotMapped)
        }
    }
}
