//! Pages that a load maps beside its own, as Linux 6.18 does (`do_fault_around`).

mod common;

use std::sync::Arc;

use common::{RW, World, missing, object_world, page, returned};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::memtype::{hugetlb::HUGETLB, shmem::SHMEM};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Uffd};

const P: u64 = PAGE_SIZE;
/// A place where a window of 16 pages begins.
const AT: VirtAddr = VirtAddr::new(0x2000_0000_0000);

/// An object of so many pages, of which these are in use.
fn object(pages: u64, in_use: &[u64]) -> Arc<Object> {
    let object = Object::new(&SHMEM, pages * P);
    for page in in_use {
        assert_eq!(object.write(page * P, &[7]), (1, Ok(())));
    }
    object
}

/// The pages of the range that are mapped.
fn mapped(world: &World, range: VirtRange) -> Vec<u64> {
    (0..range.pages())
        .filter(|index| world.space.pagemap(page(range, *index), false) >> 63 == 1)
        .collect()
}

#[test]
fn a_load_maps_the_pages_around_it_that_the_cache_has() {
    let world = object_world();
    let memory = Memory::shared(&object(40, &[0, 3, 5, 15, 16]));
    let range = world.map_memory(memory, Some(AT), 40, RW);
    assert_eq!(world.load(page(range, 3)), Ok(7));
    assert_eq!(mapped(&world, range), [0, 3, 5, 15]);
    assert_eq!(
        world.store(page(range, 5), 9),
        Ok(()),
        "they may be written at once"
    );
    assert_eq!(world.load(page(range, 20)), Ok(0));
    assert_eq!(mapped(&world, range), [0, 3, 5, 15, 16, 20]);
}

#[test]
fn the_window_begins_with_the_area_where_that_is_later_and_is_as_long() {
    let world = object_world();
    let memory = Memory::shared(&object(40, &[0, 15, 16, 17]));
    let range = world.map_memory(memory, Some(AT + 2 * P), 40, RW);
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(mapped(&world, range), [0, 1, 15]);
}

#[test]
fn a_store_maps_its_own_page_alone() {
    let world = object_world();
    for memory in [
        Memory::shared(&object(8, &[1, 2])),
        Memory::private(&object(8, &[1, 2])),
    ] {
        let range = world.map_memory(memory, None, 8, RW);
        assert_eq!(world.store(page(range, 1), 9), Ok(()));
        assert_eq!(mapped(&world, range), [1]);
    }
}

#[test]
fn a_private_mapping_copies_what_was_mapped_around_before_it_writes() {
    let world = object_world();
    let object = object(8, &[1, 2]);
    let range = world.map_memory(Memory::private(&object), Some(AT), 8, RW);
    assert_eq!(world.load(page(range, 1)), Ok(7));
    assert_eq!(mapped(&world, range), [1, 2]);
    assert_eq!(world.store(page(range, 2), 9), Ok(()));
    let mut byte = [0];
    assert_eq!(object.read(2 * P, &mut byte), 1);
    assert_eq!(byte, [7]);
}

#[test]
fn what_was_allocated_ahead_of_use_and_what_is_past_the_end_is_left_out() {
    let world = object_world();
    let object = object(8, &[1]);
    assert_eq!(object.allocate(2 * P, P, false), Ok(()));
    assert_eq!(object.allocate(8 * P, P, true), Ok(()));
    let range = world.map_memory(Memory::shared(&object), Some(AT), 12, Prot::READ);
    assert_eq!(world.load(page(range, 0)), Ok(0));
    assert_eq!(mapped(&world, range), [0, 1]);
    assert_eq!(world.load(page(range, 2)), Ok(0), "it is in use from now on");
}

#[test]
fn entries_that_remember_something_are_left_alone() {
    let world = object_world();
    let range = world.map_memory(Memory::shared(&object(8, &[1, 2, 3])), Some(AT), 8, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    assert_eq!(
        uffd.poison(common::part(range, 2, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(world.load(page(range, 1)), Ok(7));
    assert_eq!(mapped(&world, range), [1, 3]);
}

#[test]
fn a_load_of_a_missing_page_maps_its_neighbours_before_anybody_is_asked() {
    let world = object_world();
    let range = world.map_memory(Memory::shared(&object(8, &[1])), Some(AT), 8, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let loader = world.spawn_load(page(range, 0));
    assert_eq!(uffd.read_event(), missing(page(range, 0), false));
    assert_eq!(mapped(&world, range), [1]);
    assert_eq!(
        uffd.zeropage(common::part(range, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(returned(loader), Ok(0));
}

#[test]
fn nothing_is_mapped_around_where_minor_faults_or_stores_are_trapped() {
    for modes in [Modes::MINOR, Modes::WP] {
        let world = object_world();
        let range = world.map_memory(Memory::shared(&object(8, &[1, 2])), Some(AT), 8, RW);
        let uffd = Uffd::new(&world.space, Features::empty());
        assert!(uffd.register(range, modes).is_ok());
        assert_eq!(world.load(page(range, 0)), Ok(0));
        assert_eq!(mapped(&world, range), [0], "{modes:?}");
    }
}

#[test]
fn huge_pages_are_mapped_one_by_one() {
    let world = object_world();
    let huge = HUGETLB.granule().size();
    let object = Object::new(&HUGETLB, 2 * huge);
    let [range, other] = [(); 2].map(|()| world.map_memory(Memory::shared(&object), None, 2 * huge / P, RW));
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!(world.store(range.start + huge, 2), Ok(()));
    assert_eq!(world.load(other.start), Ok(1));
    assert_eq!(world.space.pagemap(other.start + huge, false), 0);
}
