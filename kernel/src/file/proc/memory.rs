//! How much memory a process has, of which kind.

use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::allocator;
use crate::mm::memtype::Granule;
use crate::mm::pt::{AttrFlags, Leaf};
use crate::mm::space::Space;
use crate::mm::vma::Vma;

/// Pages that are mapped, by kind. The shared page of zeros does not count, as on Linux.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    pub referenced: u64,
    pub anonymous: u64,
    pub anonymous_huge: u64,
    /// Pages of memory objects.
    pub file: u64,
    /// Pages of the pool, which count nowhere else.
    pub shared_pool: u64,
    pub private_pool: u64,
    /// Bytes, each page divided by those who map it.
    pub proportional: u64,
    pub proportional_dirty: u64,
}

/// Pages of a huge one.
const HUGE: u64 = Granule::Huge.size() / PAGE_SIZE;

impl Counts {
    /// Of an area.
    pub fn of(space: &Space, area: &Vma) -> Self {
        let mut counts = Self::default();
        space.each_leaf(area.range, |leaf, pages| {
            if !leaf.attr.is_borrowed() {
                counts.count(area, leaf, pages);
            }
        });
        counts
    }

    fn count(&mut self, area: &Vma, leaf: &Leaf, pages: u64) {
        let cached = allocator().is_cached(leaf.frame);
        // The cache is an owner, but maps nothing.
        let owners = allocator().owners(leaf.frame).saturating_sub(u32::from(cached));
        let mappers = u64::from(owners.max(1));
        if area.ty.granule() == Granule::Huge {
            if mappers > 1 || area.is_shared() {
                self.shared_pool += pages;
            } else {
                self.private_pool += pages;
            }
            return;
        }
        let flags = leaf.attr.flags;
        let dirty = !cached || flags.contains(AttrFlags::DIRTY);
        match (mappers > 1, dirty) {
            (true, false) => self.shared_clean += pages,
            (true, true) => self.shared_dirty += pages,
            (false, false) => self.private_clean += pages,
            (false, true) => self.private_dirty += pages,
        }
        if flags.contains(AttrFlags::ACCESSED) {
            self.referenced += pages;
        }
        if cached {
            self.file += pages;
        } else {
            self.anonymous += pages;
            if pages == HUGE {
                self.anonymous_huge += pages;
            }
        }
        let share = pages * PAGE_SIZE / mappers;
        self.proportional += share;
        if dirty {
            self.proportional_dirty += share;
        }
    }

    /// All that count as resident.
    pub fn resident(&self) -> u64 {
        self.shared_clean + self.shared_dirty + self.private_clean + self.private_dirty
    }

    /// Those of the pool.
    pub fn pool(&self) -> u64 {
        self.shared_pool + self.private_pool
    }

    /// Adds another area's.
    pub fn add(&mut self, other: &Self) {
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.anonymous_huge += other.anonymous_huge;
        self.file += other.file;
        self.shared_pool += other.shared_pool;
        self.private_pool += other.private_pool;
        self.proportional += other.proportional;
        self.proportional_dirty += other.proportional_dirty;
    }
}
