//! Mappings that move, grow and shrink: contents go along, refusals change nothing (checked on Linux 6.18 unless a test says
//! otherwise).

mod common;

use common::kinds::{Bed, Kind, Seen, map, seen};
use common::{RW, World, object_world, page, part, populate};
use kernel::arch::host::{Config, MissedFlush};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{
    MAP_BOTTOM, MapRequest, Memory, Privilege, RemapError, RemapRequest, RemapTo, Space,
};
use kernel::mm::uaccess;
use kernel::mm::vma::{MAX_VMAS, Sharing, VmaFlags};
use kernel::uffd::Features;

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

// Moving.

#[test]
fn what_moves_keeps_its_contents_and_nothing_is_left_behind() {
    let (world, range) = filled(5);
    let frames = allocator().stats().of(FrameKind::Anon);
    let new = to(FAR + GIB + 3 * P, 5 * P);
    assert_eq!(remap(&world.space, range, 5 * P, RemapTo::At(new.start)), Ok(new));
    assert_eq!(words(&world, new), some(1..=5));
    assert_eq!(words(&world, range), [None; 5]);
    assert_eq!(
        allocator().stats().of(FrameKind::Anon),
        frames,
        "nothing was copied"
    );
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn the_middle_of_an_area_moves_and_both_ends_stay() {
    let (world, range) = filled(5);
    let new = to(FAR + 100 * P, 2 * P);
    assert_eq!(
        remap(&world.space, part(range, 1, 2), 2 * P, RemapTo::At(new.start)),
        Ok(new)
    );
    assert_eq!(words(&world, range), [Some(1), None, None, Some(4), Some(5)]);
    assert_eq!(words(&world, new), some([2, 3]));
}

#[test]
fn what_moves_beside_its_own_rest_becomes_one_with_it() {
    let (world, range) = filled(4);
    let moved = remap(&world.space, part(range, 0, 1), P, RemapTo::At(range.end));
    assert_eq!(moved, Ok(to(range.end, P)));
    assert_eq!(
        words(&world, to(range.start, 5 * P)),
        [None, Some(2), Some(3), Some(4), Some(1)]
    );
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn untouched_pages_stay_untouched_and_borrowed_zeros_are_not_copied() {
    let world = World::new();
    let range = world.map_at(Some(FAR), 3, RW);
    assert_eq!(world.load(page(range, 1)), Ok(0));
    let new = to(FAR + GIB, 3 * P);
    assert_eq!(remap(&world.space, range, 3 * P, RemapTo::At(new.start)), Ok(new));
    let states: Vec<_> = (0..3).map(|i| seen(&world.space, page(new, i))).collect();
    assert_eq!(states, [Seen::Empty, Seen::Page, Seen::Empty]);
    assert_eq!(allocator().stats().of(FrameKind::Anon), 0);
    assert_eq!(
        world.store(page(new, 1), 7),
        Ok(()),
        "the zeros are copied before they are written"
    );
    assert_eq!(world.load(page(new, 2)), Ok(0));
}

#[test]
fn rights_and_flags_go_along() {
    let (world, range) = filled(2);
    world.space.protect(range, Prot::READ).expect("mapped");
    world.space.lock(range).expect("mapped");
    let new = to(FAR + GIB, 2 * P);
    assert_eq!(remap(&world.space, range, 2 * P, RemapTo::At(new.start)), Ok(new));
    assert_eq!(world.store(new.start, 1), Err(FaultError::Forbidden));
    let area = world.space.query(new.start).expect("mapped");
    assert_eq!((area.prot, area.flags), (Prot::READ, VmaFlags::LOCKED));
}

#[test]
fn whole_nodes_move_as_they_are_and_ends_page_by_page() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    // A page before, three 2 MiB, and a page behind; touched at the ends of each.
    let range = VirtRange::new(FAR + H - P, FAR + 4 * H + P);
    map(&world, Memory::Own(&ANON), Some(range.start), range.len());
    let touched: Vec<u64> = (0..=4)
        .flat_map(|i| [i * H, i * H + P])
        .map(|at| at / P)
        .collect();
    let touched = || touched.iter().map(|&i| i.min(range.pages() - 1));
    world.run(|| touched().for_each(|i| uaccess::store(page(range, i), i + 1).expect("mapped")));
    let nodes = allocator().stats().of(FrameKind::Table);
    let new = to(range.start + 7 * GIB, range.len());
    assert_eq!(
        remap(&world.space, range, range.len(), RemapTo::At(new.start)),
        Ok(new)
    );
    world.run(|| touched().for_each(|i| assert_eq!(uaccess::load(page(new, i)), Ok(i + 1))));
    assert!((0..new.pages()).all(|i| {
        let there = touched().any(|touched| touched == i);
        (seen(&world.space, page(new, i)) == Seen::Page) == there
    }));
    assert_eq!(allocator().stats().of(FrameKind::Table), nodes);
    // And not aligned to each other.
    let odd = to(FAR + 9 * GIB + 5 * P, range.len());
    assert_eq!(
        remap(&world.space, new, range.len(), RemapTo::At(odd.start)),
        Ok(odd)
    );
    world.run(|| touched().for_each(|i| assert_eq!(uaccess::load(page(odd, i)), Ok(i + 1))));
}

#[test]
fn a_mapping_that_moves_leaves_no_nodes_behind() {
    let (world, range) = filled(3);
    let nodes = || allocator().stats().of(FrameKind::Table);
    let mut here = range;
    let before = nodes();
    for i in 1..20 {
        let new = to(FAR + i * (H + P), 3 * P);
        assert_eq!(remap(&world.space, here, 3 * P, RemapTo::At(new.start)), Ok(new));
        here = new;
        assert!(nodes() <= before + 1, "a mapping may lie in two nodes");
    }
    assert_eq!(words(&world, here), some(1..=3));
}

#[test]
fn pages_of_objects_move_with_their_offsets() {
    for kind in Kind::OBJECTS {
        let bed = Bed::unregistered(kind, 4, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        let granule = kind.granule();
        let new = to(FAR, 2 * granule);
        let moved = remap(bed.space(), bed.part(1, 2), 2 * granule, RemapTo::At(FAR));
        assert_eq!(moved, Ok(new), "{kind:?}");
        assert_eq!(bed.world.load(FAR), Ok(2));
        assert_eq!(bed.world.load(FAR + granule), Ok(3));
        assert_eq!(
            (bed.load(0), bed.load(3)),
            (1, 0),
            "what stays is found where it was"
        );
        assert_eq!(bed.world.load(bed.at(1)), Err(FaultError::Unmapped));
        // What was not there when it moved is looked for at the right place, too.
        bed.space().discard(new).expect("mapped");
        let shared = kind.is_shared();
        assert_eq!(bed.world.load(FAR + granule), Ok(if shared { 3 } else { 0 }));
    }
}

#[test]
fn a_private_copy_moves_as_it_is() {
    for kind in [Kind::PrivateShmem, Kind::PrivateHuge] {
        let bed = Bed::unregistered(kind, 1, Features::empty());
        bed.store(0, 5);
        let granule = kind.granule();
        assert_eq!(
            remap(bed.space(), bed.range, granule, RemapTo::At(FAR)),
            Ok(to(FAR, granule))
        );
        assert_eq!(bed.world.load(FAR), Ok(5));
        let object = bed.object.as_ref().expect("it has one");
        let shared = map(&bed.world, Memory::shared(object), None, granule);
        assert_eq!(bed.world.load(shared.start), Ok(0), "nothing reached the object");
        assert_eq!(bed.world.store(FAR, 6), Ok(()));
        assert_eq!(bed.world.load(FAR), Ok(6));
    }
}

#[test]
fn stores_through_the_new_place_reach_the_object() {
    for kind in [Kind::Shmem, Kind::Huge] {
        let bed = Bed::unregistered(kind, 1, Features::empty());
        bed.store(0, 5);
        let granule = kind.granule();
        let object = bed.object.as_ref().expect("it has one");
        let alias = map(&bed.world, Memory::shared(object), None, granule);
        assert_eq!(
            remap(bed.space(), bed.range, granule, RemapTo::At(FAR)),
            Ok(to(FAR, granule))
        );
        assert_eq!(bed.world.store(FAR, 6), Ok(()));
        assert_eq!(bed.world.load(alias.start), Ok(6));
    }
}

// A fixed place.

#[test]
fn what_is_at_the_fixed_place_is_gone() {
    let (world, range) = filled(2);
    let victim = world.map_at(Some(FAR + GIB), 4, RW);
    populate(&world, victim);
    assert_eq!(
        remap(&world.space, range, 2 * P, RemapTo::At(page(victim, 1))),
        Ok(part(victim, 1, 2))
    );
    assert_eq!(words(&world, victim), some([1, 1, 2, 4]));
    assert_eq!(
        world.space.areas().len(),
        1,
        "they are all the same kind of memory"
    );
    assert_eq!(allocator().stats().of(FrameKind::Anon), 4);
}

#[test]
fn the_fixed_place_may_be_in_the_same_area() {
    let (world, range) = filled(6);
    assert_eq!(
        remap(
            &world.space,
            part(range, 4, 2),
            2 * P,
            RemapTo::At(page(range, 1))
        ),
        Ok(part(range, 1, 2))
    );
    assert_eq!(
        words(&world, range),
        [Some(1), Some(5), Some(6), Some(4), None, None]
    );
}

#[test]
fn less_than_there_is_moves_to_a_fixed_place_and_the_rest_goes() {
    let (world, range) = filled(4);
    let new = to(FAR + GIB, 2 * P);
    assert_eq!(remap(&world.space, range, 2 * P, RemapTo::At(new.start)), Ok(new));
    assert_eq!(
        (words(&world, new), words(&world, range)),
        (some([1, 2]), vec![None; 4])
    );
    assert_eq!(allocator().stats().of(FrameKind::Anon), 2);
}

#[test]
fn more_than_there_is_moves_to_a_fixed_place_and_has_fresh_memory_behind() {
    let (world, range) = filled(2);
    let new = to(FAR + GIB, 4 * P);
    assert_eq!(remap(&world.space, range, 4 * P, RemapTo::At(new.start)), Ok(new));
    assert_eq!(words(&world, new), some([1, 2, 0, 0]));
}

#[test]
fn several_areas_move_to_a_fixed_place_with_the_holes_between_them() {
    let (world, range) = filled(8);
    world
        .space
        .protect(part(range, 2, 2), Prot::READ)
        .expect("mapped");
    world.space.unmap(part(range, 5, 1)).expect("mapped");
    let victim = world.map_at(Some(FAR + GIB), 8, RW);
    populate(&world, victim);
    assert_eq!(
        remap(&world.space, range, 8 * P, RemapTo::At(victim.start)),
        Ok(victim)
    );
    assert_eq!(words(&world, range), [None; 8]);
    let expected = [1, 2, 3, 4, 5, 6, 7, 8].map(Some);
    assert_eq!(
        words(&world, victim),
        expected,
        "what was opposite the hole has stayed"
    );
    assert_eq!(world.store(page(victim, 2), 9), Err(FaultError::Forbidden));
}

// Growing and shrinking.

#[test]
fn a_mapping_grows_where_it_is_if_nothing_is_behind_it() {
    for to in [RemapTo::Here, RemapTo::Anywhere] {
        let (world, range) = filled(2);
        let grown = remap(&world.space, range, 5 * P - 100, to);
        assert_eq!(grown, Ok(VirtRange::new(range.start, range.start + 5 * P)));
        assert_eq!(
            words(&world, VirtRange::new(FAR, FAR + 6 * P)),
            [Some(1), Some(2), Some(0), Some(0), Some(0), None]
        );
        assert_eq!(world.space.areas().len(), 1);
    }
}

#[test]
fn the_end_of_an_area_grows_as_well_as_all_of_it() {
    let (world, range) = filled(3);
    let grown = remap(&world.space, part(range, 2, 1), 2 * P, RemapTo::Here);
    assert_eq!(grown, Ok(to(page(range, 2), 2 * P)));
    assert_eq!(words(&world, to(FAR, 4 * P)), some([1, 2, 3, 0]));
}

#[test]
fn a_mapping_of_an_object_grows_into_what_comes_next_in_it() {
    let world = object_world();
    let object = Object::new(&SHMEM, 4 * P);
    let whole = map(&world, Memory::shared(&object), None, 4 * P);
    populate(&world, whole);
    let range = map(&world, Memory::shared(&object), Some(FAR), P);
    assert_eq!(
        remap(&world.space, range, 5 * P, RemapTo::Here),
        Ok(to(FAR, 5 * P))
    );
    assert_eq!(words(&world, to(FAR, 4 * P)), some(1..=4));
    assert_eq!(world.load(FAR + 4 * P), Err(FaultError::BeyondEnd));
}

#[test]
fn a_mapping_that_has_no_room_here_grows_elsewhere_or_not_at_all() {
    let (world, range) = filled(2);
    let blocking = world.map_at(Some(range.end), 1, Prot::READ);
    let here = remap(&world.space, range, 3 * P, RemapTo::Here);
    assert_eq!(here, Err(RemapError::NoRoom));
    let new = remap(&world.space, range, 3 * P, RemapTo::Anywhere).expect("there is room elsewhere");
    assert_eq!(new.len(), 3 * P);
    assert!(!new.overlaps(&range) && !new.overlaps(&blocking));
    assert_eq!(words(&world, new), some([1, 2, 0]));
    assert_eq!(words(&world, range), [None; 2]);
}

#[test]
fn the_middle_of_an_area_cannot_grow_where_it_is() {
    let (world, range) = filled(4);
    assert_eq!(
        remap(&world.space, part(range, 0, 2), 3 * P, RemapTo::Here),
        Err(RemapError::NoRoom)
    );
    let new = remap(&world.space, part(range, 0, 2), 3 * P, RemapTo::Anywhere).expect("elsewhere");
    assert_eq!(words(&world, new), some([1, 2, 0]));
    assert_eq!(words(&world, range), [None, None, Some(3), Some(4)]);
}

#[test]
fn a_mapping_does_not_grow_past_the_top() {
    let world = World::new();
    let range = world.map_at(Some(USER_TOP - P), 1, RW);
    assert_eq!(
        remap(&world.space, range, 2 * P, RemapTo::Here),
        Err(RemapError::NoRoom)
    );
}

#[test]
fn shrinking_unmaps_the_end_whatever_is_there() {
    let (world, range) = filled(4);
    world
        .space
        .protect(part(range, 2, 1), Prot::READ)
        .expect("mapped");
    world.space.unmap(part(range, 3, 1)).expect("mapped");
    for to in [RemapTo::Here, RemapTo::Anywhere] {
        assert_eq!(remap(&world.space, range, P, to), Ok(part(range, 0, 1)));
        assert_eq!(words(&world, range), [Some(1), None, None, None]);
    }
}

#[test]
fn the_size_that_it_has_changes_nothing_and_is_not_looked_at() {
    let (world, range) = filled(2);
    let longer = VirtRange::new(range.start, range.end + 4 * P);
    for (range, to) in [
        (range, RemapTo::Here),
        (range, RemapTo::Anywhere),
        (longer, RemapTo::Here),
    ] {
        assert_eq!(remap(&world.space, range, range.len(), to), Ok(range));
    }
    assert_eq!(words(&world, range), some([1, 2]));
}

// Staying mapped.

#[test]
fn what_stays_mapped_is_empty_and_what_moved_is_whole() {
    for destination in [RemapTo::Anywhere, RemapTo::At(FAR + GIB)] {
        let (world, range) = filled(2);
        let new = leave(&world.space, range, destination).expect("there is room");
        assert!(!new.overlaps(&range));
        assert_eq!(
            (words(&world, new), words(&world, range)),
            (some([1, 2]), some([0, 0]))
        );
        assert_eq!(world.store(range.start, 9), Ok(()));
        assert_eq!(world.load(new.start), Ok(1));
    }
}

#[test]
fn shared_memory_that_stays_mapped_is_found_in_its_object_again() {
    let bed = Bed::unregistered(Kind::Shmem, 2, Features::empty());
    bed.store(1, 7);
    let new = leave(bed.space(), bed.range, RemapTo::At(FAR)).expect("there is room");
    assert_eq!(bed.seen(1), Seen::Empty);
    assert_eq!((bed.load(1), bed.world.load(page(new, 1))), (7, Ok(7)));
}

#[test]
fn what_stays_mapped_is_not_locked_any_more() {
    let (world, range) = filled(2);
    world.space.lock(range).expect("mapped");
    let new = leave(&world.space, part(range, 0, 1), RemapTo::At(FAR + GIB)).expect("there is room");
    let flags = |at| world.space.query(at).map(|area| area.flags);
    assert_eq!(flags(new.start), Some(VmaFlags::LOCKED));
    assert_eq!(flags(range.start), Some(VmaFlags::empty()));
    assert_eq!(
        flags(page(range, 1)),
        Some(VmaFlags::empty()),
        "nor is the rest of its area"
    );
}

#[test]
fn several_areas_stay_mapped_where_the_place_is_fixed() {
    let (world, range) = filled(4);
    world
        .space
        .protect(part(range, 2, 2), Prot::READ)
        .expect("mapped");
    let new = leave(&world.space, range, RemapTo::At(FAR + GIB)).expect("none is registered");
    assert_eq!(
        (words(&world, new), words(&world, range)),
        (some(1..=4), some([0; 4]))
    );
    let elsewhere = leave(&world.space, new, RemapTo::Anywhere);
    assert_eq!(elsewhere, Err(RemapError::SeveralAreas));
}

// A second mapping.

#[test]
fn shared_memory_is_mapped_a_second_time() {
    let bed = Bed::unregistered(Kind::Shmem, 4, Features::empty());
    (0..4).for_each(|i| bed.store(i, i + 1));
    let nothing = VirtRange::new(bed.at(1), bed.at(1));
    assert_eq!(
        remap(bed.space(), nothing, 2 * P, RemapTo::Here),
        Err(RemapError::NoRoom)
    );
    for destination in [RemapTo::Anywhere, RemapTo::At(FAR)] {
        let again = remap(bed.space(), nothing, 2 * P, destination).expect("there is room");
        assert_eq!(words(&bed.world, again), some([2, 3]));
        assert_eq!(bed.world.store(again.start, 9), Ok(()));
        assert_eq!(bed.load(1), 9);
        bed.store(1, 2);
    }
    assert_eq!(words(&bed.world, bed.range), some(1..=4));
}

#[test]
fn private_memory_cannot_be_mapped_a_second_time() {
    for kind in [Kind::Anon, Kind::PrivateShmem] {
        let bed = Bed::unregistered(kind, 1, Features::empty());
        let nothing = VirtRange::new(bed.at(0), bed.at(0));
        assert_eq!(
            remap(bed.space(), nothing, P, RemapTo::Anywhere),
            Err(RemapError::NotShared)
        );
    }
}

// Large pages.

#[test]
fn lengths_of_large_pages_are_rounded_up() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 3, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        let begun = VirtRange::new(bed.at(1), bed.at(1) + P);
        assert_eq!(remap(bed.space(), begun, P, RemapTo::Here), Ok(bed.one(1)));
        assert_eq!(remap(bed.space(), begun, P, RemapTo::At(FAR)), Ok(to(FAR, H)));
        assert_eq!(bed.world.load(FAR), Ok(2));
        assert_eq!(bed.world.load(bed.at(1) + H / 2), Err(FaultError::Unmapped));
        let both = VirtRange::new(bed.at(2), bed.at(3));
        assert_eq!(
            remap(bed.space(), both, P, RemapTo::Here),
            Ok(bed.one(2)),
            "nothing to cut off"
        );
        assert_eq!((bed.load(0), bed.load(2)), (1, 3));
    }
}

#[test]
fn large_pages_are_cut_off_whole() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 3, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        assert_eq!(
            remap(bed.space(), bed.range, H + P, RemapTo::Here),
            Ok(bed.part(0, 2))
        );
        assert_eq!((bed.load(0), bed.load(1)), (1, 2));
        assert_eq!(bed.world.load(bed.at(2)), Err(FaultError::Unmapped));
    }
}

#[test]
fn large_pages_do_not_grow_stay_mapped_or_move_in_part() {
    for kind in Kind::LARGE {
        let bed = Bed::unregistered(kind, 2, Features::empty());
        bed.store(0, 1);
        let space = bed.space();
        let inside = VirtRange::new(bed.at(0) + P, bed.at(1));
        let rows = [
            (
                remap(space, bed.range, 3 * H, RemapTo::Anywhere),
                RemapError::LargePages,
            ),
            (
                remap(space, bed.range, 3 * H, RemapTo::At(FAR)),
                RemapError::LargePages,
            ),
            (leave(space, bed.range, RemapTo::Anywhere), RemapError::LargePages),
            (leave(space, bed.range, RemapTo::At(FAR)), RemapError::LargePages),
            (
                remap(space, VirtRange::new(bed.at(0), bed.at(0)), H, RemapTo::Anywhere),
                RemapError::LargePages,
            ),
            (
                remap(space, inside, inside.len(), RemapTo::Here),
                RemapError::SplitsPage,
            ),
            (
                remap(space, inside, inside.len(), RemapTo::At(FAR)),
                RemapError::SplitsPage,
            ),
            (
                remap(space, bed.one(0), H, RemapTo::At(FAR + P)),
                RemapError::SplitsPage,
            ),
        ];
        for (i, (result, why)) in rows.into_iter().enumerate() {
            assert_eq!(result, Err(why), "{kind:?}, row {i}");
        }
        assert_eq!((bed.load(0), space.areas().len()), (1, 1));
    }
}

#[test]
fn a_place_inside_a_large_page_is_refused_and_so_is_cutting_to_there() {
    let bed = Bed::unregistered(Kind::Huge, 1, Features::empty());
    bed.store(0, 1);
    let small = map(&bed.world, Memory::Own(&ANON), Some(bed.range.start - P), P);
    let over = remap(bed.space(), small, P, RemapTo::At(bed.at(0) + P));
    assert_eq!(over, Err(RemapError::SplitsPage));
    let across = VirtRange::new(small.start, small.end + 2 * P);
    assert_eq!(
        remap(bed.space(), across, P, RemapTo::Here),
        Err(RemapError::SplitsPage)
    );
    assert_eq!((bed.load(0), bed.world.load(small.start)), (1, Ok(0)));
}

// Refusals.

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (world, range) = filled(4);
    let space = &world.space;
    let two = part(range, 0, 2);
    let far = RemapTo::At(FAR + GIB);
    let unaligned = VirtRange::new(range.start + 1, range.end);
    let above = VirtRange::new(USER_TOP, USER_TOP + P);
    let before = VirtRange::new(range.start - P, range.end);
    let resized = |leave_mapped, len, to| {
        space.remap(RemapRequest {
            old: two,
            len,
            to,
            leave_mapped,
        })
    };
    let rows = [
        (
            remap(space, unaligned, P, RemapTo::Anywhere),
            RemapError::BadRange,
        ),
        (remap(space, above, P, RemapTo::Anywhere), RemapError::BadRange),
        (remap(space, two, 0, RemapTo::Anywhere), RemapError::BadRange),
        (
            remap(space, two, 1 << 48, RemapTo::Anywhere),
            RemapError::BadRange,
        ),
        (
            remap(space, two, u64::MAX, RemapTo::Anywhere),
            RemapError::BadRange,
        ),
        (
            remap(space, two, 2 * P, RemapTo::At(FAR + GIB + 1)),
            RemapError::BadPlace,
        ),
        (
            remap(space, two, 2 * P, RemapTo::At(USER_TOP - P)),
            RemapError::BadPlace,
        ),
        (
            remap(space, two, 2 * P, RemapTo::At(MAP_BOTTOM - P)),
            RemapError::BadPlace,
        ),
        (resized(true, 2 * P, RemapTo::Here), RemapError::CannotStay),
        (resized(true, 3 * P, RemapTo::Anywhere), RemapError::CannotStay),
        (resized(true, P, far), RemapError::CannotStay),
        (
            remap(space, two, 2 * P, RemapTo::At(range.start)),
            RemapError::Overlaps,
        ),
        (
            remap(space, two, 2 * P, RemapTo::At(page(range, 1))),
            RemapError::Overlaps,
        ),
        (
            remap(space, range, P, RemapTo::At(page(range, 3))),
            RemapError::Overlaps,
        ),
        (
            remap(space, two, 3 * P, RemapTo::At(range.start - 2 * P)),
            RemapError::Overlaps,
        ),
        (remap(space, before, 5 * P, far), RemapError::NotMapped),
        (
            remap(space, before, 6 * P, RemapTo::Anywhere),
            RemapError::NotMapped,
        ),
        (remap(space, before, P, RemapTo::Here), RemapError::NotMapped),
    ];
    for (i, (result, why)) in rows.into_iter().enumerate() {
        assert_eq!(result, Err(why), "row {i}");
    }
    assert_eq!((words(&world, range), space.areas().len()), (some(1..=4), 1));
}

#[test]
fn a_range_that_ends_past_its_area_neither_grows_nor_shrinks_to_a_fixed_place() {
    let (world, range) = filled(4);
    world
        .space
        .protect(part(range, 2, 2), Prot::READ)
        .expect("mapped");
    let far = RemapTo::At(FAR + GIB);
    for (len, to) in [
        (5 * P, RemapTo::Anywhere),
        (5 * P, RemapTo::Here),
        (5 * P, far),
        (3 * P, far),
    ] {
        assert_eq!(remap(&world.space, range, len, to), Err(RemapError::SeveralAreas));
    }
    assert_eq!(words(&world, range), some(1..=4));
}

#[test]
fn a_mapping_whose_end_in_its_object_would_be_too_far_does_not_grow() {
    let world = object_world();
    let object = Object::new(&SHMEM, P);
    let request = MapRequest {
        at: Some(FAR),
        len: P,
        prot: RW,
        memory: Memory::Object {
            object,
            offset: (i64::MAX as u64 + 1) - 2 * P,
            sharing: Sharing::Shared,
            read_only: false,
        },
    };
    let range = world.space.map(request).expect("it ends before 2^63");
    assert_eq!(
        remap(&world.space, range, 2 * P, RemapTo::Here),
        Err(RemapError::BadOffset)
    );
}

// Memory is short.

#[test]
fn a_move_without_frames_for_its_nodes_leaves_everything_but_the_place_as_it_was() {
    let mut unmapped = 0;
    for successes in 0.. {
        let (world, range) = filled(3);
        let victim = world.map_at(Some(FAR + 600 * GIB), 3, RW);
        let nodes = allocator().stats().of(FrameKind::Table);
        allocator().inject_failure(successes);
        let moved = remap(&world.space, range, 3 * P, RemapTo::At(victim.start));
        allocator().stop_injection();
        if moved.is_ok() {
            assert_eq!(unmapped, 3, "three nodes are needed, and each was missing once");
            break;
        }
        assert_eq!(words(&world, range), some(1..=3));
        if world.space.query(victim.start).is_none() {
            assert_eq!(moved, Err(RemapError::OutOfMemory));
            unmapped += 1;
        }
        let left = allocator().stats().of(FrameKind::Table) - nodes;
        assert!(left <= 1, "only the node below the root may stay: {left}");
        let moved = remap(&world.space, range, 3 * P, RemapTo::At(victim.start));
        assert_eq!((moved, words(&world, victim)), (Ok(victim), some(1..=3)));
    }
}

#[test]
fn a_space_that_is_nearly_full_of_areas_refuses_before_anything_changes() {
    let (world, range) = filled(3);
    let victim = world.map_at(Some(FAR + GIB), 3, RW);
    populate(&world, victim);
    // Areas that cannot be one, up to a few below the limit.
    let mut at = FAR + 2 * GIB;
    for _ in world.space.areas().len()..MAX_VMAS - 3 {
        map(&world, Memory::Own(&ANON), Some(at), P);
        at = at + 2 * P;
    }
    let moved = remap(&world.space, part(range, 1, 1), P, RemapTo::At(page(victim, 1)));
    assert_eq!(moved, Err(RemapError::TooManyAreas));
    assert_eq!(
        (words(&world, range), words(&world, victim)),
        (some(1..=3), some(1..=3))
    );
}

// Translations.

#[test]
fn no_cpu_reaches_a_page_at_its_old_address_once_it_has_moved() {
    let (world, range) = filled(4);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (first, far) = (range.start, FAR + GIB);
    let (ready, cached) = std::sync::mpsc::channel::<()>();
    let task = world.spawn("holder", move || {
        // Cached, with the right to write.
        uaccess::store(first, 11).expect("mapped");
        ready.send(()).expect("somebody waits");
        wait.recv().expect("told to go on");
        (uaccess::store(first, 12).is_err(), uaccess::load(far))
    });
    cached.recv().expect("the task runs");
    assert_eq!(
        remap(&world.space, range, 4 * P, RemapTo::At(far)),
        Ok(to(far, 4 * P))
    );
    go.send(()).expect("the task listens");
    assert_eq!(common::returned(task), (true, Ok(11)));
}

#[test]
fn no_cpu_reaches_a_page_through_a_node_that_has_moved() {
    let world = World::new();
    let range = map(&world, Memory::Own(&ANON), Some(FAR), 2 * H);
    world.run(|| {
        uaccess::store(FAR, 1).expect("mapped");
        uaccess::store(FAR + H + 5 * P, 2).expect("mapped");
        let new = to(FAR + GIB, 2 * H);
        assert_eq!(remap(&world.space, range, 2 * H, RemapTo::At(new.start)), Ok(new));
        assert!(uaccess::store(FAR, 3).is_err());
        assert!(uaccess::store(FAR + H + 5 * P, 3).is_err());
        assert_eq!(
            (uaccess::load(new.start), uaccess::load(new.start + H + 5 * P)),
            (Ok(1), Ok(2))
        );
    });
}

/// The point of the software machine: take the flush out of a move and a test fails.
#[test]
fn a_flush_that_is_left_out_of_a_move_is_caught() {
    let (world, range) = filled(3);
    world.run(|| {
        uaccess::store(page(range, 1), 42).expect("mapped");
        world.machine.lose_flushes(3);
        remap(&world.space, range, 3 * P, RemapTo::At(FAR + GIB)).expect("there is room");
        let stale = uaccess::store(page(range, 1), 43);
        assert_eq!(stale, Ok(()), "the stale translation goes through");
    });
    let missed = world.machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Used(used)] if used.addr == page(range, 1)),
        "{missed:?}"
    );
}

#[test]
fn a_huge_area_of_one_gib_moves_with_the_node_of_its_gib() {
    let world = object_world();
    let object = Object::new(&HUGETLB, GIB);
    let range = map(&world, Memory::shared(&object), Some(FAR), GIB);
    assert_eq!(world.store(FAR + 5 * H, 5), Ok(()));
    let nodes = allocator().stats().of(FrameKind::Table);
    let new = to(FAR + 5 * GIB, GIB);
    assert_eq!(remap(&world.space, range, GIB, RemapTo::At(new.start)), Ok(new));
    assert_eq!(world.load(new.start + 5 * H), Ok(5));
    assert_eq!(
        allocator().stats().of(FrameKind::Table),
        nodes,
        "no node was made"
    );
}
