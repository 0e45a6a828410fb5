//! What stays mapped where it was: the old place, if that is asked for, and shared memory that is mapped a second time.

use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{RemapError, RemapTo};
use kernel::mm::vma::VmaFlags;
use kernel::uffd::Features;

use super::{FAR, GIB, P, filled, leave, remap, some, words};
use crate::common::kinds::{Bed, Kind, Seen};
use crate::common::{page, part};

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
    let flags = |at| world.space.query(at).map(|area| area.flags - VmaFlags::ACCOUNTED);
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
