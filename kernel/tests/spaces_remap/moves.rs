//! Moving to a place with nothing in it.

use kernel::arch::host::Config;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Privilege, RemapTo};
use kernel::mm::uaccess;
use kernel::mm::vma::VmaFlags;
use kernel::uffd::Features;

use super::{FAR, GIB, H, P, filled, remap, some, to, words};
use crate::common::kinds::{Bed, Kind, Seen, map, seen};
use crate::common::{RW, World, page, part};

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
fn what_moves_beside_its_own_rest_becomes_one_with_it_as_long_as_it_is_empty() {
    let world = World::new();
    let range = world.map_at(Some(FAR), 4, RW);
    let moved = remap(&world.space, part(range, 0, 1), P, RemapTo::At(range.end));
    assert_eq!(moved, Ok(to(range.end, P)));
    let areas: Vec<_> = world.space.areas().iter().map(|vma| vma.range).collect();
    assert_eq!(areas, [to(page(range, 1), 4 * P)]);
}

#[test]
fn what_moves_beside_its_own_rest_stays_apart_from_it_once_it_is_filled() {
    let (world, range) = filled(4);
    let moved = remap(&world.space, part(range, 0, 1), P, RemapTo::At(range.end));
    assert_eq!(moved, Ok(to(range.end, P)));
    assert_eq!(
        words(&world, to(range.start, 5 * P)),
        [None, Some(2), Some(3), Some(4), Some(1)]
    );
    assert_eq!(world.space.areas().len(), 2);
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
    let flags = VmaFlags::LOCKED | VmaFlags::ACCOUNTED;
    assert_eq!((area.prot, area.flags), (Prot::READ, flags));
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
