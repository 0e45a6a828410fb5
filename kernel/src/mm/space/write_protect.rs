//! Write protection on behalf of a userfault context.
//!
//! A protected page has [`AttrFlags::UFFD_WP`] in its leaf and no right to write; a protected page that is not there has
//! [`Marker::UffdWp`] in its entry. Both are dropped when the registration ends, and survive a change of the area's
//! rights. When the page is discarded they are dropped with anonymous memory; a mapping of an object remembers.

use super::Space;
use crate::arch::Stage1;
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::Modes;
use crate::mm::pt::{Attr, AttrFlags, Cursor, Entry, Flush, Leaf, Level, Marker, Prot};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Registration, Vma};
use crate::uffd::Ctx;

/// Why a change of write protection stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtectStop {
    /// The layout of the space changes.
    Changing,
    /// Nothing is mapped in the range, or an area in it is not registered for write protection.
    NotRegistered,
    /// The range cuts through a huge page.
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
    /// # Errors
    /// See [`ProtectStop`]; areas before the one that failed are protected.
    pub fn write_protect(&self, range: VirtRange, ctx: &Ctx) -> Result<(), ProtectStop> {
        self.each_registered(range, ctx, |registration, vma, part| {
            // Pages of an object may be in its cache: there, absence says nothing.
            let unpopulated = vma.backing.is_some() || registration.ctx.protects_unpopulated();
            self.protect_part(part, vma.ty.granule().level(), unpopulated)
        })
    }

    /// Ends the protection of the pages of `range` for `ctx`, area by area.
    ///
    /// # Errors
    /// See [`ProtectStop`]; the areas before the one that failed are changed.
    pub fn remove_write_protection(&self, range: VirtRange, ctx: &Ctx) -> Result<(), ProtectStop> {
        self.each_registered(range, ctx, |_, vma, part| {
            self.unprotect_part(vma, part);
            Ok(())
        })
    }

    /// Ends all protection in an area whose registration goes. The caller holds the areas exclusively.
    pub(crate) fn forget_write_protection(&self, vma: &Vma) {
        self.unprotect_part(vma, vma.range);
    }

    fn each_registered(
        &self,
        range: VirtRange,
        ctx: &Ctx,
        mut change: impl FnMut(&Registration, &Vma, VirtRange) -> Result<(), ProtectStop>,
    ) -> Result<(), ProtectStop> {
        let vmas = self.vmas.read();
        if ctx.is_changing() {
            return Err(ProtectStop::Changing);
        }
        let mut any = false;
        for vma in vmas.overlapping(range) {
            let registration = vma.uffd.as_ref().filter(|old| old.modes.contains(Modes::WP));
            let (Some(registration), Some(part)) = (registration, vma.range.intersect(&range)) else {
                return Err(ProtectStop::NotRegistered);
            };
            if !part.is_aligned(vma.ty.granule().size()) {
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

    fn protect_part(&self, part: VirtRange, level: Level, unpopulated: bool) -> Result<(), ProtectStop> {
        let mut flush = Flush::new();
        let mut table = self.table.lock();
        table.cursor(part).transform(&mut flush, |seen| match seen.entry {
            Entry::Leaf(leaf) => {
                let flags = leaf.attr.flags | AttrFlags::UFFD_WP;
                Some(Entry::Leaf(Leaf {
                    prot: leaf.prot - Prot::WRITE,
                    attr: Attr { flags, ..leaf.attr },
                    ..leaf
                }))
            }
            _ => None,
        });
        let marked = if unpopulated {
            mark_absent(&mut table.cursor(part), level)
        } else {
            Ok(())
        };
        drop(table);
        // Also after a failure: what was protected must not stay writable anywhere.
        flush.spend(self);
        Ok(marked?)
    }

    fn unprotect_part(&self, vma: &Vma, part: VirtRange) {
        let mut flush = Flush::new();
        let mut table = self.table.lock();
        table.cursor(part).transform(&mut flush, |seen| match seen.entry {
            Entry::Leaf(leaf) if leaf.attr.flags.contains(AttrFlags::UFFD_WP) => {
                let prot = self.leaf_prot(unprotected(vma, &leaf, seen.owners()));
                let flags = leaf.attr.flags - AttrFlags::UFFD_WP;
                Some(Entry::Leaf(Leaf {
                    prot,
                    attr: Attr { flags, ..leaf.attr },
                    ..leaf
                }))
            }
            Entry::Absent(Marker::UffdWp) => Some(Entry::EMPTY),
            _ => None,
        });
        drop(table);
        flush.spend(self);
    }
}

/// Marks every absent page from the cursor to its end as protected; `level` is that of the area's leaves.
fn mark_absent(cursor: &mut Cursor<'_, Stage1>, level: Level) -> Result<(), OutOfFrames> {
    while !cursor.is_done() {
        match cursor.entry() {
            (Entry::Absent(Marker::None), _) => {
                cursor.mark(level, Marker::UffdWp)?;
                cursor.advance(level);
            }
            (_, found) => cursor.advance(found),
        }
    }
    Ok(())
}

/// Rights of a page whose protection ends: writing at once where the page is everybody's or has no other owner, so that the
/// store that was stopped does not fault a second time. A page that was forked waits for that fault, which makes it the
/// space's own.
fn unprotected(vma: &Vma, leaf: &Leaf, owners: u32) -> Prot {
    let own = owners == 1 && !leaf.attr.flags.contains(AttrFlags::FORKED);
    if own || vma.is_shared() {
        vma.prot
    } else {
        vma.prot - Prot::WRITE
    }
}
