//! Changing the rights of mapped memory.

use super::Space;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::fault::{Access, Origin};
use crate::mm::pt::{Leaf, Prot};
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, Vma, VmaFlags, VmaSet};

/// Why rights did not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectError {
    /// The range is empty, not page-aligned, or outside what tasks may map.
    BadRange,
    /// Part of the range is not mapped; nothing changed.
    NotMapped,
    /// An end of the range lies inside a large page; no rights changed (Linux: EINVAL).
    SplitsPage,
    /// The right to write is wanted, and something in the range maps an object that may only be read; nothing changed
    /// (EACCES).
    ReadOnly,
    /// Splitting areas would leave too many of them; nothing changed.
    TooManyAreas,
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
        if !Self::is_nameable(range) {
            return Err(ProtectError::BadRange);
        }
        let mut vmas = self.vmas.write();
        if vmas.mapped_in(range) != range.len() {
            return Err(ProtectError::NotMapped);
        }
        self.protect_part(&mut vmas, range, prot)
    }

    /// [`Self::protect`], area by area as Linux does it: what lies before the first area that cannot have the rights has
    /// them when this fails. Locked private memory that can be written from now on gets its pages at once.
    ///
    /// # Errors
    /// See [`ProtectError`].
    pub fn protect_each(&self, range: VirtRange, prot: Prot) -> Result<(), ProtectError> {
        if range.is_empty() || !range.is_aligned(PAGE_SIZE) {
            return Err(ProtectError::BadRange);
        }
        let mut vmas = self.vmas.write();
        let mut at = range.start;
        while at < range.end {
            let vma = vmas.find(at).ok_or(ProtectError::NotMapped)?;
            let part = VirtRange::new(at, vma.range.end.min(range.end));
            let is_to_fill = lacks_pages_to_write(vma, prot);
            // What has the rights is not even split.
            if vma.prot != super::possible(prot) {
                self.protect_part(&mut vmas, part, prot)?;
            }
            if is_to_fill {
                drop(vmas);
                // As far as that goes without asking anybody.
                let _ = self.populate_as(part, Access::Write, Origin::NoRetry);
                vmas = self.vmas.write();
            }
            at = part.end;
        }
        Ok(())
    }

    /// Gives `range`, all of which is mapped, the rights `prot`.
    fn protect_part(&self, vmas: &mut VmaSet, range: VirtRange, prot: Prot) -> Result<(), ProtectError> {
        let prot = super::possible(prot);
        if !vmas.can_part_at_ends_of(range) {
            return Err(ProtectError::SplitsPage);
        }
        let (writes, executes) = (prot.contains(Prot::WRITE), prot.contains(Prot::EXEC));
        let forbids =
            |vma: &Vma| writes && vma.flags.contains(VmaFlags::READ_ONLY) || executes && vma.ty.is_secret();
        if vmas.overlapping(range).any(forbids) {
            return Err(ProtectError::ReadOnly);
        }
        vmas.update(range, |vma| {
            vma.prot = prot;
            if prot.contains(Prot::WRITE) && vma.is_accountable() {
                vma.flags |= VmaFlags::ACCOUNTED;
            } else if !prot.contains(Prot::WRITE) && vma.backing.is_none() && vma.anon.is_unset() {
                // It will not need what was set aside for it.
                vma.flags -= VmaFlags::ACCOUNTED;
            }
        })?;
        let rights = |leaf: &Leaf| {
            // Writing is granted by the next fault, which knows whether the page is shared; taking it away is immediate.
            // Pages that were writable and stay so keep it; those that a userfault context protects were not.
            let keep = if leaf.prot.contains(Prot::WRITE) {
                Prot::all()
            } else {
                !Prot::WRITE
            };
            (self.leaf_prot(prot & keep), leaf.attr)
        };
        for turn in self.turns(range) {
            self.change(turn, |cursor, flush| cursor.protect(rights, flush))
                .expect("no leaf reaches beyond its area");
        }
        Ok(())
    }
}

/// Whether pages of the area that are locked will have to be copied once it has the right to write: private ones that could only
/// be read so far.
fn lacks_pages_to_write(vma: &Vma, prot: Prot) -> bool {
    vma.is_locked_at_once()
        && !vma.is_shared()
        && prot.contains(Prot::WRITE)
        && !vma.prot.contains(Prot::WRITE)
}
