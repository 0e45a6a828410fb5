//! Which neighbours are one area: the borders that `/proc/self/maps` showed on Linux 6.18 after the same calls. Fills and
//! moves that span two areas are refused, so a program notices.

mod common;

use common::kinds::map;
use common::{RW, World, page, part, populate};
use kernel::arch::host::Config;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::frame::allocator;
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Privilege, ProtectError, RemapRequest, RemapTo, Space};
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd, UnregisterError};

const P: u64 = PAGE_SIZE;
const BASE: VirtAddr = VirtAddr::new(0x40_0000_0000);

/// Pages of the window that the tests map in.
fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::new(BASE + first * P, BASE + (first + count) * P)
}

fn anon(world: &World, first: u64, count: u64, prot: Prot) {
    world.map_at(Some(pages(first, count).start), count, prot);
}

fn filled(world: &World, first: u64, count: u64) {
    anon(world, first, count, RW);
    populate(world, pages(first, count));
}

fn protect(space: &Space, first: u64, count: u64, prot: Prot) {
    space.protect_each(pages(first, count), prot).expect("mapped");
}

fn remap(world: &World, first: u64, count: u64, to: u64, leave_mapped: bool) {
    let request = RemapRequest {
        old: pages(first, count),
        len: count * P,
        to: RemapTo::At(pages(to, 1).start),
        leave_mapped,
    };
    world.space.remap(request).expect("there is room");
}

/// The areas, as first page and the page behind.
fn areas(space: &Space) -> Vec<(u64, u64)> {
    let pages = |addr: VirtAddr| (addr - BASE) / P;
    let areas = space.areas();
    areas
        .iter()
        .map(|vma| (pages(vma.range.start), pages(vma.range.end)))
        .collect()
}

#[test]
fn a_filled_area_and_an_empty_one_become_one() {
    let world = World::new();
    filled(&world, 10, 2);
    anon(&world, 12, 2, Prot::READ);
    assert_eq!(areas(&world.space), [(10, 12), (12, 14)]);
    protect(&world.space, 12, 2, RW);
    assert_eq!(areas(&world.space), [(10, 14)]);
}

#[test]
fn of_two_that_were_filled_apart_what_comes_between_joins_the_lower() {
    let world = World::new();
    filled(&world, 10, 2);
    filled(&world, 14, 2);
    anon(&world, 12, 2, RW);
    assert_eq!(areas(&world.space), [(10, 14), (14, 16)]);
}

#[test]
fn neighbours_that_differ_in_rights_only_are_filled_as_one() {
    let world = World::new();
    filled(&world, 10, 2);
    anon(&world, 12, 2, RW | Prot::EXEC);
    populate(&world, pages(12, 2));
    protect(&world.space, 12, 2, RW);
    assert_eq!(areas(&world.space), [(10, 14)]);
}

#[test]
fn neighbours_that_differ_in_more_are_filled_apart() {
    let world = World::new();
    filled(&world, 10, 2);
    anon(&world, 12, 2, RW);
    world.space.lock(pages(12, 2)).expect("mapped");
    assert_eq!(areas(&world.space), [(10, 12), (12, 14)], "one is locked");
    world.space.unlock(pages(12, 2)).expect("mapped");
    assert_eq!(areas(&world.space), [(10, 14)], "what was parted comes together");

    let world = World::new();
    anon(&world, 10, 2, RW);
    anon(&world, 20, 2, RW);
    world.space.lock(pages(20, 2)).expect("mapped");
    remap(&world, 20, 2, 12, false);
    populate(&world, pages(10, 4));
    world.space.unlock(pages(12, 2)).expect("mapped");
    assert_eq!(areas(&world.space), [(10, 12), (12, 14)]);
}

#[test]
fn what_was_filled_elsewhere_stays_apart_until_it_is_back() {
    let world = World::new();
    filled(&world, 10, 4);
    remap(&world, 12, 2, 8, false);
    assert_eq!(areas(&world.space), [(8, 10), (10, 12)]);
    remap(&world, 8, 2, 12, false);
    assert_eq!(areas(&world.space), [(10, 14)]);
}

#[test]
fn what_is_empty_joins_where_it_comes_to_lie() {
    let world = World::new();
    anon(&world, 10, 4, RW);
    remap(&world, 12, 2, 8, false);
    assert_eq!(areas(&world.space), [(8, 12)]);
}

#[test]
fn an_area_left_without_contents_is_empty_again() {
    let world = World::new();
    filled(&world, 10, 4);
    remap(&world, 10, 4, 20, true);
    anon(&world, 14, 2, RW);
    populate(&world, pages(10, 1));
    assert_eq!(areas(&world.space), [(10, 16), (20, 24)]);
}

#[test]
fn a_forks_copies_stay_as_they_are() {
    let world = World::new();
    filled(&world, 10, 4);
    protect(&world.space, 12, 2, Prot::READ);
    let child = world.space.fork().expect("RAM is plenty");
    protect(&child, 12, 2, RW);
    assert_eq!(
        areas(&child),
        [(10, 12), (12, 14)],
        "what the two had was copied apart"
    );
    protect(&world.space, 12, 2, RW);
    assert_eq!(areas(&world.space), [(10, 14)]);
}

#[test]
fn an_empty_area_does_not_join_a_forks_copy() {
    let world = World::new();
    filled(&world, 10, 2);
    anon(&world, 12, 2, Prot::READ);
    let child = world.space.fork().expect("RAM is plenty");
    protect(&child, 12, 2, RW);
    assert_eq!(areas(&child), [(10, 12), (12, 14)]);
}

#[test]
fn an_empty_area_made_read_only_does_not_count_any_more() {
    let world = World::new();
    filled(&world, 10, 1);
    anon(&world, 11, 1, Prot::empty());
    protect(&world.space, 11, 1, RW);
    assert_eq!(areas(&world.space), [(10, 12)]);
    let world = World::new();
    filled(&world, 10, 1);
    anon(&world, 11, 1, RW | Prot::EXEC);
    protect(&world.space, 10, 2, Prot::READ);
    assert_eq!(areas(&world.space), [(10, 11), (11, 12)]);
}

#[test]
fn a_fill_across_areas_that_were_filled_apart_is_refused() {
    let world = World::new();
    anon(&world, 10, 4, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(pages(10, 2), Modes::MISSING).expect("it can");
    let bytes = vec![1; 4 * P as usize];
    let mode = FillMode::empty();
    let two = Outcome::Done;
    assert_eq!(
        uffd.copy(BASE + 10 * P, &bytes[..2 * P as usize], 2 * P, mode),
        two
    );
    populate(&world, pages(12, 2));
    uffd.register(pages(12, 2), Modes::MISSING).expect("it can");
    assert_eq!(areas(&world.space), [(10, 12), (12, 14)]);
    world.space.discard(pages(10, 4)).expect("mapped");
    let refused = Outcome::Refused(Refusal::NotRegistered);
    assert_eq!(uffd.copy(BASE + 10 * P, &bytes, 4 * P, mode), refused);
    assert_eq!(
        uffd.copy(BASE + 10 * P, &bytes[..2 * P as usize], 2 * P, mode),
        two
    );
}

#[test]
fn a_fill_that_is_refused_parts_areas_all_the_same() {
    let world = World::new();
    anon(&world, 10, 2, RW);
    protect(&world.space, 11, 1, Prot::empty());
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(pages(10, 2), Modes::MISSING).expect("it can");
    let refused = Outcome::Refused(Refusal::NotRegistered);
    let bytes = vec![1; 2 * P as usize];
    assert_eq!(
        uffd.copy(BASE + 10 * P, &bytes, 2 * P, FillMode::empty()),
        refused
    );
    protect(&world.space, 10, 2, Prot::READ);
    assert_eq!(areas(&world.space), [(10, 11), (11, 12)]);
}

#[test]
fn large_pages_that_were_parted_stay_so() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(2).expect("RAM is plenty");
    let size = Granule::Huge.size();
    let range = map(&world, Memory::Own(&HUGETLB), None, 2 * size);
    let half = VirtRange::new(range.start, range.start + size);
    world.space.protect(half, Prot::READ).expect("mapped");
    world.space.protect(half, RW).expect("mapped");
    assert_eq!(world.space.areas().len(), 2);
}

#[test]
fn a_change_that_ends_inside_a_large_page_parts_where_it_begins() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(2).expect("RAM is plenty");
    let size = Granule::Huge.size();
    let range = map(&world, Memory::Own(&HUGETLB), None, 2 * size);
    let cut = VirtRange::new(range.start + size, range.end - P);
    assert_eq!(
        world.space.protect(cut, Prot::READ),
        Err(ProtectError::SplitsPage)
    );
    let rights: Vec<_> = world
        .space
        .areas()
        .iter()
        .map(|vma| (vma.range.len(), vma.prot))
        .collect();
    assert_eq!(rights, [(size, RW), (size, RW)]);
    let cut = VirtRange::new(range.start + P, range.start + size);
    assert_eq!(
        world.space.protect(cut, Prot::READ),
        Err(ProtectError::SplitsPage)
    );
    assert_eq!(world.space.areas().len(), 2);
}

#[test]
fn a_registration_that_is_there_already_parts_no_large_pages() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(2).expect("RAM is plenty");
    let size = Granule::Huge.size();
    let range = map(&world, Memory::Own(&HUGETLB), None, 2 * size);
    let half = VirtRange::new(range.start, range.start + size);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("it can");
    uffd.register(half, Modes::MISSING).expect("it can");
    assert_eq!(world.space.areas().len(), 1);
    uffd.unregister(half).expect("it is registered");
    assert_eq!(world.space.areas().len(), 2);
}

#[test]
fn unregistering_part_of_a_large_page_fails_only_where_it_is_registered() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(1).expect("RAM is plenty");
    let size = Granule::Huge.size();
    let at = VirtAddr::new(0x80_0000_0000);
    let huge = map(&world, Memory::Own(&HUGETLB), Some(at), size);
    world.map_at(Some(at - P), 1, RW);
    let (small, first) = (VirtRange::new(at - P, at), part(huge, 0, 1));
    let both = VirtRange::new(at - P, at + P);
    let uffd = Uffd::new(&world.space, Features::empty());
    assert_eq!(uffd.unregister(first), Ok(()));
    uffd.register(VirtRange::new(at - P, huge.end), Modes::MISSING)
        .expect("they can");
    assert_eq!(uffd.unregister(both), Err(UnregisterError::Misaligned));
    assert_eq!(
        world.modes_at(small.start),
        None,
        "what lies before was unregistered"
    );
    assert_eq!(world.modes_at(huge.start), Some(Modes::MISSING));
    let inside = VirtRange::new(page(huge, 1), page(huge, 2));
    assert_eq!(uffd.unregister(inside), Err(UnregisterError::Misaligned));
}

#[test]
fn a_part_that_moves_beside_its_registration_without_being_told_ends_it() {
    let world = World::new();
    anon(&world, 10, 7, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(pages(10, 7), Modes::WP).expect("it can");
    remap(&world, 14, 1, 9, false);
    assert_eq!(areas(&world.space), [(9, 14), (15, 17)]);
    let modes = |number| world.modes_at(pages(number, 1).start);
    assert_eq!(
        (modes(9), modes(10), modes(15)),
        (None, None, None),
        "it was one area for a moment"
    );
}
