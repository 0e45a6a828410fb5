//! How long write protection of anonymous memory lasts, row by row as Linux has it (checked there on 6.18): changes of
//! rights, of contents and of the registration. Each test is named after what it claims.

mod common;

use common::{RW, World, page, part, populate, registered_with, returned, source, until_it_waits, was_woken};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::{Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, Uffd, WriteProtectError};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);
const NOENT: Result<(), WriteProtectError> = Err(WriteProtectError::NotRegistered);

/// A world with so many pages that are there and protected.
fn protected(pages: u64) -> (World, Uffd, VirtRange) {
    let (world, uffd, range) = registered_with(pages, Modes::WP, Features::empty());
    populate(&world, range);
    assert_eq!(uffd.write_protect(range), Ok(()));
    (world, uffd, range)
}

#[test]
fn registering_a_subset_of_the_modes_changes_nothing() {
    for subset in [Modes::MISSING, Modes::WP, BOTH] {
        let (world, uffd, range) = registered_with(1, BOTH, Features::empty());
        assert_eq!(
            uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
            Outcome::Done
        );
        assert!(uffd.register(range, subset).is_ok());
        assert_eq!(world.modes_at(range.start), Some(BOTH), "{subset:?}");
        let _waiter = world.stuck_storing_at(range.start);
        uffd.close();
    }
}

#[test]
fn registering_other_modes_replaces_the_old_ones() {
    let (world, uffd, range) = registered_with(1, Modes::MISSING, Features::empty());
    assert!(uffd.register(range, Modes::WP).is_ok());
    assert_eq!(world.modes_at(range.start), Some(Modes::WP));
    assert_eq!(
        world.load(range.start),
        Ok(0),
        "missing pages are not trapped any more"
    );
    assert!(uffd.register(range, BOTH).is_ok());
    assert_eq!(world.modes_at(range.start), Some(BOTH));
}

#[test]
fn protection_left_by_a_registration_that_was_replaced_by_missing_traps_no_more() {
    let (world, uffd, range) = protected(2);
    world.space.discard(part(range, 1, 1)).expect("mapped");
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(world.store(page(range, 1), 9), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(
        (world.load(range.start), world.load(page(range, 1))),
        (Ok(9), Ok(9))
    );
    assert_eq!(uffd.write_protect(range), NOENT);
}

#[test]
fn a_marker_left_by_a_registration_that_was_replaced_is_gone_when_somebody_waits_for_the_page() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::WP_UNPOPULATED);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let entry = |index| world.space.entry(page(range, index)).0;
    assert_eq!(entry(0), Entry::Absent(Marker::None), "as on Linux");
    assert_eq!(entry(1), Entry::Absent(Marker::UffdWp), "nobody has touched it");
    // So it can be what another page is moved to, and the load is served.
    assert_eq!(uffd.zeropage(part(range, 0, 1), NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
    assert_eq!(world.store(range.start, 9), Ok(()));
    uffd.close();
}

#[test]
fn taking_the_right_to_write_away_and_giving_it_back_keeps_the_protection() {
    let (world, uffd, range) = registered_with(3, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 1));
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(uffd.write_protect(range), Ok(()));
    for prot in [Prot::READ, RW, Prot::empty(), RW] {
        world.space.protect(range, prot).expect("mapped");
    }
    assert_eq!(world.load(range.start), Ok(1));
    let waiters = [0, 1, 2].map(|i| world.stuck_storing_at(page(range, i)));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
}

#[test]
fn removing_protection_gives_no_right_that_the_area_does_not_have() {
    let (world, uffd, range) = protected(1);
    world.space.protect(range, Prot::READ).expect("mapped");
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(world.store(range.start, 9), Err(FaultError::Forbidden));
    world.space.protect(range, RW).expect("mapped");
    assert_eq!(world.store(range.start, 9), Ok(()));
}

#[test]
fn discarding_drops_the_protection_of_pages_and_markers() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 1));
    assert_eq!(uffd.write_protect(range), Ok(()));
    world.space.discard(range).expect("mapped");
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(world.store(page(range, 1), 9), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn unregistering_clears_pages_and_markers_of_its_range_only() {
    let (world, uffd, range) = registered_with(4, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 2));
    assert_eq!(uffd.write_protect(range), Ok(()));
    uffd.unregister(part(range, 1, 2)).expect("ours");
    assert_eq!(world.store(page(range, 1), 9), Ok(()));
    assert_eq!(world.store(page(range, 2), 9), Ok(()));
    let _waiters = [0, 3].map(|i| world.stuck_storing_at(page(range, i)));
    world.space.discard(part(range, 2, 1)).expect("mapped");
    // What is cleared stays clear when it is registered again.
    uffd.register(part(range, 1, 2), Modes::WP)
        .expect("anonymous memory can");
    assert_eq!(world.store(page(range, 1), 9), Ok(()));
    assert_eq!(world.store(page(range, 2), 9), Ok(()));
    uffd.close();
}

#[test]
fn closing_clears_protection_and_wakes_the_storers_who_find_plain_memory() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 1));
    assert_eq!(uffd.write_protect(range), Ok(()));
    let tasks = [0, 1].map(|i| world.spawn_store(page(range, i), 9));
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    drop(uffd);
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    let next = Uffd::new(&world.space, Features::empty());
    next.register(range, Modes::WP).expect("nobody's");
    assert_eq!(world.store(range.start, 10), Ok(()));
    assert_eq!(world.store(page(range, 1), 10), Ok(()));
}

#[test]
fn unregistering_leaves_the_waiters_of_a_range_without_missing_asleep() {
    let (world, uffd, range) = protected(1);
    let task = world.spawn_store(range.start, 9);
    until_it_waits(task.task());
    uffd.unregister(range).expect("ours");
    assert!(task.task().fault.is_waiting());
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(returned(task), Ok(()), "it finds plain memory");
}

#[test]
fn unregistering_wakes_the_storers_of_a_range_with_missing() {
    let (world, uffd, range) = registered_with(1, BOTH, Features::empty());
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    let task = world.spawn_store(range.start, 9);
    until_it_waits(task.task());
    uffd.unregister(range).expect("ours");
    assert_eq!(returned(task), Ok(()));
    assert_eq!(world.load(range.start), Ok(9));
}
