//! WRITEPROTECT on anonymous memory, row by row as Linux has it (checked there on 6.18): which store becomes a message, who
//! is woken, and what is refused. Each test is named after what it claims.

mod common;

use common::{
    RW, World, answer, eventually, missing, page, part, populate, registered_with, returned, source,
    until_it_waits, was_woken, word, write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, Outcome, RangeError, ReadError, Refusal, Uffd, WriteProtectError, linux,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

fn registered(pages: u64) -> (World, Uffd, VirtRange) {
    registered_with(pages, Modes::WP, Features::empty())
}

/// A world with so many pages that are there and protected.
fn protected(pages: u64) -> (World, Uffd, VirtRange) {
    let (world, uffd, range) = registered(pages);
    populate(&world, range);
    assert_eq!(uffd.write_protect(range), Ok(()));
    (world, uffd, range)
}

#[test]
fn a_store_to_a_protected_page_is_a_message_and_happens_after_the_protection_ends() {
    let (world, uffd, range) = protected(1);
    let task = world.spawn_store(range.start + 16, 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(world.load(range.start + 16), Ok(0), "not written yet");
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(
        (world.load(range.start), world.load(range.start + 16)),
        (Ok(1), Ok(7))
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_load_of_a_protected_page_sends_no_message() {
    let (world, uffd, range) = protected(2);
    assert_eq!(
        (world.load(range.start), world.load(page(range, 1))),
        (Ok(1), Ok(2))
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn protection_reaches_a_task_that_goes_on_storing_through_its_translation_cache() {
    let (world, uffd, range) = registered(1);
    let task = world.spawn("storer", move || {
        let mut stored = 0u64;
        while uaccess::load(range.start + 8).is_ok_and(|stop| stop == 0) {
            stored += 1;
            uaccess::store(range.start, stored).expect("mapped");
        }
        stored
    });
    eventually("it stores", || world.load(range.start) != Ok(0));
    assert_eq!(uffd.write_protect(range), Ok(()));
    until_it_waits(task.task());
    let seen = world.load(range.start).expect("mapped");
    assert_eq!(world.load(range.start), Ok(seen), "nothing is stored meanwhile");
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(world.store(range.start + 8, 1), Ok(()));
    assert!(returned(task) > seen);
}

#[test]
fn the_address_is_the_pages_unless_the_exact_one_was_asked_for() {
    for (features, offset) in [(Features::empty(), 0), (Features::EXACT_ADDRESS, 0x238)] {
        let (world, uffd, range) = registered_with(2, Modes::WP, features);
        populate(&world, range);
        assert_eq!(uffd.write_protect(range), Ok(()));
        let _waiter = world.stuck_storing_at(page(range, 1) + 0x238);
        assert_eq!(uffd.try_read_event(), write_protected(page(range, 1) + offset));
        uffd.close();
    }
}

#[test]
fn two_tasks_on_one_page_are_two_messages_and_one_removal_wakes_both() {
    let (world, uffd, range) = protected(1);
    let tasks = [
        world.spawn_store(range.start, 5),
        world.spawn_store(range.start + 64, 6),
    ];
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    assert_eq!(
        (world.load(range.start), world.load(range.start + 64)),
        (Ok(5), Ok(6))
    );
}

#[test]
fn removing_protection_wakes_the_waiters_of_the_range_and_nobody_elses() {
    let (world, uffd, range) = protected(3);
    let waiters: Vec<_> = [0, 1, 1, 2]
        .iter()
        .map(|i| world.stuck_storing_at(page(range, *i)))
        .collect();
    assert!(uffd.try_read_event().is_ok());
    assert_eq!(uffd.remove_write_protection(part(range, 1, 1), NOW), Ok(()));
    assert_eq!(
        waiters.iter().map(|waiter| was_woken(waiter)).collect::<Vec<_>>(),
        [false, true, true, false]
    );
    uffd.close();
}

#[test]
fn dontwake_removes_protection_and_leaves_the_waiters_asleep() {
    let (world, uffd, range) = protected(1);
    let waiter = world.stuck_storing_at(range.start);
    assert_eq!(uffd.remove_write_protection(range, FillMode::DONTWAKE), Ok(()));
    assert!(!was_woken(&waiter));
    assert_eq!(world.store(range.start, 9), Ok(()), "others may write");
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn protecting_never_wakes() {
    let (world, uffd, range) = registered_with(2, BOTH, Features::WP_UNPOPULATED);
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, FillMode::WP),
        Outcome::Done
    );
    let waiters = [
        world.stuck_storing_at(range.start),
        world.stuck_at(page(range, 1)),
    ];
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert!(waiters.iter().all(|waiter| !was_woken(waiter)));
    uffd.close();
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
}

#[test]
fn a_task_that_is_woken_while_the_page_is_protected_sends_a_new_message() {
    let (world, uffd, range) = protected(1);
    let task = world.spawn_store(range.start, 4);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.wake(range), Ok(()));
    let mut again = NOTHING;
    eventually("the message comes again", || {
        again = uffd.try_read_event();
        again.is_ok()
    });
    assert_eq!(again, write_protected(range.start));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn protecting_and_removing_are_idempotent() {
    let (world, uffd, range) = protected(2);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let waiter = world.stuck_storing_at(range.start);
    for _ in 0..2 {
        assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    }
    assert!(was_woken(&waiter));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(world.load(page(range, 1)), Ok(2));
}

#[test]
fn removing_protection_of_clean_and_of_absent_pages_is_fine() {
    let (world, uffd, range) = registered(3);
    populate(&world, part(range, 0, 1));
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    for i in 0..3 {
        assert_eq!(world.store(page(range, i), 5), Ok(()));
    }
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn an_unshared_page_is_writable_at_once_when_its_protection_ends() {
    let (world, uffd, range) = protected(1);
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    let faults = world.space.fault_count();
    assert_eq!(world.store(range.start, 8), Ok(()));
    assert_eq!(world.space.fault_count(), faults, "no second fault");
    assert_eq!(allocator().stats().of(Kind::Anon), 1, "no copy");
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn the_page_of_zeros_can_be_protected_and_a_store_afterwards_gets_a_copy() {
    let (world, uffd, range) = registered(2);
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let tasks = [
        world.spawn_store(range.start, 3),
        world.spawn_store(page(range, 1), 4),
    ];
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    for _ in 0..2 {
        let event = uffd.try_read_event();
        assert!(
            event == write_protected(range.start) || event == write_protected(page(range, 1)),
            "{event:?}"
        );
    }
    assert_eq!(allocator().stats().of(Kind::Anon), 0);
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    assert_eq!(uffd.try_read_event(), NOTHING, "one message each");
    let plain = world.map(1, RW);
    assert_eq!(
        (
            world.load(range.start),
            world.load(page(range, 1)),
            world.load(plain.start)
        ),
        (Ok(3), Ok(4), Ok(0)),
        "the shared page is still zero"
    );
}

#[test]
fn copy_with_wp_wakes_the_storer_who_then_raises_a_write_protect_fault() {
    let (world, uffd, range) = registered_with(1, BOTH, Features::empty());
    let task = world.spawn_store(range.start, 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    let mut second = NOTHING;
    eventually("the second message", || {
        second = uffd.try_read_event();
        second.is_ok()
    });
    assert_eq!(second, write_protected(range.start));
    until_it_waits(task.task());
    assert_eq!(world.load(range.start), Ok(word(5)));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(world.load(range.start), Ok(7));
}

#[test]
fn copy_with_wp_and_dontwake_leaves_the_storer_asleep() {
    let (world, uffd, range) = registered_with(20, BOTH, Features::empty());
    let waiter = world.stuck_storing_at(page(range, 19));
    let mode = FillMode::WP | FillMode::DONTWAKE;
    assert_eq!(
        uffd.copy(range.start, &source(1, 20), 20 * P, mode),
        Outcome::Done
    );
    assert!(!was_woken(&waiter));
    let waiters: Vec<_> = (0..20).map(|i| world.stuck_storing_at(page(range, i))).collect();
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert!(was_woken(&waiter) && waiters.iter().all(|waiter| was_woken(waiter)));
}

#[test]
fn copy_without_wp_leaves_the_page_unprotected() {
    let (world, uffd, range) = registered_with(1, BOTH, Features::empty());
    assert_eq!(uffd.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
    assert_eq!(world.store(range.start, 1), Ok(()));
}

#[test]
fn copy_with_wp_into_an_area_without_wp_is_einval_also_in_the_field() {
    let (world, uffd, range) = registered_with(2, Modes::MISSING, Features::empty());
    let waiter = world.stuck_at(range.start);
    for pages in 1..=2 {
        let outcome = uffd.copy(range.start, &source(1, pages), pages * P, FillMode::WP);
        assert_eq!(
            (outcome, answer(outcome, pages * P)),
            (Outcome::Refused(Refusal::NoWriteProtect), (Some(22), Some(-22)))
        );
    }
    assert!(!was_woken(&waiter));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done, "nothing was filled");
    assert!(was_woken(&waiter));
}

#[test]
fn zeropage_and_poison_have_no_wp_mode() {
    let (_world, uffd, range) = registered_with(1, BOTH, Features::empty());
    for outcome in [
        uffd.zeropage(range, FillMode::WP),
        uffd.poison(range, FillMode::WP),
    ] {
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::UnknownMode), (Some(22), None))
        );
    }
}

#[test]
fn copy_over_a_protected_page_is_eexist_and_leaves_it_protected() {
    let (world, uffd, range) = protected(1);
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, NOW),
        Outcome::Refused(Refusal::Exists)
    );
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Refused(Refusal::Exists));
    let _waiter = world.stuck_storing_at(range.start);
    uffd.close();
}

#[test]
fn a_forbidden_store_fails_without_a_message_even_on_a_protected_page() {
    let (world, uffd, range) = protected(1);
    world.space.protect(range, Prot::READ).expect("mapped");
    assert_eq!(world.store(range.start, 9), Err(FaultError::Forbidden));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

fn errno(result: Result<(), WriteProtectError>) -> Option<i64> {
    result.err().map(|error| linux::write_protect(error).number())
}

#[test]
fn bad_ranges_are_einval() {
    let (_world, uffd, range) = registered(2);
    let (start, top) = (range.start, USER_TOP);
    let rows = [
        (start + 8, range.end, RangeError::Unaligned),
        (start, range.end - 1, RangeError::Unaligned),
        (start, start, RangeError::Empty),
        (top, top + P, RangeError::BeyondTop),
        (top - P, top + P, RangeError::BeyondTop),
        (start, VirtAddr::new(0xffff_ffff_ffff_f000), RangeError::BeyondTop),
    ];
    for (start, end, why) in rows {
        let bad = VirtRange { start, end };
        for result in [uffd.write_protect(bad), uffd.remove_write_protection(bad, NOW)] {
            assert_eq!(
                (result, errno(result)),
                (Err(WriteProtectError::Range(why)), Some(22)),
                "{bad:?}"
            );
        }
    }
}

#[test]
fn the_checks_come_in_order_range_mode_target_registration() {
    let (world, uffd, range) = registered(1);
    let odd = FillMode::from_bits_retain(1 << 5);
    let empty = VirtRange {
        start: range.start,
        end: range.start,
    };
    let plain = world.map(1, Prot::READ);
    let unknown = Err(WriteProtectError::UnknownMode);
    assert_eq!(
        uffd.remove_write_protection(empty, odd),
        Err(WriteProtectError::Range(RangeError::Empty))
    );
    for mode in [odd, FillMode::WP, FillMode::WP | FillMode::DONTWAKE] {
        assert_eq!(uffd.remove_write_protection(plain, mode), unknown, "{mode:?}");
    }
    assert_eq!(errno(unknown), Some(22));
    let World { space, machine } = world;
    drop(space);
    assert_eq!(uffd.remove_write_protection(range, odd), unknown);
    for result in [
        uffd.write_protect(plain),
        uffd.remove_write_protection(plain, NOW),
    ] {
        assert_eq!(
            (result, errno(result)),
            (Err(WriteProtectError::SpaceGone), Some(3))
        );
    }
    assert_eq!(
        uffd.write_protect(empty),
        Err(WriteProtectError::Range(RangeError::Empty))
    );
    drop(machine);
}
