//! Locked memory: pages that stay once they are there.
//!
//! Nothing here takes pages away to save memory, so a lock changes what others may do: MOVE goes only between areas that
//! are both locked or both not, and locked memory is neither discarded nor guarded without saying so.

use core::sync::atomic::Ordering;

use super::Space;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::memtype::Granule;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, Vma, VmaFlags};

/// How memory is locked.
pub const LOCKS: VmaFlags = VmaFlags::LOCKED.union(VmaFlags::LOCKED_ON_FAULT);

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
        self.set_lock(range, VmaFlags::LOCKED)
    }

    /// Ends what [`Self::lock`] began.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn unlock(&self, range: VirtRange) -> Result<(), LockError> {
        self.set_lock(range, VmaFlags::empty())
    }

    /// Has `lock`, of [`LOCKS`], hold in `range`, and nothing else of them.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn set_lock(&self, range: VirtRange, lock: VmaFlags) -> Result<(), LockError> {
        if !Self::is_nameable(range) {
            return Err(LockError::BadRange);
        }
        let mut vmas = self.vmas.write();
        let mut at = range.start;
        while at < range.end {
            let vma = vmas.find(at).ok_or(LockError::NotMapped)?;
            let part = VirtRange::new(at, vma.range.end.min(range.end));
            let new = (vma.flags - LOCKS) | lock;
            if vma.ty.granule() == Granule::Base && vma.flags != new {
                vmas.update(part, |vma| vma.flags = new)?;
            }
            at = part.end;
        }
        Ok(())
    }

    /// [`Self::set_lock`] on everything that is mapped.
    pub fn set_lock_of_all(&self, lock: VmaFlags) {
        let everything = VirtRange::new(VirtAddr::new(0), USER_TOP);
        let new = |vma: &Vma| (vma.flags - LOCKS) | lock;
        self.vmas.write().update_unsplit(
            everything,
            |vma| vma.ty.granule() == Granule::Base && vma.flags != new(vma),
            |vma| vma.flags = new(vma),
        );
    }

    /// The flags of `LOCKS` that everything gets that will be mapped.
    pub fn lock_of_future(&self) -> VmaFlags {
        VmaFlags::from_bits_truncate(self.lock_of_future.load(Ordering::Relaxed))
    }

    /// Sets them.
    pub fn set_lock_of_future(&self, lock: VmaFlags) {
        self.lock_of_future.store(lock.bits(), Ordering::Relaxed);
    }
}
