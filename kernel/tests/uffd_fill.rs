//! COPY and ZEROPAGE on anonymous memory, row by row as Linux has them (checked there on 6.18). Each test is named after
//! what it claims.

mod common;

use common::{RW, World, answer, page, part, returned, source, until_it_waits, was_woken, word};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Modes, Outcome, RangeError, ReadError, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

/// A world with `pages` of registered memory.
fn registered(pages: u64, prot: Prot) -> (World, Uffd, VirtRange) {
    let world = World::new();
    let range = world.map(pages, prot);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    (world, uffd, range)
}

fn loads(world: &World, range: VirtRange) -> Vec<Result<u64, FaultError>> {
    world.run(|| {
        (0..range.pages())
            .map(|i| uaccess::load(page(range, i)).map_err(|error| error.why))
            .collect()
    })
}

#[test]
fn copy_fills_absent_pages_with_the_bytes_of_the_source() {
    let (world, uffd, range) = registered(20, RW);
    let outcome = uffd.copy(range.start, &source(1, 20), 20 * P, NOW);
    assert_eq!(
        (outcome, answer(outcome, 20 * P)),
        (Outcome::Done, (None, Some(20 * P as i64)))
    );
    let expected: Vec<_> = (1..=20).map(|byte| Ok(word(byte))).collect();
    assert_eq!(loads(&world, range), expected);
    assert_eq!(allocator().stats().of(Kind::Anon), 20);
}

#[test]
fn copied_pages_are_private_and_may_be_written() {
    let (world, uffd, range) = registered(1, RW);
    let bytes = source(9, 1);
    assert_eq!(uffd.copy(range.start, &bytes, P, NOW), Outcome::Done);
    world.run(|| assert_eq!(uaccess::store(range.start, 1), Ok(())));
    assert_eq!(bytes, source(9, 1));
    assert_eq!(allocator().stats().of(Kind::Anon), 1, "no copy of the copy");
}

#[test]
fn zeropage_maps_the_shared_page_of_zeros_and_a_later_store_sends_no_message() {
    let (world, uffd, range) = registered(3, RW);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(allocator().stats().of(Kind::Anon), 0);
    world.run(|| {
        assert_eq!(uaccess::load(range.start), Ok(0));
        assert_eq!(uaccess::store(page(range, 1), 8), Ok(()));
        assert_eq!(
            (uaccess::load(page(range, 1)), uaccess::load(page(range, 2))),
            (Ok(8), Ok(0))
        );
    });
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn bad_ranges_are_einval_and_leave_the_field_untouched() {
    let (_world, uffd, range) = registered(2, RW);
    let (start, top) = (range.start, USER_TOP);
    let rows = [
        (start + 8, P, RangeError::Unaligned),
        (start, 100, RangeError::Unaligned),
        (start, 0, RangeError::Empty),
        (top, P, RangeError::BeyondTop),
        (top - P, 2 * P, RangeError::BeyondTop),
        (VirtAddr::new(0xffff_ffff_ffff_f000), 2 * P, RangeError::BeyondTop),
        (start, !(P - 1), RangeError::BeyondTop),
    ];
    for (dst, len, why) in rows {
        let outcome = uffd.copy(dst, &source(1, 1), len, NOW);
        assert_eq!(
            outcome,
            Outcome::Refused(Refusal::Range(why)),
            "{dst:?} + {len:#x}"
        );
        assert_eq!(answer(outcome, len), (Some(22), None));
        if let Some(range) = VirtRange::from_len(dst, len) {
            assert_eq!(uffd.zeropage(range, NOW), Outcome::Refused(Refusal::Range(why)));
        }
    }
}

#[test]
fn an_unknown_mode_bit_is_einval_after_the_range_and_before_the_target() {
    let (world, uffd, range) = registered(1, RW);
    let odd = FillMode::from_bits_retain(1 << 5);
    let outcome = uffd.zeropage(range, odd);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::UnknownMode), (Some(22), None))
    );
    let empty = VirtRange {
        start: range.start,
        end: range.start,
    };
    assert_eq!(
        uffd.zeropage(empty, odd),
        Outcome::Refused(Refusal::Range(RangeError::Empty))
    );
    let World { space, machine } = world;
    drop(space);
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, odd),
        Outcome::Refused(Refusal::UnknownMode)
    );
    drop(machine);
}

#[test]
fn a_target_that_is_gone_is_esrch_and_leaves_the_field_untouched() {
    let (world, uffd, range) = registered(1, RW);
    let World { space, machine } = world;
    drop(space);
    for outcome in [
        uffd.copy(range.start, &source(1, 1), P, NOW),
        uffd.zeropage(range, NOW),
    ] {
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::SpaceGone), (Some(3), None))
        );
    }
    drop(machine);
}

#[test]
fn memory_that_is_not_mapped_is_enoent() {
    let (world, uffd, range) = registered(2, RW);
    world.space.unmap(range).expect("mapped");
    for outcome in [
        uffd.copy(range.start, &source(1, 1), P, NOW),
        uffd.zeropage(range, NOW),
    ] {
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::NotRegistered), (Some(2), Some(-2)))
        );
    }
}

#[test]
fn memory_that_is_not_registered_is_enoent() {
    let (world, uffd, _) = registered(1, RW);
    let plain = world.map(1, Prot::READ);
    assert_eq!(
        uffd.copy(plain.start, &source(1, 1), P, NOW),
        Outcome::Refused(Refusal::NotRegistered)
    );
}

#[test]
fn a_range_that_leaves_its_area_is_enoent_although_the_first_pages_would_do() {
    let (world, uffd, range) = registered(4, RW);
    uffd.unregister(part(range, 2, 2)).expect("ours");
    let outcome = uffd.copy(range.start, &source(1, 4), 4 * P, NOW);
    assert_eq!(answer(outcome, 4 * P), (Some(2), Some(-2)));
    assert_eq!(
        uffd.zeropage(part(range, 1, 2), NOW),
        Outcome::Refused(Refusal::NotRegistered)
    );
    assert_eq!(allocator().stats().of(Kind::Anon), 0, "nothing was done");
    drop(world);
}

#[test]
fn crossing_a_border_of_rights_is_enoent() {
    let (world, uffd, range) = registered(4, RW);
    world
        .space
        .protect(part(range, 2, 2), Prot::READ)
        .expect("mapped");
    assert_eq!(
        uffd.zeropage(range, NOW),
        Outcome::Refused(Refusal::NotRegistered)
    );
    assert_eq!(uffd.zeropage(part(range, 0, 2), NOW), Outcome::Done);
    assert_eq!(uffd.zeropage(part(range, 2, 2), NOW), Outcome::Done);
}

#[test]
fn crossing_a_border_of_contexts_is_enoent() {
    let (world, uffd, range) = registered(4, RW);
    uffd.unregister(part(range, 2, 2)).expect("ours");
    let other = Uffd::new(&world.space, Features::empty());
    other
        .register(part(range, 2, 2), Modes::MISSING)
        .expect("nobody else's");
    assert_eq!(
        uffd.zeropage(range, NOW),
        Outcome::Refused(Refusal::NotRegistered)
    );
}

#[test]
fn another_context_of_the_space_may_fill_but_its_wake_does_not_reach_the_owners_waiters() {
    let (world, owner, range) = registered(1, RW);
    let other = Uffd::new(&world.space, Features::empty());
    let waiter = world.stuck_at(range.start);
    assert_eq!(other.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
    assert_eq!(other.wake(range), Ok(()));
    assert!(!was_woken(&waiter));
    assert_eq!(owner.wake(range), Ok(()));
    assert!(was_woken(&waiter));
    assert_eq!(loads(&world, range), [Ok(word(5))]);
}

#[test]
fn a_context_without_any_registration_may_fill_registered_memory() {
    let (world, _owner, range) = registered(1, RW);
    let stranger = Uffd::new(&world.space, Features::empty());
    assert_eq!(stranger.zeropage(range, NOW), Outcome::Done);
}

#[test]
fn rights_do_not_matter_for_filling() {
    for prot in [Prot::READ, Prot::empty()] {
        let (world, uffd, range) = registered(2, prot);
        assert_eq!(
            uffd.copy(range.start, &source(3, 1), P, NOW),
            Outcome::Done,
            "{prot:?}"
        );
        assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done, "{prot:?}");
        world.space.protect(range, RW).expect("mapped");
        assert_eq!(loads(&world, range), [Ok(word(3)), Ok(0)]);
        world.run(|| {
            assert_eq!(uaccess::store(range.start, 1), Ok(()));
            assert_eq!(uaccess::store(page(range, 1), 1), Ok(()));
        });
    }
}

#[test]
fn a_page_that_is_there_is_eexist_and_stays_as_it_is() {
    let (world, uffd, range) = registered(3, RW);
    assert_eq!(uffd.copy(range.start, &source(1, 1), P, NOW), Outcome::Done);
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    for at in [0, 1] {
        let copied = uffd.copy(page(range, at), &source(7, 1), P, NOW);
        let zeroed = uffd.zeropage(part(range, at, 1), NOW);
        assert_eq!(
            (copied, zeroed),
            (
                Outcome::Refused(Refusal::Exists),
                Outcome::Refused(Refusal::Exists)
            )
        );
        assert_eq!(answer(copied, P), (Some(17), Some(-17)));
    }
    assert_eq!(uffd.zeropage(part(range, 2, 1), NOW), Outcome::Done);
    assert_eq!(loads(&world, range), [Ok(word(1)), Ok(0), Ok(0)]);
}

#[test]
fn partial_progress_is_eagain_with_the_bytes_done_and_the_rest_shows_the_reason() {
    let (world, uffd, range) = registered(40, RW);
    assert_eq!(uffd.zeropage(part(range, 25, 1), NOW), Outcome::Done);
    let outcome = uffd.copy(range.start, &source(1, 40), 40 * P, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: 25 * P,
            why: Refusal::Exists
        }
    );
    assert_eq!(answer(outcome, 40 * P), (Some(11), Some(25 * P as i64)));
    let rest = uffd.copy(page(range, 25), &source(26, 15), 15 * P, NOW);
    assert_eq!(answer(rest, 15 * P), (Some(17), Some(-17)));
    assert_eq!(
        uffd.copy(page(range, 26), &source(27, 14), 14 * P, NOW),
        Outcome::Done
    );
    let seen = loads(&world, range);
    assert!(
        (0..40).all(|i| seen[i] == Ok(if i == 25 { 0 } else { word(i as u8 + 1) })),
        "{seen:x?}"
    );
}

#[test]
fn a_source_that_ends_early_is_efault_on_the_first_page_and_eagain_with_bytes_later() {
    let (_world, uffd, range) = registered(30, RW);
    let none = uffd.copy(range.start, &[1; 4095], P, NOW);
    assert_eq!(
        (none, answer(none, P)),
        (Outcome::Refused(Refusal::BadSource), (Some(14), Some(-14)))
    );
    let some = uffd.copy(range.start, &source(1, 20)[..19 * P as usize + 5], 30 * P, NOW);
    assert_eq!(
        some,
        Outcome::Partial {
            bytes: 19 * P,
            why: Refusal::BadSource
        }
    );
    assert_eq!(answer(some, 30 * P), (Some(11), Some(19 * P as i64)));
    assert_eq!(allocator().stats().of(Kind::Anon), 19);
}

#[test]
fn no_frame_is_enomem_on_the_first_page_and_eagain_with_bytes_later() {
    let (world, uffd, range) = registered(30, RW);
    world.run(|| uaccess::load(page(world.map(1, RW), 0)).expect("mapped"));
    assert_eq!(uffd.zeropage(part(range, 0, 1), NOW), Outcome::Done);
    allocator().inject_failure(0);
    let none = uffd.copy(page(range, 1), &source(1, 1), P, NOW);
    assert_eq!(
        (none, answer(none, P)),
        (Outcome::Refused(Refusal::OutOfMemory), (Some(12), Some(-12)))
    );
    allocator().inject_failure(18);
    let some = uffd.copy(page(range, 1), &source(1, 29), 29 * P, NOW);
    allocator().stop_injection();
    let Outcome::Partial {
        bytes,
        why: Refusal::OutOfMemory,
    } = some
    else {
        panic!("{some:?}")
    };
    assert_eq!(
        allocator().stats().of(Kind::Anon) * P,
        bytes,
        "what was done is there, and nothing else is in use"
    );
    let next = 1 + bytes / P;
    let rest = uffd.copy(
        page(range, next),
        &source(next as u8, 30 - next),
        (30 - next) * P,
        NOW,
    );
    assert_eq!(rest, Outcome::Done);
    let seen = loads(&world, range);
    assert!((1..30).all(|i| seen[i] == Ok(word(i as u8))), "{seen:x?}");
}

#[test]
fn filling_a_page_wakes_every_waiter_of_it_and_nobody_elses() {
    let (world, uffd, range) = registered(3, RW);
    let waiters: Vec<_> = [0, 1, 1, 2]
        .iter()
        .map(|i| world.stuck_at(page(range, *i) + 8 * i))
        .collect();
    assert!(uffd.try_read_event().is_ok());
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(
        waiters.iter().map(|waiter| was_woken(waiter)).collect::<Vec<_>>(),
        [false, true, true, false]
    );
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiters[0]) && was_woken(&waiters[3]));
}

#[test]
fn filling_wakes_whoever_waits_in_the_range() {
    let (world, uffd, range) = registered(3, RW);
    let waiters: Vec<_> = (0..3).map(|i| world.spawn_load(page(range, i))).collect();
    waiters.iter().for_each(|waiter| until_it_waits(waiter.task()));
    assert_eq!(uffd.copy(range.start, &source(1, 3), 3 * P, NOW), Outcome::Done);
    let seen: Vec<_> = waiters.into_iter().map(|waiter| returned(waiter)).collect();
    assert_eq!(seen, [Ok(word(1)), Ok(word(2)), Ok(word(3))]);
}

#[test]
fn dontwake_fills_and_leaves_the_waiters_asleep() {
    let (world, uffd, range) = registered(2, RW);
    let waiters = [world.stuck_at(range.start), world.stuck_at(page(range, 1))];
    assert_eq!(
        uffd.copy(range.start, &source(4, 1), P, FillMode::DONTWAKE),
        Outcome::Done
    );
    assert_eq!(
        uffd.zeropage(part(range, 1, 1), FillMode::DONTWAKE),
        Outcome::Done
    );
    assert!(waiters.iter().all(|waiter| !was_woken(waiter)));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
    assert_eq!(loads(&world, range), [Ok(word(4)), Ok(0)]);
}

#[test]
fn zero_progress_wakes_nobody_not_even_for_eexist() {
    let (world, uffd, range) = registered(1, RW);
    let waiter = world.stuck_at(range.start);
    assert_eq!(
        uffd.copy(range.start, &source(4, 1), P, FillMode::DONTWAKE),
        Outcome::Done
    );
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, NOW),
        Outcome::Refused(Refusal::Exists)
    );
    assert!(!was_woken(&waiter), "whoever loses the race must wake");
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn partial_progress_wakes_the_finished_prefix_only() {
    let (world, uffd, range) = registered(3, RW);
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    let (first, last) = (world.stuck_at(range.start), world.stuck_at(page(range, 2)));
    let outcome = uffd.copy(range.start, &source(1, 3), 3 * P, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: P,
            why: Refusal::Exists
        }
    );
    assert_eq!((was_woken(&first), was_woken(&last)), (true, false));
    assert_eq!(uffd.zeropage(part(range, 2, 1), NOW), Outcome::Done);
    assert!(was_woken(&last));
}

#[test]
fn copy_into_memory_without_the_right_to_write_fails_the_storer_who_waited_for_it() {
    let (world, uffd, range) = registered(1, RW);
    let storer = world.spawn_store(range.start, 1);
    until_it_waits(storer.task());
    world.space.protect(range, Prot::READ).expect("mapped");
    assert!(storer.task().fault.is_waiting(), "protecting does not wake");
    assert_eq!(uffd.copy(range.start, &source(1, 1), P, NOW), Outcome::Done);
    let result = returned(storer).map_err(|error| error.why);
    assert_eq!(result, Err(FaultError::Forbidden));
}

#[test]
fn a_fill_needs_no_flush() {
    let (world, uffd, range) = registered(30, RW);
    world.machine.take_flushes();
    assert_eq!(uffd.copy(range.start, &source(1, 30), 30 * P, NOW), Outcome::Done);
    assert_eq!(world.machine.take_flushes(), []);
}
