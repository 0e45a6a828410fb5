//! Guard pages: where they go up, what they drop, and what takes them away (checked on Linux 6.18).

mod common;

use common::kinds::{Bed, Kind, Seen};
use common::{RW, World, bad_ranges, page, part, populate};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind as FrameKind, allocator};
use kernel::mm::pt::Prot;
use kernel::mm::space::GuardError;
use kernel::uffd::{Features, FillMode, Modes, Outcome, ReadError, Refusal};

const P: u64 = PAGE_SIZE;

#[test]
fn every_access_to_a_guard_fails_and_its_neighbours_do_not_notice() {
    for kind in Kind::SMALL {
        let bed = Bed::unregistered(kind, 3, Features::empty());
        (0..3).for_each(|i| bed.store(i, i + 1));
        assert_eq!(bed.space().install_guards(bed.one(1)), Ok(()));
        assert_eq!(bed.world.load(bed.at(1)), Err(FaultError::Guard));
        assert_eq!(bed.world.store(bed.at(1), 1), Err(FaultError::Guard));
        assert_eq!((bed.load(0), bed.load(2)), (1, 3));
        assert_eq!(bed.space().areas().len(), 1, "an area is not split for it");
    }
}

#[test]
fn a_guard_drops_the_page_of_anonymous_memory() {
    let world = World::new();
    let range = world.map(200, RW);
    populate(&world, range);
    assert_eq!(world.space.install_guards(range), Ok(()));
    assert_eq!(allocator().stats().of(FrameKind::Anon), 0);
    assert_eq!(world.space.remove_guards(range), Ok(()));
    assert!([0, 199].iter().all(|&i| world.load(page(range, i)) == Ok(0)));
}

#[test]
fn a_guard_over_a_shared_page_hides_it_in_this_mapping_only() {
    let bed = Bed::unregistered(Kind::Shmem, 1, Features::empty());
    let alias = common::kinds::map(&bed.world, bed.kind.memory(bed.object.as_ref()), None, P);
    bed.store(0, 7);
    assert_eq!(bed.space().install_guards(bed.range), Ok(()));
    assert_eq!(bed.world.load(alias.start), Ok(7));
    assert_eq!(bed.space().remove_guards(bed.range), Ok(()));
    assert_eq!(bed.load(0), 7);
}

#[test]
fn a_guard_goes_over_every_other_marker() {
    for kind in Kind::SMALL {
        let bed = Bed::new(kind, 6, Modes::WP, Features::WP_UNPOPULATED);
        let states = [
            Seen::Empty,
            Seen::Page,
            Seen::WpPage,
            Seen::WpMarker,
            Seen::Poison,
            Seen::Guard,
        ];
        (0..).zip(states).for_each(|(i, state)| bed.prepare(i, state));
        assert_eq!(bed.space().install_guards(bed.range), Ok(()));
        assert!((0..6).all(|i| bed.seen(i) == Seen::Guard), "{kind:?}");
        assert_eq!(bed.space().remove_guards(bed.range), Ok(()));
        assert!((0..6).all(|i| bed.seen(i) == Seen::Empty), "{kind:?}");
    }
}

#[test]
fn removing_guards_leaves_everything_else() {
    let bed = Bed::new(Kind::Anon, 5, Modes::WP, Features::WP_UNPOPULATED);
    let states = [
        Seen::Empty,
        Seen::Page,
        Seen::WpPage,
        Seen::WpMarker,
        Seen::Poison,
    ];
    (0..).zip(states).for_each(|(i, state)| bed.prepare(i, state));
    assert_eq!(bed.space().remove_guards(bed.range), Ok(()));
    assert!((0..).zip(states).all(|(i, state)| bed.seen(i) == state));
}

#[test]
fn a_guard_on_a_missing_page_sends_no_message() {
    let bed = Bed::new(Kind::Anon, 1, Modes::MISSING, Features::empty());
    assert_eq!(bed.space().install_guards(bed.range), Ok(()));
    assert_eq!(bed.world.load(bed.at(0)), Err(FaultError::Guard));
    assert_eq!(bed.uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn copy_goes_over_a_guard_and_poison_and_zeropage_do_not() {
    let bed = Bed::new(Kind::Anon, 1, Modes::MISSING, Features::empty());
    assert_eq!(bed.space().install_guards(bed.range), Ok(()));
    let exists = Outcome::Refused(Refusal::Exists);
    assert_eq!(bed.uffd.poison(bed.range, FillMode::empty()), exists);
    assert_eq!(bed.uffd.zeropage(bed.range, FillMode::empty()), exists);
    assert_eq!(bed.seen(0), Seen::Guard);
    let copied = bed.uffd.copy(bed.at(0), &[7; P as usize], P, FillMode::empty());
    assert_eq!((copied, bed.seen(0)), (Outcome::Done, Seen::Page));
}

#[test]
fn write_protecting_a_guard_and_back_leaves_it() {
    for kind in Kind::SMALL {
        let bed = Bed::new(kind, 1, Modes::WP, Features::WP_UNPOPULATED);
        bed.prepare(0, Seen::Guard);
        assert_eq!(bed.uffd.write_protect(bed.range), Ok(()));
        assert_eq!(bed.seen(0), Seen::Guard);
        let unprotected = bed.uffd.remove_write_protection(bed.range, FillMode::empty());
        assert_eq!((unprotected, bed.seen(0)), (Ok(()), Seen::Guard));
    }
}

#[test]
fn a_guard_outlives_discarding_and_changes_of_rights() {
    for kind in Kind::SMALL {
        let bed = Bed::unregistered(kind, 2, Features::empty());
        bed.prepare(0, Seen::Guard);
        assert_eq!(bed.space().discard(bed.range), Ok(()));
        assert_eq!(bed.seen(0), Seen::Guard, "{kind:?}");
        for prot in [Prot::READ, Prot::empty(), RW] {
            assert_eq!(bed.space().protect(bed.range, prot), Ok(()));
        }
        assert_eq!(bed.world.load(bed.at(0)), Err(FaultError::Guard));
    }
}

#[test]
fn unmapping_takes_guards_away() {
    let world = World::new();
    let range = world.map(2, RW);
    assert_eq!(world.space.install_guards(range), Ok(()));
    assert_eq!(world.space.unmap(range), Ok(()));
    assert_eq!(world.map_at(Some(range.start), 2, RW), range);
    assert_eq!(world.load(range.start), Ok(0));
}

#[test]
fn guards_around_a_hole_go_up_and_down_and_the_hole_is_reported() {
    let world = World::new();
    let range = world.map(5, RW);
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    assert_eq!(world.space.install_guards(range), Err(GuardError::NotMapped));
    for i in [0, 1, 3, 4] {
        assert_eq!(world.load(page(range, i)), Err(FaultError::Guard), "page {i}");
    }
    assert_eq!(world.space.remove_guards(range), Err(GuardError::NotMapped));
    assert!([0, 1, 3, 4].iter().all(|&i| world.load(page(range, i)) == Ok(0)));
}

#[test]
fn locked_memory_gets_no_guards_but_loses_them() {
    let world = World::new();
    let range = world.map(4, RW);
    assert_eq!(world.space.install_guards(part(range, 3, 1)), Ok(()));
    assert_eq!(world.space.lock(part(range, 2, 2)), Ok(()));
    assert_eq!(world.space.install_guards(range), Err(GuardError::Locked));
    let guards: Vec<_> = (0..4).map(|i| world.load(page(range, i)).is_err()).collect();
    assert_eq!(
        guards,
        [true, true, false, true],
        "those before the locked area are up"
    );
    assert_eq!(world.space.remove_guards(range), Ok(()));
    assert!((0..4).all(|i| world.load(page(range, i)) == Ok(0)));
}

#[test]
fn ranges_that_nobody_may_name_are_refused() {
    let world = World::new();
    let range = world.map(2, RW);
    for bad in bad_ranges(range) {
        assert_eq!(world.space.install_guards(bad), Err(GuardError::BadRange));
        assert_eq!(world.space.remove_guards(bad), Err(GuardError::BadRange));
    }
}

#[test]
fn a_guard_that_needs_a_node_that_is_not_to_be_had_is_refused_and_those_before_it_are_up() {
    let world = World::new();
    // The second half of one 2 MiB and the first of the next.
    let at = kernel::mm::addr::VirtAddr::new(0x1000_0000) + (2 << 20) - 2 * P;
    let range = world.map_at(Some(at), 4, RW);
    populate(&world, part(range, 0, 2));
    allocator().inject_failure(0);
    assert_eq!(world.space.install_guards(range), Err(GuardError::OutOfMemory));
    allocator().stop_injection();
    assert_eq!(world.load(range.start), Err(FaultError::Guard));
    assert_eq!(world.load(page(range, 1)), Err(FaultError::Guard));
    assert_eq!(world.load(page(range, 2)), Ok(0));
}
