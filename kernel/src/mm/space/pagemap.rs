//! What `/proc/pid/pagemap` says of a page: a pure function.
//!
//! | bits | meaning |
//! | --- | --- |
//! | 0-54 | present: the frame's number, for whoever may know it; else, with bit 62, a marker as swap type 31 and its number |
//! | 56 | only this entry maps the page |
//! | 57 | write-protected by a userfault context |
//! | 58 | a guard page |
//! | 61 | a page of a memory object |
//! | 62 | not present, and something is remembered |
//! | 63 | present |
//!
//! Checked against Linux 6.18. Of huge-page memory that is not present it tells the protection only, as there.

use super::Space;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::cache::Lookup;
use crate::mm::frame::allocator;
use crate::mm::memtype::Granule;
use crate::mm::pt::{AttrFlags, Entry, Leaf, Marker};
use crate::mm::range::VirtRange;

const EXCLUSIVE: u64 = 1 << 56;
const UFFD_WP: u64 = 1 << 57;
const GUARD: u64 = 1 << 58;
const FILE: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;
/// The swap type that stands for "a marker" on Linux for this architecture.
const MARKER_TYPE: u64 = 31;
const OFFSET_SHIFT: u32 = 5;

/// What the word says of a page beside its entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageFacts {
    /// The frame of this very page, if the reader may know it.
    pub frame: Option<u64>,
    /// The page belongs to a memory object.
    pub file: bool,
    /// Nobody else maps it.
    pub exclusive: bool,
}

/// The word of a page in memory of this granule, whose entry is `entry`.
pub fn pagemap_word(entry: &Entry, granule: Granule, facts: PageFacts) -> u64 {
    let bit = |is: bool, bit: u64| if is { bit } else { 0 };
    match entry {
        Entry::Leaf(leaf) => {
            PRESENT
                | bit(leaf.attr.flags.contains(AttrFlags::UFFD_WP), UFFD_WP)
                | bit(facts.file, FILE)
                | bit(facts.exclusive, EXCLUSIVE)
                | facts.frame.unwrap_or(0)
        }
        Entry::Absent(Marker::None) | Entry::Table(_) => 0,
        Entry::Absent(marker) => {
            // A bit each on Linux: write-protected, poisoned, guard.
            let (offset, also) = match marker {
                Marker::UffdWp => (1, UFFD_WP),
                Marker::Guard => (4, GUARD),
                Marker::Poison | Marker::None => (2, 0),
            };
            match granule {
                Granule::Base => SWAPPED | also | offset << OFFSET_SHIFT | MARKER_TYPE,
                Granule::Huge => also & UFFD_WP,
            }
        }
    }
}

impl Space {
    /// The word of the page at `addr`, with its frame if `show_frames`; 0 where nothing is mapped.
    pub fn pagemap(&self, addr: VirtAddr, show_frames: bool) -> u64 {
        let vmas = self.vmas.read();
        let Some(vma) = vmas.find(addr) else { return 0 };
        let table = self.table.lock();
        let (entry, level) = table.lookup(addr);
        let facts = match entry {
            Entry::Leaf(leaf) => {
                let within = (addr.as_u64() & (level.size() - 1)) / PAGE_SIZE;
                let owned = !leaf.attr.is_borrowed();
                let file = owned && allocator().is_cached(leaf.frame);
                PageFacts {
                    frame: show_frames.then(|| leaf.frame.as_u64() + within),
                    file,
                    // The cache is an owner, but maps nothing. The entry owns one as long as the table is locked.
                    exclusive: owned && allocator().owners(leaf.frame) - u32::from(file) == 1,
                }
            }
            _ => PageFacts::default(),
        };
        pagemap_word(&entry, vma.ty.granule(), facts)
    }
}

impl Space {
    /// Base pages that entries lead to, shared ones too (Linux: the resident set).
    pub fn mapped_pages(&self) -> u64 {
        let vmas = self.vmas.read();
        let mut pages = 0;
        for vma in vmas.iter() {
            self.each_leaf(vma.range, |_, count| pages += count);
        }
        pages
    }

    /// Calls `f` for each leaf in `range`, in one pass over the tables, with the base pages of it that lie there. The tables are
    /// locked: `f` takes no lock and is short.
    pub fn each_leaf(&self, range: VirtRange, mut f: impl FnMut(&Leaf, u64)) {
        for turn in self.turns(range) {
            let mut table = self.table.lock();
            let mut cursor = table.cursor(turn);
            while !cursor.is_done() {
                let at = cursor.addr();
                let (entry, level) = cursor.entry();
                cursor.advance(level);
                if let Entry::Leaf(leaf) = &entry {
                    f(leaf, (cursor.addr().min(turn.end) - at) / PAGE_SIZE);
                }
            }
        }
    }

    /// Whether a touch of the page at `addr` would find it, here or in the cache of its object (Linux: `mincore`); `None`
    /// where nothing is mapped.
    pub fn is_resident(&self, addr: VirtAddr) -> Option<bool> {
        let vmas = self.vmas.read();
        let vma = vmas.find(addr)?;
        if self.table.lock().lookup(addr).0.is_leaf() {
            return Some(true);
        }
        let Some(backing) = vma.backing.as_ref().filter(|_| vma.ty.granule() == Granule::Base) else {
            return Some(false);
        };
        let offset = vma.offset_of(addr.align_down(PAGE_SIZE));
        Some(matches!(
            vma.ty.lookup(&backing.object, offset),
            Lookup::Present(_)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::addr::Pfn;
    use crate::mm::pt::{Attr, Leaf, Prot};

    fn leaf(flags: AttrFlags) -> Entry {
        Entry::Leaf(Leaf {
            frame: Pfn::new(0x1d7dc6),
            prot: Prot::READ,
            attr: Attr::flags(flags),
        })
    }

    fn absent(marker: Marker, granule: Granule) -> u64 {
        pagemap_word(&Entry::Absent(marker), granule, PageFacts::default())
    }

    #[test]
    fn markers_of_base_pages_read_as_linux_has_them() {
        assert_eq!(absent(Marker::None, Granule::Base), 0);
        assert_eq!(absent(Marker::UffdWp, Granule::Base), 0x4200_0000_0000_003f);
        assert_eq!(absent(Marker::Poison, Granule::Base), 0x4000_0000_0000_005f);
        assert_eq!(absent(Marker::Guard, Granule::Base), 0x4400_0000_0000_009f);
    }

    #[test]
    fn of_absent_huge_pages_only_the_protection_shows() {
        assert_eq!(absent(Marker::None, Granule::Huge), 0);
        assert_eq!(absent(Marker::UffdWp, Granule::Huge), 0x0200_0000_0000_0000);
        assert_eq!(absent(Marker::Poison, Granule::Huge), 0);
    }

    #[test]
    fn a_present_page_shows_protection_object_exclusiveness_and_frame() {
        let own = PageFacts {
            frame: Some(0x1d7dc6),
            file: false,
            exclusive: true,
        };
        let word = |flags, facts| pagemap_word(&leaf(flags), Granule::Base, facts);
        assert_eq!(word(AttrFlags::UFFD_WP, own), 0x8300_0000_001d_7dc6);
        assert_eq!(word(AttrFlags::DIRTY, own), 0x8100_0000_001d_7dc6);
        let shared = PageFacts {
            frame: None,
            file: true,
            exclusive: false,
        };
        assert_eq!(word(AttrFlags::UFFD_WP, shared), 0xa200_0000_0000_0000);
    }
}
