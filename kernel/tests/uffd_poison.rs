//! POISON on anonymous memory, row by row as Linux has it (checked there on 6.18). Each test is named after what it claims.

mod common;

use common::{
    RW, World, answer, missing, page, part, returned, source, until_it_waits, was_woken, word,
    write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP};
use kernel::mm::fault::{self, FaultError};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, RangeError, ReadError, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

fn registered_with(pages: u64, modes: Modes, prot: Prot) -> (World, Uffd, VirtRange) {
    let world = World::new();
    let range = world.map(pages, prot);
    let uffd = Uffd::new(&world.space, Features::WP_UNPOPULATED);
    uffd.register(range, modes).expect("anonymous memory can");
    (world, uffd, range)
}

fn registered(pages: u64) -> (World, Uffd, VirtRange) {
    registered_with(pages, Modes::MISSING, RW)
}

/// Asserts that loads and stores of every page fail as poisoned, and send no message.
#[track_caller]
fn assert_poisoned(world: &World, range: VirtRange) {
    for i in 0..range.pages() {
        let at = page(range, i) + 8;
        assert_eq!(world.load(at), Err(FaultError::Poisoned), "load of page {i}");
        assert_eq!(world.store(at, 1), Err(FaultError::Poisoned), "store to page {i}");
    }
}

#[test]
fn loads_and_stores_of_poisoned_pages_fail_without_a_message() {
    let (world, uffd, range) = registered(20);
    let outcome = uffd.poison(range, NOW);
    assert_eq!(
        (outcome, answer(outcome, 20 * P)),
        (Outcome::Done, (None, Some(20 * P as i64)))
    );
    assert_poisoned(&world, range);
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(allocator().stats().of(Kind::Anon), 0);
}

#[test]
fn the_failure_names_the_exact_address() {
    let (world, uffd, range) = registered(1);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    let error = returned(world.spawn("loader", move || {
        let _ = uaccess::load(range.start + 0x238);
        fault::last_error()
    }));
    assert_eq!(error, Some((range.start + 0x238, FaultError::Poisoned)));
}

#[test]
fn whoever_waits_for_the_page_is_woken_and_fails() {
    let (world, uffd, range) = registered(3);
    let tasks = [
        world.spawn("loader", move || uaccess::load(range.start).map(drop)),
        world.spawn("storer", move || uaccess::store(page(range, 1), 1)),
    ];
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    let other = world.stuck_at(page(range, 2));
    assert!(uffd.try_read_event().is_ok());
    assert_eq!(uffd.poison(part(range, 0, 2), NOW), Outcome::Done);
    for task in tasks {
        let result = returned(task).map_err(|error| error.why);
        assert_eq!(result, Err(FaultError::Poisoned));
    }
    assert!(!was_woken(&other));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&other));
}

#[test]
fn dontwake_poisons_and_leaves_the_waiters_asleep() {
    let (world, uffd, range) = registered(1);
    let waiter = world.stuck_at(range.start);
    assert_eq!(uffd.poison(range, FillMode::DONTWAKE), Outcome::Done);
    assert!(!was_woken(&waiter));
    assert_poisoned(&world, range);
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn poison_over_a_page_or_poison_is_eexist_and_wakes_nobody() {
    let (world, uffd, range) = registered(3);
    let waiter = world.stuck_at(page(range, 2));
    assert_eq!(uffd.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(uffd.poison(part(range, 2, 1), FillMode::DONTWAKE), Outcome::Done);
    for i in 0..3 {
        let outcome = uffd.poison(part(range, i, 1), NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Exists), (Some(17), Some(-17))),
            "page {i}"
        );
    }
    assert!(!was_woken(&waiter));
    assert_eq!(
        (world.load(range.start), world.load(page(range, 1))),
        (Ok(word(5)), Ok(0))
    );
    uffd.close();
    assert!(was_woken(&waiter));
}

#[test]
fn poison_over_a_write_protect_marker_is_eexist() {
    let (world, uffd, range) = registered_with(1, Modes::WP, RW);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(uffd.poison(range, NOW), Outcome::Refused(Refusal::Exists));
    let _waiter = world.stuck_storing_at(range.start);
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    uffd.close();
}

#[test]
fn partial_progress_is_eagain_with_the_bytes_done_and_wakes_the_prefix() {
    let (world, uffd, range) = registered(30);
    assert_eq!(uffd.zeropage(part(range, 20, 1), NOW), Outcome::Done);
    let (first, last) = (world.stuck_at(page(range, 19)), world.stuck_at(page(range, 21)));
    let outcome = uffd.poison(range, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: 20 * P,
            why: Refusal::Exists
        }
    );
    assert_eq!(answer(outcome, 30 * P), (Some(11), Some(20 * P as i64)));
    assert_eq!((was_woken(&first), was_woken(&last)), (true, false));
    assert_poisoned(&world, part(range, 0, 20));
    assert_eq!(world.load(page(range, 20)), Ok(0));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&last));
}

#[test]
fn zeropage_over_poison_is_eexist() {
    let (world, uffd, range) = registered(2);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    assert_eq!(
        uffd.zeropage(part(range, 0, 1), NOW),
        Outcome::Refused(Refusal::Exists)
    );
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Refused(Refusal::Exists));
    assert_poisoned(&world, range);
}

#[test]
fn copy_goes_over_poison() {
    let (world, uffd, range) = registered_with(21, BOTH, RW);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    assert_eq!(uffd.copy(range.start, &source(1, 20), 20 * P, NOW), Outcome::Done);
    assert_eq!(world.load(page(range, 19)), Ok(word(20)));
    assert_eq!(world.store(page(range, 19), 1), Ok(()));
    assert_eq!(
        uffd.copy(page(range, 20), &source(3, 1), P, FillMode::WP),
        Outcome::Done
    );
    assert_eq!(world.load(page(range, 20)), Ok(word(3)));
    let _waiter = world.stuck_storing_at(page(range, 20));
    uffd.close();
}

#[test]
fn protecting_and_unprotecting_a_poisoned_page_leaves_it_poisoned() {
    let (world, uffd, range) = registered_with(2, BOTH, RW);
    assert_eq!(uffd.poison(part(range, 0, 1), NOW), Outcome::Done);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_poisoned(&world, part(range, 0, 1));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_poisoned(&world, part(range, 0, 1));
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
}

#[test]
fn poison_outlives_unregistering_and_closing() {
    for modes in [Modes::MISSING, Modes::WP, BOTH] {
        for close in [false, true] {
            let (world, uffd, range) = registered_with(2, modes, RW);
            assert_eq!(uffd.poison(range, NOW), Outcome::Done);
            if close {
                drop(uffd);
            } else {
                uffd.unregister(range).expect("ours");
            }
            assert_poisoned(&world, range);
        }
    }
}

#[test]
fn poison_outlives_a_change_of_rights() {
    let (world, uffd, range) = registered(1);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    world.space.protect(range, Prot::READ).expect("mapped");
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
    assert_eq!(
        world.store(range.start, 1),
        Err(FaultError::Forbidden),
        "rights come first"
    );
    world.space.protect(range, Prot::empty()).expect("mapped");
    assert_eq!(world.load(range.start), Err(FaultError::Forbidden));
    world.space.protect(range, RW).expect("mapped");
    assert_poisoned(&world, range);
}

#[test]
fn discarding_drops_poison_and_arms_missing_faults_again() {
    let (world, uffd, range) = registered(2);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    world.space.discard(part(range, 0, 1)).expect("mapped");
    let waiter = world.stuck_at(range.start);
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.zeropage(part(range, 0, 1), NOW), Outcome::Done);
    assert!(was_woken(&waiter));
    assert_poisoned(&world, part(range, 1, 1));
}

#[test]
fn unmapping_drops_poison() {
    let (world, uffd, range) = registered(1);
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    world.space.unmap(range).expect("mapped");
    let again = world.map_at(Some(range.start), 1, RW);
    assert_eq!(world.store(again.start, 1), Ok(()));
}

#[test]
fn rights_do_not_matter_for_poisoning() {
    for prot in [Prot::READ, Prot::empty()] {
        let (world, uffd, range) = registered_with(1, Modes::MISSING, prot);
        assert_eq!(uffd.poison(range, NOW), Outcome::Done, "{prot:?}");
        world.space.protect(range, RW).expect("mapped");
        assert_poisoned(&world, range);
    }
}

#[test]
fn neither_the_mode_nor_the_owner_of_the_registration_matters() {
    let (world, owner, range) = registered_with(1, Modes::WP, RW);
    let other = Uffd::new(&world.space, Features::empty());
    assert_eq!(other.poison(range, NOW), Outcome::Done);
    assert_poisoned(&world, range);
    drop(owner);
}

#[test]
fn memory_outside_of_one_registered_area_is_enoent_and_nothing_is_done() {
    let (world, uffd, range) = registered(4);
    uffd.unregister(part(range, 2, 1)).expect("ours");
    world.space.unmap(part(range, 3, 1)).expect("mapped");
    for bad in [
        part(range, 2, 1),
        part(range, 3, 1),
        part(range, 1, 2),
        part(range, 0, 4),
    ] {
        let outcome = uffd.poison(bad, NOW);
        assert_eq!(
            (outcome, answer(outcome, bad.len())),
            (Outcome::Refused(Refusal::NotRegistered), (Some(2), Some(-2))),
            "{bad:?}"
        );
    }
    assert_eq!(uffd.poison(part(range, 0, 2), NOW), Outcome::Done);
    assert_eq!(world.store(page(range, 2), 1), Ok(()));
}

#[test]
fn the_checks_come_in_order_range_mode_target_and_leave_the_field_untouched() {
    let (world, uffd, range) = registered(1);
    let odd = FillMode::from_bits_retain(1 << 5);
    let bad = [
        (range.start + 8, range.end, RangeError::Unaligned),
        (range.start, range.start, RangeError::Empty),
        (range.start, USER_TOP + P, RangeError::BeyondTop),
    ];
    let World { space, machine } = world;
    drop(space);
    let untouched = |outcome, errno| assert_eq!(answer(outcome, P), (Some(errno), None));
    for (start, end, why) in bad {
        let outcome = uffd.poison(VirtRange { start, end }, odd);
        assert_eq!(outcome, Outcome::Refused(Refusal::Range(why)));
        untouched(outcome, 22);
    }
    let outcome = uffd.poison(range, odd);
    assert_eq!(outcome, Outcome::Refused(Refusal::UnknownMode));
    untouched(outcome, 22);
    let outcome = uffd.poison(range, NOW);
    assert_eq!(outcome, Outcome::Refused(Refusal::SpaceGone));
    untouched(outcome, 3);
    drop(machine);
}

#[test]
fn no_frame_for_the_tables_is_enomem_and_leaves_no_trace() {
    // A fresh space needs three nodes for its first page.
    for successes in 0..3 {
        let (world, uffd, range) = registered(2);
        let waiter = world.stuck_at(range.start);
        for pages in 1..=2 {
            allocator().inject_failure(if pages == 1 { successes } else { 0 });
            let outcome = uffd.poison(part(range, 0, pages), NOW);
            allocator().stop_injection();
            assert_eq!(
                (outcome, answer(outcome, pages * P)),
                (Outcome::Refused(Refusal::OutOfMemory), (Some(12), Some(-12))),
                "{pages} pages after {successes}"
            );
        }
        assert!(!was_woken(&waiter));
        assert_eq!(uffd.poison(range, NOW), Outcome::Done);
        assert!(was_woken(&waiter));
        assert_poisoned(&world, range);
    }
}
