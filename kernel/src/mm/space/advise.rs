//! What tasks say about areas.

use super::Space;
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, Vma, VmaFlags};

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
    /// An area is of a kind that this cannot be said of; those before it were changed (EINVAL).
    Unfit,
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

    /// Goes through the areas of `range` and has `set` hold and `unset` not hold of each, if it is `fit`.
    ///
    /// # Errors
    /// See [`AdviseError`]; what lies before the area that is refused is changed, as on Linux.
    pub fn advise(
        &self,
        range: VirtRange,
        set: VmaFlags,
        unset: VmaFlags,
        fit: impl Fn(&Vma) -> bool,
    ) -> Result<(), AdviseError> {
        let mut vmas = self.vmas.write();
        let (mut at, mut mapped) = (range.start, 0);
        while at < range.end {
            let next = vmas.at_or_above(at);
            let Some(vma) = next.filter(|vma| vma.range.start < range.end) else {
                break;
            };
            let part = VirtRange::new(at.max(vma.range.start), vma.range.end.min(range.end));
            if !fit(vma) {
                return Err(AdviseError::Unfit);
            }
            let new = (vma.flags | set) - unset;
            if new != vma.flags {
                if !vmas.can_part_at_ends_of(part) {
                    return Err(AdviseError::SplitsPage);
                }
                vmas.update(part, |vma| vma.flags = new)?;
            }
            mapped += part.len();
            at = part.end;
        }
        if mapped == range.len() {
            Ok(())
        } else {
            Err(AdviseError::NotMapped)
        }
    }

    /// Whether everything in `range` is mapped, and every area of it `fit`, asked in the order in which they lie.
    ///
    /// # Errors
    /// See [`AdviseError`].
    pub fn check_each(&self, range: VirtRange, fit: impl Fn(&Vma) -> bool) -> Result<(), AdviseError> {
        let vmas = self.vmas.read();
        if !vmas.overlapping(range).all(fit) {
            return Err(AdviseError::Unfit);
        }
        if vmas.mapped_in(range) == range.len() {
            Ok(())
        } else {
            Err(AdviseError::NotMapped)
        }
    }
}
