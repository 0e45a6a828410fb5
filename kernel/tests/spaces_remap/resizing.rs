//! Growing and shrinking.

use kernel::mm::addr::USER_TOP;
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, RemapError, RemapTo};

use super::{FAR, P, filled, remap, some, to, words};
use crate::common::kinds::map;
use crate::common::{RW, World, object_world, page, part, populate};

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
