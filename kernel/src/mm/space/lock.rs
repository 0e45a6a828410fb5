//! Locked memory: pages that stay once they are there.
//!
//! Nothing here takes pages away to save memory, so a lock changes what others may do: MOVE goes only between areas that
//! are both locked or both not, and locked memory is neither discarded nor guarded without saying so.

use super::Space;
use crate::mm::memtype::Granule;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, VmaFlags};

/// Why memory was not locked or unlocked, or not all of it: what lies before the error is changed, as on Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockError {
    /// The range is empty, not page-aligned, or outside what tasks may map (Linux: EINVAL, but an empty one is fine).
    BadRange,
    /// There is a hole in the range (ENOMEM).
    NotMapped,
    /// Splitting an area would leave too many of them (ENOMEM).
    TooManyAreas,
}

impl From<TooManyVmas> for LockError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Space {
    /// Locks `range` (Linux: `mlock2` with `MLOCK_ONFAULT`). No page is populated: whoever wants that touches them, and may
    /// sleep over it. Huge pages stay anyway and are passed over.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock(&self, range: VirtRange) -> Result<(), LockError> {
        self.set_locked(range, true)
    }

    /// Ends what [`Self::lock`] began.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn unlock(&self, range: VirtRange) -> Result<(), LockError> {
        self.set_locked(range, false)
    }

    fn set_locked(&self, range: VirtRange, locked: bool) -> Result<(), LockError> {
        if !Self::is_nameable(range) {
            return Err(LockError::BadRange);
        }
        let mut vmas = self.vmas.write();
        let mut at = range.start;
        while at < range.end {
            let vma = vmas.find(at).ok_or(LockError::NotMapped)?;
            let part = VirtRange::new(at, vma.range.end.min(range.end));
            if vma.ty.granule() == Granule::Base {
                vmas.update(part, |vma| vma.flags.set(VmaFlags::LOCKED, locked))?;
            }
            at = part.end;
        }
        Ok(())
    }
}
