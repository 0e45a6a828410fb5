//! Moving to a fixed place, whatever is there.

use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::pt::Prot;
use kernel::mm::space::RemapTo;

use super::{FAR, GIB, P, filled, remap, some, to, words};
use crate::common::{RW, page, part, populate};

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
        3,
        "memory that was filled elsewhere stays an area of its own"
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
