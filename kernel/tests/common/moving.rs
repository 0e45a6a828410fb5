//! Two ranges of a space, and moving pages from the one to the other.

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::pt::Entry;
use kernel::mm::range::VirtRange;
use kernel::uffd::{Features, Modes, MoveMode, Outcome, Uffd};

use super::{RW, World, page, populate};

const P: u64 = PAGE_SIZE;

/// No mode.
pub const NOW: MoveMode = MoveMode::empty();
/// What is not there counts as moved.
pub const HOLES: MoveMode = MoveMode::ALLOW_SRC_HOLES;

/// A registered destination with nothing in it, and a source that is not registered, far away from it.
pub struct Bed {
    pub dst: VirtRange,
    pub src: VirtRange,
    pub uffd: Uffd,
    pub world: World,
}

impl Bed {
    pub fn new(pages: u64) -> Self {
        Self::with(pages, Modes::MISSING)
    }

    pub fn with(pages: u64, modes: Modes) -> Self {
        let world = World::new();
        let dst = world.map_at(Some(VirtAddr::new(0x5000_0000_0000)), pages, RW);
        let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), pages, RW);
        let uffd = Uffd::new(&world.space, Features::WP_UNPOPULATED);
        uffd.register(dst, modes).expect("anonymous memory can");
        Self {
            dst,
            src,
            uffd,
            world,
        }
    }

    /// The same, with words 1, 2, ... in the pages of the source.
    pub fn full(pages: u64) -> Self {
        let bed = Self::new(pages);
        populate(&bed.world, bed.src);
        bed
    }

    /// Moves `pages` pages from page `from` of the source to page `to` of the destination.
    pub fn move_pages(&self, to: u64, from: u64, pages: u64, mode: MoveMode) -> Outcome {
        self.move_at(page(self.dst, to), page(self.src, from), pages * P, mode)
    }

    pub fn move_at(&self, dst: VirtAddr, src: VirtAddr, len: u64, mode: MoveMode) -> Outcome {
        self.uffd.move_pages(&self.world.space, dst, src, len, mode)
    }

    pub fn entry(&self, addr: VirtAddr) -> Entry {
        self.world.space.entry(addr).0
    }
}
