//! Changing many entries in place, node by node.

use super::cursor::{Cursor, Place};
use super::flush::Flush;
use super::format::{AttrFlags, Entry, Leaf, Level, PtFormat};
use super::node::ENTRIES;
use crate::mm::addr::{PAGE_SIZE, Pfn};
use crate::mm::frame::allocator;

/// An entry that a transformation looks at.
#[derive(Debug)]
pub struct Seen {
    /// What it says.
    pub entry: Entry,
}

impl Seen {
    /// How many owners the leaf's folio has; 0 for borrowed leaves and absent entries.
    #[inline]
    pub fn owners(&self) -> u32 {
        match self.entry {
            Entry::Leaf(leaf) if !leaf.attr.is_borrowed() => allocator().owners(leaf.frame),
            _ => 0,
        }
    }
}

impl<F: PtFormat> Cursor<'_, F> {
    /// Replaces every entry from the cursor to the end of its range by what `change` makes of it; `None` leaves it. A leaf
    /// stays a leaf with its frame and its owner, an absent entry stays absent. Whole absent nodes are passed over, and
    /// leaves above page level, which must lie in the range, are changed like others.
    ///
    /// `change` may be asked more than once about an entry, when the hardware sets a bit meanwhile: none is lost.
    #[inline]
    pub fn transform(&mut self, flush: &mut Flush<F::Addr>, mut change: impl FnMut(&Seen) -> Option<Entry>) {
        while !self.is_done() {
            let place = self.current_place();
            if place.level > Level::PAGE {
                self.transform_one(&place, flush, &mut change);
                self.advance(place.level);
                continue;
            }
            let pages = self.remaining_pages().min((ENTRIES - place.index) as u64);
            let mut changed = 0;
            for index in place.index..place.index + pages as usize {
                changed += u64::from(transform_at(&Place { index, ..place }, &mut change));
            }
            if changed > 0 {
                flush.touch_run(self.position(), pages * PAGE_SIZE, changed);
            }
            self.skip_pages(pages);
        }
    }

    fn transform_one(
        &self,
        place: &Place<F>,
        flush: &mut Flush<F::Addr>,
        change: &mut impl FnMut(&Seen) -> Option<Entry>,
    ) {
        if transform_at(place, change) {
            let start = self.position() & !(place.level.size() - 1);
            flush.touch_run(start, place.level.size(), 1);
        }
    }
}

/// Changes one entry; true when a leaf changed, whose old translation may be cached.
#[inline(always)]
fn transform_at<F: PtFormat>(place: &Place<F>, change: &mut impl FnMut(&Seen) -> Option<Entry>) -> bool {
    loop {
        let raw = place.node.raw(place.index);
        let entry = F::decode(raw, place.level);
        let new = match (entry, change(&Seen { entry })) {
            (_, None) | (Entry::Table(_), _) => return false,
            (Entry::Leaf(old), Some(Entry::Leaf(new))) => {
                Entry::Leaf(same_owner(old.frame, old.attr.flags, new))
            }
            (Entry::Absent(_), Some(new @ Entry::Absent(_))) => new,
            _ => unreachable!("a transformation that maps or unmaps"),
        };
        if new == entry {
            return false;
        }
        if place.node.exchange(place.index, place.level, raw, &new) {
            return entry.is_leaf();
        }
    }
}

/// `new`, but with the frame and the ownership of the old leaf.
#[inline(always)]
fn same_owner(frame: Pfn, old: AttrFlags, mut new: Leaf) -> Leaf {
    new.frame = frame;
    new.attr.flags = (new.attr.flags - AttrFlags::BORROWED) | (old & AttrFlags::BORROWED);
    new
}
