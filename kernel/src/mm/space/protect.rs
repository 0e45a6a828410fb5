//! Changing the rights of mapped memory.

use super::Space;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::pt::{Flush, Prot, SplitError};
use crate::mm::range::VirtRange;
use crate::mm::vma::TooManyVmas;

/// Why rights did not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectError {
    /// The range is empty, not page-aligned, or outside what tasks may map.
    BadRange,
    /// Part of the range is not mapped; nothing changed.
    NotMapped,
    /// Splitting areas would leave too many of them; nothing changed.
    TooManyAreas,
    /// A large page could not be split.
    Split(SplitError),
}

impl From<TooManyVmas> for ProtectError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Space {
    /// Gives everything in `range` the rights `prot`. Contents and registrations stay; a task that waits for a page there
    /// stays asleep.
    ///
    /// # Errors
    /// See [`ProtectError`].
    pub fn protect(&self, range: VirtRange, prot: Prot) -> Result<(), ProtectError> {
        if range.is_empty() || !range.is_aligned(PAGE_SIZE) || range.end > Self::window().end {
            return Err(ProtectError::BadRange);
        }
        let prot = super::possible(prot);
        let mut vmas = self.vmas.write();
        let mapped: u64 = vmas
            .overlapping(range)
            .filter_map(|vma| vma.range.intersect(&range))
            .map(|part| part.len())
            .sum();
        if mapped != range.len() {
            return Err(ProtectError::NotMapped);
        }
        vmas.update(range, |vma| vma.prot = prot)?;
        let mut flush = Flush::new();
        let changed = self.table.lock().cursor(range).protect(
            |leaf| {
                // Writing is granted by the next fault, which knows whether the page is shared; taking it away is
                // immediate. Pages that were writable and stay so keep it; those that a userfault context protects were not.
                let keep = if leaf.prot.contains(Prot::WRITE) {
                    Prot::all()
                } else {
                    !Prot::WRITE
                };
                (self.leaf_prot(prot & keep), leaf.attr)
            },
            &mut flush,
        );
        flush.spend(self);
        changed.map_err(ProtectError::Split)
    }
}
