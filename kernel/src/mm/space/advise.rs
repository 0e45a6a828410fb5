//! What tasks say about areas.

use super::Space;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, VmaFlags};

/// Why areas were not changed, or not all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdviseError {
    /// The range is empty, not page-aligned, or outside what tasks may map (Linux: EINVAL, but an empty one is fine).
    BadRange,
    /// Part of the range is not mapped; everything around it was changed (ENOMEM).
    NotMapped,
    /// An end of the range lies inside a large page; nothing changed (EINVAL).
    SplitsPage,
    /// Splitting areas would leave too many of them; nothing changed (EAGAIN).
    TooManyAreas,
}

impl From<TooManyVmas> for AdviseError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Space {
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
