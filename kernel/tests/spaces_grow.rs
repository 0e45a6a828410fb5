//! Stacks that grow, and where things go that are mapped without being asked for a place.

mod common;

use common::{RW, World};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapOptions, MapRequest, Memory};
use kernel::mm::vma::{STACK_GAP, VmaFlags};
use kernel::uffd::{Features, Modes, Uffd};

const P: u64 = PAGE_SIZE;
const TOP: VirtAddr = VirtAddr::new(0x7000_0000_0000);

fn ask(at: Option<VirtAddr>, pages: u64) -> MapRequest {
    MapRequest {
        at,
        len: pages * P,
        prot: RW,
        memory: Memory::Own(&ANON),
    }
}

/// A stack of two pages that ends at [`TOP`].
fn stack(world: &World) -> VirtRange {
    let options = MapOptions {
        flags: VmaFlags::GROWS_DOWN,
        ..MapOptions::default()
    };
    let made = world.space.map_with(ask(Some(TOP - 2 * P), 2), options);
    made.expect("nothing is there")
}

fn start(world: &World) -> VirtAddr {
    world.space.query(TOP - P).expect("the stack").range.start
}

#[test]
fn a_touch_below_a_stack_makes_it_reach_down_to_the_touch() {
    let world = World::new();
    stack(&world);
    assert_eq!(world.store(TOP - 10 * P + 8, 1), Ok(()));
    assert_eq!(start(&world), TOP - 10 * P);
    assert_eq!(world.load(TOP - 7 * P), Ok(0));
    assert_eq!(world.space.areas().len(), 1);
}

#[test]
fn a_stack_does_not_grow_past_its_limit() {
    let world = World::new();
    stack(&world);
    world.space.set_stack_limit(16 * P);
    assert_eq!(world.store(TOP - 17 * P, 1), Err(FaultError::Unmapped));
    assert_eq!(start(&world), TOP - 2 * P);
    assert_eq!(world.store(TOP - 16 * P, 1), Ok(()));
}

#[test]
fn a_stack_stays_away_from_what_is_mapped_below_unless_nothing_may_touch_that() {
    for (prot, nearest) in [(RW, STACK_GAP), (Prot::READ, STACK_GAP), (Prot::empty(), 0)] {
        let world = World::new();
        stack(&world);
        let below = TOP - 2 * STACK_GAP;
        world.map_at(Some(below - P), 1, prot);
        if nearest > 0 {
            assert_eq!(world.store(below + (nearest - P), 1), Err(FaultError::Unmapped));
        }
        assert_eq!(world.store(below + nearest, 1), Ok(()));
        assert_eq!(start(&world), below + nearest);
    }
}

#[test]
fn an_ordinary_area_does_not_grow() {
    let world = World::new();
    let range = world.map(2, RW);
    assert_eq!(world.store(range.start - 8, 1), Err(FaultError::Unmapped));
}

#[test]
fn a_registered_stack_grows_with_its_registration() {
    let world = World::new();
    let range = stack(&world);
    let uffd = Uffd::new(&world.space, Features::SIGBUS);
    uffd.register(range, Modes::MISSING).expect("anonymous");
    assert!(world.store(TOP - 5 * P, 1).is_err());
    assert_eq!(start(&world), TOP - 5 * P);
    assert_eq!(world.modes_at(TOP - 5 * P), Some(Modes::MISSING));
}

#[test]
fn what_is_not_asked_for_a_place_goes_below_the_ceiling_and_clear_of_stacks() {
    let world = World::new();
    world.space.set_ceiling(TOP);
    stack(&world);
    let first = world.map(4, RW);
    assert_eq!(first.end, TOP - 2 * P - STACK_GAP);
    let next = world.map(4, Prot::READ);
    assert_eq!(next.end, first.start);
}

#[test]
fn with_no_room_below_the_ceiling_what_is_above_does() {
    let world = World::new();
    world.space.set_ceiling(VirtAddr::new(0x2_0000));
    let range = world.map(64, RW);
    assert_eq!(range.end, USER_TOP);
}

#[test]
fn a_hint_is_followed_where_there_is_room() {
    let world = World::new();
    let hint = VirtAddr::new(0x1234_5000);
    let options = MapOptions {
        near: Some(hint),
        ..MapOptions::default()
    };
    let first = world
        .space
        .map_with(ask(None, 2), options.clone())
        .expect("there is room");
    assert_eq!(first.start, hint);
    let other = MapRequest {
        prot: Prot::READ,
        ..ask(None, 2)
    };
    let second = world.space.map_with(other, options).expect("there is room");
    assert_eq!(second.end, USER_TOP);
}

#[test]
fn areas_that_differ_in_what_is_set_aside_are_two() {
    let world = World::new();
    let options = MapOptions {
        flags: VmaFlags::NO_RESERVE,
        ..MapOptions::default()
    };
    let first = world.map_at(Some(TOP), 2, RW);
    world
        .space
        .map_with(ask(Some(first.end), 2), options)
        .expect("nothing is there");
    assert_eq!(world.space.areas().len(), 2);
}
