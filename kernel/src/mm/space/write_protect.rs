//! Write protection on behalf of a userfault context.
//!
//! A protected page has `UFFD_WP` in the [attributes](crate::mm::pt::AttrFlags) of its leaf and no right to write; a
//! protected page that is not there has the [marker](crate::mm::pt::Marker) `UffdWp` in its entry. Both are dropped when
//! the registration ends, and survive a change of the area's rights. When the page is discarded they are dropped with
//! anonymous memory; a mapping of an object remembers.

use super::Space;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::{Granule, Modes};
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::mm::pt::{Cursor, Prot, Writable};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Registration, Vma};
use crate::uffd::Ctx;

/// Nodes that are asked back when there is none: those of a turn, and of the way to it.
const NODES: u64 = 10;

/// Why a change of write protection stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectStop {
    /// The layout of the space changes.
    Changing,
    /// Nothing is mapped in the range, or an area in it is not registered for write protection.
    NotRegistered,
    /// There is memory in huge pages in the range, whose start and length are not multiples of their size; both, even if
    /// it is areas of other memory that they lie in (Linux: EINVAL).
    Misaligned,
    /// No frame for a node of the tables.
    OutOfMemory,
}

impl From<OutOfFrames> for ProtectStop {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

impl Space {
    /// Protects the pages of `range` for `ctx`, area by area; the absent ones too where the context that the area is
    /// registered with wants that.
    ///
    /// No lock may be held: when there is no frame for a node, everything is let go of, and the areas are looked up again
    /// from there on.
    ///
    /// # Errors
    /// See [`ProtectStop`]; what comes before the area, or the page, that failed is protected.
    pub fn write_protect(&self, range: VirtRange, ctx: &Ctx) -> Result<(), ProtectStop> {
        let (mut from, mut reliefs) = (range.start, 0);
        loop {
            let result = self.each_registered(range, from, ctx, |registration, vma, part| {
                // Pages of an object may be in its cache: there, absence says nothing.
                let unpopulated = vma.backing.is_some() || registration.ctx.protects_unpopulated();
                let absent = unpopulated.then(|| vma.ty.granule().level());
                let turns = match absent {
                    Some(_) => Self::turns_everywhere(part),
                    None => self.turns(part),
                };
                for turn in turns {
                    let protect = |cursor: &mut Cursor<'_, _>, flush: &mut _| {
                        let done = cursor.write_protect(absent, flush);
                        from = cursor.addr();
                        done
                    };
                    self.change(turn, protect)?;
                }
                Ok(())
            });
            let short = result == Err(ProtectStop::OutOfMemory);
            if !short || reliefs == MAX_RELIEFS || !pressure::relieve(NODES) {
                return result;
            }
            reliefs += 1;
        }
    }

    /// Ends the protection of the pages of `range` for `ctx`, area by area.
    ///
    /// # Errors
    /// See [`ProtectStop`]; the areas before the one that failed are changed.
    #[inline]
    pub fn remove_write_protection(&self, range: VirtRange, ctx: &Ctx) -> Result<(), ProtectStop> {
        if range.len() == PAGE_SIZE {
            return self.unprotect_page(range, ctx);
        }
        self.each_registered(range, range.start, ctx, |_, vma, part| {
            self.unprotect_part(vma, part);
            Ok(())
        })
    }

    /// The answer to a single fault: no loop over areas or pages.
    #[inline]
    fn unprotect_page(&self, page: VirtRange, ctx: &Ctx) -> Result<(), ProtectStop> {
        let vmas = self.vmas.read();
        if ctx.is_changing() {
            return Err(ProtectStop::Changing);
        }
        let vma = vmas.find(page.start).filter(|vma| may_protect(vma).is_some());
        let vma = vma.ok_or(ProtectStop::NotRegistered)?;
        if vma.ty.granule() != Granule::Base {
            return Err(ProtectStop::Misaligned);
        }
        self.table.lock().write_unprotect_page(page.start, writable(vma));
        Ok(())
    }

    /// Ends all protection in part of an area whose registration goes; it may end within a page, which counts. The caller holds the
    /// areas exclusively.
    pub(crate) fn forget_write_protection(&self, vma: &Vma, part: VirtRange) {
        let end = part.end.align_up(vma.ty.granule().size());
        let end = end.expect("areas end with their pages");
        self.unprotect_part(vma, VirtRange::new(part.start, end));
    }

    /// Calls `change` for the part of each area in `range` from `from` on, before which everything is done.
    fn each_registered(
        &self,
        range: VirtRange,
        from: VirtAddr,
        ctx: &Ctx,
        mut change: impl FnMut(&Registration, &Vma, VirtRange) -> Result<(), ProtectStop>,
    ) -> Result<(), ProtectStop> {
        let vmas = self.vmas.read();
        if ctx.is_changing() {
            return Err(ProtectStop::Changing);
        }
        let rest = VirtRange::new(from, range.end);
        let mut any = from > range.start;
        for vma in vmas.overlapping(rest) {
            let (Some(registration), Some(part)) = (may_protect(vma), vma.range.intersect(&rest)) else {
                return Err(ProtectStop::NotRegistered);
            };
            if !range.is_aligned(vma.ty.granule().size()) {
                return Err(ProtectStop::Misaligned);
            }
            change(registration, vma, part)?;
            any = true;
        }
        if any {
            Ok(())
        } else {
            Err(ProtectStop::NotRegistered)
        }
    }

    fn unprotect_part(&self, vma: &Vma, part: VirtRange) {
        for turn in self.turns(part) {
            self.table.lock().cursor(turn).write_unprotect(writable(vma));
        }
    }
}

/// The area's registration, if it is one for write protection.
#[inline]
fn may_protect(vma: &Vma) -> Option<&Registration> {
    vma.uffd.as_ref().filter(|old| old.modes.contains(Modes::WP))
}

/// Which pages of the area may be written at once when their protection ends, so that the store that was stopped does not
/// fault a second time: pages that are everybody's, or that have no other owner.
#[inline]
pub(super) fn writable(vma: &Vma) -> Writable {
    if !vma.prot.contains(Prot::WRITE) {
        Writable::Nothing
    } else if vma.is_shared() {
        Writable::Everything
    } else {
        Writable::Unshared
    }
}
