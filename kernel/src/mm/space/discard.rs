//! Dropping the contents of memory that stays mapped: the operations behind Linux's `madvise`.
//!
//! | operation | Linux | areas that it takes | what it does |
//! | --- | --- | --- | --- |
//! | [`Space::discard`] | `MADV_DONTNEED` | all but locked ones | empties the entries |
//! | [`Space::discard_locked`] | `MADV_DONTNEED_LOCKED` | all | the same |
//! | [`Space::discard_lazily`] | `MADV_FREE` | unlocked ones of anonymous memory | makes the pages clean |
//! | [`Space::punch`] | `MADV_REMOVE` | unlocked shared ones of objects that may be written | punches holes into the objects |
//!
//! They go through the range area by area. A context that asked for [`Features::EVENT_REMOVE`] is told of each part of an
//! area that is registered with it, before anything happens there: the pages are still mapped until the event is read. No
//! lock is held meanwhile, so the area is looked up again afterwards: it may be another one, or end earlier.
//!
//! What becomes of markers stands in [`zap`](super::zap). Nobody who waits is woken by any of this.

use alloc::sync::Arc;

use super::Space;
use super::zap::Zap;
use crate::mm::addr::VirtAddr;
use crate::mm::cache::PunchError;
use crate::mm::memtype::Granule;
use crate::mm::pt::{Attr, AttrFlags, Entry, Leaf, Marker};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Vma, VmaFlags, VmaSet};
use crate::sync::ReadGuard;
use crate::uffd::{Change, Event, Features};

/// Why contents were not dropped, or not everywhere: those before the area that is refused are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiscardError {
    /// The range is empty, not page-aligned, or outside what tasks may map (Linux: EINVAL, but an empty one is fine).
    BadRange,
    /// Part of the range is not mapped, and everything around it was dropped; or what was mapped there went away while its
    /// context was told (ENOMEM).
    NotMapped,
    /// An area is locked (EINVAL).
    Locked,
    /// The range begins inside a large page (EINVAL).
    InsidePage,
    /// Only anonymous memory can be let go of lazily (EINVAL).
    NotAnonymous,
    /// There is no object behind an area to punch holes into (EINVAL).
    NoObject,
    /// An area maps its object privately, or may never write to it (EACCES).
    NotWritable,
    /// The object cannot have the hole.
    Unpunchable(PunchError),
}

/// How contents are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Now { locked_too: bool },
    Lazily,
}

impl Space {
    /// Drops the contents of `range`: the next touch finds anonymous memory as if newly mapped, and of an object what its
    /// cache has. Registrations stay. A large page that the range only begins to cover is left alone.
    ///
    /// # Errors
    /// See [`DiscardError`].
    ///
    /// # Panics
    /// There is a context to tell, and a lock is held. So with all of these operations.
    pub fn discard(&self, range: VirtRange) -> Result<(), DiscardError> {
        let how = How::Now { locked_too: false };
        self.each_part(range, |vmas, part| self.drop_part(vmas, part, how))
    }

    /// [`Self::discard`], of locked memory too.
    ///
    /// # Errors
    /// See [`DiscardError`].
    pub fn discard_locked(&self, range: VirtRange) -> Result<(), DiscardError> {
        let how = How::Now { locked_too: true };
        self.each_part(range, |vmas, part| self.drop_part(vmas, part, how))
    }

    /// Says that the pages of `range` may go unless they are written again. They become clean, and stay until memory is
    /// taken back from tasks, which this kernel never does: contents and write protection remain. Poison goes at once.
    ///
    /// # Errors
    /// See [`DiscardError`]. Memory of objects in base pages is refused after its context was told, as on Linux.
    pub fn discard_lazily(&self, range: VirtRange) -> Result<(), DiscardError> {
        self.each_part(range, |vmas, part| self.drop_part(vmas, part, How::Lazily))
    }

    /// Punches holes into the objects behind `range`, as [`Object::punch`](crate::mm::cache::Object::punch) does: their
    /// pages are gone from every mapping. An area's context is told first, and the hole is punched even if the area is
    /// another one once it knows (as on Linux).
    ///
    /// # Errors
    /// See [`DiscardError`]; nobody is told of an area that is refused.
    pub fn punch(&self, range: VirtRange) -> Result<(), DiscardError> {
        self.each_part(range, |vmas, part| {
            let vma = vmas.find(part.start).ok_or(DiscardError::NotMapped)?;
            if vma.flags.contains(VmaFlags::LOCKED) {
                return Err(DiscardError::Locked);
            }
            let backing = vma.backing.as_ref().ok_or(match vma.ty.ends_before_fills() {
                true => DiscardError::NotWritable,
                false => DiscardError::NoObject,
            })?;
            if !vma.is_shared() || vma.flags.contains(VmaFlags::READ_ONLY) {
                return Err(DiscardError::NotWritable);
            }
            let (object, offset) = (Arc::clone(&backing.object), vma.offset_of(part.start));
            let change = removal(vma);
            drop(vmas);
            if let Some(change) = change {
                self.announce_removal(change, part);
            }
            object
                .punch(offset, part.len())
                .map_err(DiscardError::Unpunchable)?;
            Ok(part.end)
        })
    }

    /// Calls `visit` for the part of each area in `range`, with the areas locked; it returns where to go on. Holes are
    /// passed over, and reported at the end.
    fn each_part(
        &self,
        range: VirtRange,
        mut visit: impl FnMut(ReadGuard<'_, VmaSet>, VirtRange) -> Result<VirtAddr, DiscardError>,
    ) -> Result<(), DiscardError> {
        if !Self::is_nameable(range) {
            return Err(DiscardError::BadRange);
        }
        let (mut at, mut holes) = (range.start, false);
        while at < range.end {
            let rest = VirtRange::new(at, range.end);
            let vmas = self.vmas.read();
            let Some(part) = first_part(&vmas, rest) else {
                return Err(DiscardError::NotMapped);
            };
            holes |= part.start > at;
            at = visit(vmas, part)?;
        }
        if holes {
            Err(DiscardError::NotMapped)
        } else {
            Ok(())
        }
    }

    /// Drops the contents of `part`, which lies in one area. Returns where to go on.
    fn drop_part(
        &self,
        vmas: ReadGuard<'_, VmaSet>,
        part: VirtRange,
        how: How,
    ) -> Result<VirtAddr, DiscardError> {
        let vma = vmas.find(part.start).ok_or(DiscardError::NotMapped)?;
        let Some(pages) = how.admits(vma, part)? else {
            return Ok(part.end);
        };
        let Some(change) = removal(vma) else {
            self.drop_pages(vma, pages, how)?;
            return Ok(part.end);
        };
        drop(vmas);
        self.announce_removal(change, pages);
        let vmas = self.vmas.read();
        let vma = vmas.find(pages.start).ok_or(DiscardError::NotMapped)?;
        let part = VirtRange::new(pages.start, pages.end.min(vma.range.end));
        if let Some(pages) = how.admits(vma, part)? {
            self.drop_pages(vma, pages, how)?;
        }
        Ok(part.end)
    }

    fn drop_pages(&self, vma: &Vma, pages: VirtRange, how: How) -> Result<(), DiscardError> {
        match how {
            How::Now { .. } => self.zap(vma, pages, Zap::discarding(vma)),
            How::Lazily if vma.backing.is_some() => return Err(DiscardError::NotAnonymous),
            How::Lazily => self.make_clean(pages),
        }
        Ok(())
    }

    /// Takes the marks of use off the pages that nobody else has, and poison out of the entries without one.
    fn make_clean(&self, pages: VirtRange) {
        for turn in self.turns(pages) {
            self.change(turn, |cursor, flush| {
                cursor.transform(flush, |seen| match seen.entry {
                    Entry::Leaf(leaf) if seen.owners() == 1 => {
                        let flags = leaf.attr.flags - AttrFlags::ACCESSED - AttrFlags::DIRTY;
                        Some(Entry::Leaf(Leaf {
                            attr: Attr { flags, ..leaf.attr },
                            ..leaf
                        }))
                    }
                    Entry::Absent(Marker::Poison) => Some(Entry::EMPTY),
                    _ => None,
                });
            });
        }
    }

    /// Tells a context that the contents of `pages` are about to go, and waits until it knows. No lock is held.
    fn announce_removal(&self, change: Change, pages: VirtRange) {
        // The change began with the areas locked for reading, beside fills that had looked before. Once the lock was had
        // for writing, they are through, and others are refused.
        drop(self.vmas.write());
        change.announce(Event::Remove { range: pages });
    }
}

impl How {
    /// The pages of `part` of the area that it may drop; `None` when there is no whole one.
    fn admits(self, vma: &Vma, part: VirtRange) -> Result<Option<VirtRange>, DiscardError> {
        let size = match vma.ty.granule() {
            Granule::Base
                if vma.flags.contains(VmaFlags::LOCKED) && self != (Self::Now { locked_too: true }) =>
            {
                return Err(DiscardError::Locked);
            }
            Granule::Huge if self == Self::Lazily => return Err(DiscardError::NotAnonymous),
            granule => granule.size(),
        };
        if !part.start.is_aligned(size) {
            return Err(DiscardError::InsidePage);
        }
        let pages = VirtRange::new(part.start, part.end.align_down(size));
        Ok((!pages.is_empty()).then_some(pages))
    }
}

/// The part of the first area that has one in `range`.
fn first_part(vmas: &VmaSet, range: VirtRange) -> Option<VirtRange> {
    vmas.overlapping(range).next()?.range.intersect(&range)
}

/// The change that a context wants to be told of before contents of the area are dropped.
fn removal(vma: &Vma) -> Option<Change> {
    let registration = vma.uffd.as_ref()?;
    Change::begin(&registration.ctx, Features::EVENT_REMOVE)
}
