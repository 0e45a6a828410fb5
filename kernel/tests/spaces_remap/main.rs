//! Mappings that move, grow and shrink: contents go along, refusals change nothing (checked on Linux 6.18 unless a test says
//! otherwise).

#[path = "../common/mod.rs"]
mod common;

mod fixed;
mod large;
mod moves;
mod refusals;
mod resizing;
mod staying;
mod translations;

use common::{RW, World, page, populate};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{RemapError, RemapRequest, RemapTo, Space};
use kernel::mm::uaccess;

const P: u64 = PAGE_SIZE;
const H: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// Far from whatever is mapped without being asked for.
const FAR: VirtAddr = VirtAddr::new(0x10_0000_0000);

fn remap(space: &Space, old: VirtRange, len: u64, to: RemapTo) -> Result<VirtRange, RemapError> {
    space.remap(RemapRequest {
        old,
        len,
        to,
        leave_mapped: false,
    })
}

/// Moves `old` away and leaves it mapped without contents.
fn leave(space: &Space, old: VirtRange, to: RemapTo) -> Result<VirtRange, RemapError> {
    space.remap(RemapRequest {
        old,
        len: old.len(),
        to,
        leave_mapped: true,
    })
}

/// A world with so many pages at [`FAR`], of which page n begins with the word n + 1.
fn filled(pages: u64) -> (World, VirtRange) {
    let world = World::new();
    let range = world.map_at(Some(FAR), pages, RW);
    populate(&world, range);
    (world, range)
}

/// The first words of the pages of `range`, `None` where nothing is mapped.
fn words(world: &World, range: VirtRange) -> Vec<Option<u64>> {
    world.run(|| {
        (0..range.pages())
            .map(|i| uaccess::load(page(range, i)).ok())
            .collect()
    })
}

fn some(words: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
    words.into_iter().map(Some).collect()
}

fn to(at: VirtAddr, len: u64) -> VirtRange {
    VirtRange::from_len(at, len).expect("far below the top")
}
