//! Requests that are refused, and moves for which memory is short.

use kernel::mm::addr::USER_TOP;
use kernel::mm::cache::Object;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MAP_BOTTOM, MapRequest, Memory, RemapError, RemapRequest, RemapTo};
use kernel::mm::vma::{MAX_VMAS, Sharing};

use super::{FAR, GIB, P, filled, remap, some, words};
use crate::common::kinds::map;
use crate::common::{RW, object_world, page, part, populate};

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
