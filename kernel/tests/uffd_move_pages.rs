//! MOVE page by page as Linux has it (checked there on 6.18): what a page may be like on either side, how far a call gets, whom
//! it wakes. Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::moving::{Bed, HOLES, NOW};
use common::{
    RW, World, anon_frames, answer, missing, page, part, populate, registered_with, returned, source,
    until_it_waits, was_woken, word,
};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::space::Space;
use kernel::mm::uaccess;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::{Event, Features, FillMode, Modes, MoveMode, Outcome, ReadError, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

#[track_caller]
fn assert_busy(outcome: Outcome) {
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::Busy), (Some(16), Some(-16)))
    );
}

fn fork(world: &World) -> Arc<Space> {
    world.run(|| world.space.fork()).expect("RAM is plenty")
}

#[test]
fn a_populated_destination_is_eexist_and_nothing_moves() {
    let bed = Bed::full(3);
    assert_eq!(
        bed.uffd.zeropage(part(bed.dst, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(
        bed.uffd
            .copy(page(bed.dst, 1), &source(9, 1), P, FillMode::empty()),
        Outcome::Done
    );
    for to in 0..2 {
        for mode in [NOW, HOLES] {
            let outcome = bed.move_pages(to, 2, 1, mode);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::Exists), (Some(17), Some(-17)))
            );
        }
    }
    assert_eq!(bed.world.load(page(bed.src, 2)), Ok(3));
    assert_eq!(
        (bed.world.load(bed.dst.start), bed.world.load(page(bed.dst, 1))),
        (Ok(0), Ok(word(9)))
    );
}

#[test]
fn a_marker_at_the_destination_is_eexist_and_stays() {
    let bed = Bed::with(2, BOTH);
    populate(&bed.world, bed.src);
    assert_eq!(bed.uffd.write_protect(part(bed.dst, 0, 1)), Ok(()));
    assert_eq!(
        bed.uffd.poison(part(bed.dst, 1, 1), FillMode::empty()),
        Outcome::Done
    );
    for (to, marker) in [(0, Marker::UffdWp), (1, Marker::Poison)] {
        for mode in [NOW, HOLES] {
            assert_eq!(bed.move_pages(to, 0, 1, mode), Outcome::Refused(Refusal::Exists));
        }
        assert_eq!(bed.entry(page(bed.dst, to)), Entry::Absent(marker));
    }
    assert_eq!(bed.world.load(bed.src.start), Ok(1));
}

#[test]
fn an_empty_source_is_enoent() {
    let bed = Bed::new(2);
    for tables in [false, true] {
        if tables {
            assert_eq!(bed.world.store(page(bed.src, 1), 1), Ok(()));
        }
        let outcome = bed.move_pages(0, 0, 1, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::SourceHole), (Some(2), Some(-2)))
        );
    }
}

#[test]
fn an_empty_source_is_skipped_and_counted_where_holes_are_allowed() {
    let bed = Bed::new(4);
    let moved = bed.move_pages(0, 0, 4, HOLES);
    assert_eq!(
        (moved, answer(moved, 4 * P)),
        (Outcome::Done, (None, Some(4 * P as i64)))
    );
    assert_eq!(bed.world.store(page(bed.src, 2), 3), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 4, HOLES), Outcome::Done);
    assert_eq!(bed.world.load(page(bed.dst, 2)), Ok(3));
    for hole in [0, 1, 3] {
        assert_eq!(bed.entry(page(bed.dst, hole)), Entry::EMPTY);
    }
}

#[test]
fn a_populated_destination_is_found_before_an_empty_source_unless_the_source_never_had_a_table() {
    let bed = Bed::new(2);
    assert_eq!(bed.uffd.zeropage(bed.dst, FillMode::empty()), Outcome::Done);
    assert_eq!(
        bed.move_pages(0, 0, 1, NOW),
        Outcome::Refused(Refusal::SourceHole)
    );
    assert_eq!(bed.move_pages(0, 0, 1, HOLES), Outcome::Refused(Refusal::Exists));
    assert_eq!(bed.world.store(page(bed.src, 1), 1), Ok(()));
    for mode in [NOW, HOLES] {
        assert_eq!(bed.move_pages(0, 0, 1, mode), Outcome::Refused(Refusal::Exists));
    }
}

#[test]
fn the_page_of_zeros_moves_and_is_copied_by_the_next_store() {
    let bed = Bed::new(1);
    assert_eq!(bed.world.load(bed.src.start), Ok(0));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY);
    let Entry::Leaf(leaf) = bed.entry(bed.dst.start) else {
        panic!("it is there");
    };
    assert!(leaf.attr.is_borrowed() && !leaf.prot.contains(Prot::WRITE));
    assert_eq!((bed.world.load(bed.dst.start), anon_frames()), (Ok(0), 0));
    assert_eq!(bed.world.store(bed.dst.start, 5), Ok(()));
    let other = bed.world.map(1, RW);
    assert_eq!(
        bed.world.load(other.start),
        Ok(0),
        "the shared page is still zero"
    );
}

#[test]
fn a_marker_at_the_source_is_efault_even_where_holes_are_allowed() {
    let bed = Bed::new(2);
    bed.uffd.register(bed.src, BOTH).expect("anonymous memory can");
    assert_eq!(
        bed.uffd.poison(part(bed.src, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(bed.uffd.write_protect(part(bed.src, 1, 1)), Ok(()));
    for (from, marker) in [(0, Marker::Poison), (1, Marker::UffdWp)] {
        for mode in [NOW, HOLES] {
            let outcome = bed.move_pages(0, from, 1, mode);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::BadSource), (Some(14), Some(-14)))
            );
        }
        assert_eq!(bed.entry(page(bed.src, from)), Entry::Absent(marker));
    }
    assert_eq!(
        bed.uffd.zeropage(part(bed.dst, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(
        bed.move_pages(0, 0, 1, NOW),
        Outcome::Refused(Refusal::Exists),
        "seen first"
    );
}

#[test]
fn a_write_protected_page_leaves_its_protection_behind() {
    let bed = Bed::full(1);
    bed.uffd.register(bed.src, BOTH).expect("anonymous memory can");
    bed.uffd.register(bed.dst, BOTH).expect("anonymous memory can");
    assert_eq!(bed.uffd.write_protect(bed.src), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let Entry::Leaf(leaf) = bed.entry(bed.dst.start) else {
        panic!("it is there");
    };
    assert!(!leaf.attr.flags.contains(AttrFlags::UFFD_WP) && leaf.prot.contains(Prot::WRITE));
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY, "no marker stays either");
    assert_eq!(bed.world.store(bed.dst.start, 3), Ok(()));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}

#[test]
fn poison_that_follows_the_last_page_is_not_carried_along() {
    let bed = Bed::full(2);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    bed.world.space.discard(part(bed.src, 1, 1)).expect("mapped");
    assert_eq!(
        bed.uffd.poison(part(bed.src, 1, 1), FillMode::empty()),
        Outcome::Done
    );
    let outcome = bed.move_pages(0, 0, 2, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: P,
            why: Refusal::BadSource
        }
    );
    assert_eq!(bed.world.load(page(bed.src, 1)), Err(FaultError::Poisoned));
}

// Pages that a fork has shared.

#[test]
fn a_page_shared_by_a_fork_is_ebusy_even_after_the_child_has_ended_until_it_is_written_again() {
    let bed = Bed::full(2);
    let child = fork(&bed.world);
    assert_busy(bed.move_pages(0, 0, 1, NOW));
    drop(child);
    assert_busy(bed.move_pages(0, 0, 1, HOLES));
    assert_eq!(bed.world.load(bed.src.start), Ok(1), "a load changes nothing");
    assert_busy(bed.move_pages(0, 0, 1, NOW));
    assert_eq!(bed.world.store(bed.src.start, 9), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.world.load(bed.dst.start), Ok(9));
    assert_busy(bed.move_pages(1, 1, 1, NOW));
}

#[test]
fn a_page_that_was_written_while_the_child_lived_is_the_parents_own() {
    let bed = Bed::full(1);
    let child = fork(&bed.world);
    assert_eq!(bed.world.store(bed.src.start, 9), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(anon_frames(), 2, "one each");
    drop(child);
}

#[test]
fn a_child_moves_what_it_has_written_itself() {
    let bed = Bed::full(2);
    let child = fork(&bed.world);
    let uffd = Uffd::new(&child, Features::empty());
    uffd.register(bed.dst, Modes::MISSING)
        .expect("anonymous memory can");
    let move_it = || uffd.move_pages(&child, bed.dst.start, bed.src.start, P, NOW);
    assert_busy(move_it());
    // With the inherited handle it would be the parent's memory.
    assert_eq!(
        bed.uffd.move_pages(&child, bed.dst.start, bed.src.start, P, NOW),
        Outcome::Refused(Refusal::ForeignSpace)
    );
    let at = bed.src.start;
    let store = spawn_returning("child", Some(Arc::clone(&child)), move || uaccess::store(at, 9));
    assert_eq!(returned(store.expect("the host has threads")), Ok(()));
    assert_eq!(move_it(), Outcome::Done);
    assert_eq!(
        bed.world.load(bed.src.start),
        Ok(1),
        "the parent has its page still"
    );
}

#[test]
fn neither_write_protection_that_comes_and_goes_nor_a_change_of_rights_makes_a_forked_page_its_own() {
    let bed = Bed::full(2);
    bed.uffd
        .register(bed.src, Modes::WP)
        .expect("anonymous memory can");
    drop(fork(&bed.world));
    assert_eq!(bed.uffd.write_protect(part(bed.src, 0, 1)), Ok(()));
    assert_eq!(
        bed.uffd
            .remove_write_protection(part(bed.src, 0, 1), FillMode::empty()),
        Ok(())
    );
    for prot in [Prot::READ, RW] {
        bed.world.space.protect(bed.src, prot).expect("mapped");
    }
    for i in 0..2 {
        assert_busy(bed.move_pages(i, i, 1, NOW));
    }
}

#[test]
fn the_page_of_zeros_moves_after_a_fork_too() {
    let bed = Bed::new(1);
    assert_eq!(bed.world.load(bed.src.start), Ok(0));
    let child = fork(&bed.world);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    drop(child);
}

#[test]
fn what_was_written_again_moves_and_the_first_page_that_was_not_stops_it() {
    let bed = Bed::full(3);
    drop(fork(&bed.world));
    assert_eq!(bed.world.store(bed.src.start, 7), Ok(()));
    let outcome = bed.move_pages(0, 0, 3, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: P,
            why: Refusal::Busy
        }
    );
    assert_eq!(answer(outcome, 3 * P), (Some(11), Some(P as i64)));
}

// Progress and wake-ups.

#[test]
fn partial_progress_is_eagain_with_the_bytes_and_the_reason_shows_on_the_rest() {
    for (obstacle, why, errno) in [
        (4, Refusal::SourceHole, 2),
        (100, Refusal::SourceHole, 2),
        (69, Refusal::Exists, 17),
    ] {
        let bed = Bed::full(130);
        match why {
            Refusal::Exists => {
                let there = part(bed.dst, obstacle, 1);
                assert_eq!(bed.uffd.zeropage(there, FillMode::empty()), Outcome::Done);
            }
            _ => bed
                .world
                .space
                .discard(part(bed.src, obstacle, 1))
                .expect("mapped"),
        }
        let outcome = bed.move_pages(0, 0, 130, NOW);
        let bytes = obstacle * P;
        assert_eq!(outcome, Outcome::Partial { bytes, why });
        assert_eq!(answer(outcome, 130 * P), (Some(11), Some(bytes as i64)));
        let rest = bed.move_pages(obstacle, obstacle, 130 - obstacle, NOW);
        assert_eq!(
            (rest, answer(rest, P)),
            (Outcome::Refused(why), (Some(errno), Some(-errno)))
        );
        for i in 0..130 {
            let moved = i < obstacle;
            assert_eq!(
                matches!(bed.entry(page(bed.dst, i)), Entry::Leaf(_)),
                moved || (i, why) == (obstacle, Refusal::Exists)
            );
            if i != obstacle {
                let place = if moved { bed.dst } else { bed.src };
                bed.world
                    .run(|| assert_eq!(uaccess::load(page(place, i)), Ok(i + 1)));
            }
        }
    }
}

#[test]
fn only_the_waiters_of_what_was_moved_are_woken() {
    let bed = Bed::full(4);
    bed.world.space.discard(part(bed.src, 2, 1)).expect("mapped");
    let waiters: Vec<_> = (0..4)
        .map(|i| bed.world.stuck_at(page(bed.dst, i) + 100))
        .collect();
    let outcome = bed.move_pages(0, 0, 4, NOW);
    assert!(matches!(outcome, Outcome::Partial { bytes, .. } if bytes == 2 * P));
    let woken: Vec<_> = waiters.iter().map(|waiter| was_woken(waiter)).collect();
    assert_eq!(woken, [true, true, false, false]);
    bed.uffd.close();
}

#[test]
fn nobody_is_woken_where_nothing_was_done() {
    let bed = Bed::full(2);
    let waiter = bed.world.stuck_at(bed.dst.start);
    assert_eq!(
        bed.uffd.copy(bed.dst.start, &source(1, 1), P, FillMode::DONTWAKE),
        Outcome::Done
    );
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Refused(Refusal::Exists));
    assert!(!was_woken(&waiter));
    assert_eq!(bed.uffd.wake(bed.dst), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn waiters_of_a_hole_that_counts_as_moved_are_woken_and_may_ask_again() {
    let bed = Bed::new(1);
    let task = bed.world.spawn_load(bed.dst.start);
    until_it_waits(task.task());
    assert_eq!(bed.uffd.try_read_event(), missing(bed.dst.start, false));
    assert_eq!(bed.move_pages(0, 0, 1, HOLES), Outcome::Done);
    let again = bed.uffd.read_event();
    assert_eq!(again, missing(bed.dst.start, false));
    assert_eq!(bed.uffd.zeropage(bed.dst, FillMode::empty()), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn dontwake_moves_and_leaves_the_waiters_asleep() {
    let bed = Bed::full(1);
    let waiter = bed.world.stuck_at(bed.dst.start);
    assert_eq!(bed.move_pages(0, 0, 1, MoveMode::DONTWAKE), Outcome::Done);
    assert!(!was_woken(&waiter));
    assert_eq!(bed.world.load(bed.dst.start), Ok(1));
    assert_eq!(bed.uffd.wake(bed.dst), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn waiters_at_the_source_and_at_other_contexts_sleep_on() {
    let bed = Bed::full(2);
    let other = Uffd::new(&bed.world.space, Features::empty());
    other.register(bed.src, Modes::WP).expect("anonymous memory can");
    assert_eq!(other.write_protect(bed.src), Ok(()));
    let waiter = bed.world.stuck_storing_at(bed.src.start);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert!(!was_woken(&waiter));
    other.close();
    assert!(was_woken(&waiter));
}

// Ranges that overlap: as if the pages were moved one after the other.

#[test]
fn a_page_does_not_move_onto_itself() {
    let (world, uffd, range) = registered_with(2, BOTH, Features::empty());
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, FillMode::empty()),
        Outcome::Done
    );
    let onto_itself = |number, mode| {
        let at = page(range, number);
        uffd.move_pages(&world.space, at, at, P, mode)
    };
    assert_eq!(onto_itself(0, NOW), Outcome::Refused(Refusal::Exists));
    assert_eq!(onto_itself(1, NOW), Outcome::Refused(Refusal::SourceHole));
    assert_eq!(onto_itself(1, HOLES), Outcome::Done);
    assert_eq!(world.load(range.start), Ok(word(1)));
}

#[test]
fn ranges_that_overlap_move_as_page_by_page_in_ascending_order() {
    // Pages that are there, from, to, how many, mode; what comes of it, and where the pages are then.
    type Row = (
        &'static [u64],
        (u64, u64, u64),
        MoveMode,
        Outcome,
        &'static [(u64, u64)],
    );
    let partial = |pages, why| Outcome::Partial {
        bytes: pages * P,
        why,
    };
    let rows: &[Row] = &[
        (&[4, 5], (4, 3, 2), NOW, Outcome::Done, &[(3, 4), (4, 5)]),
        (
            &[1, 2, 3],
            (1, 2, 3),
            NOW,
            Outcome::Refused(Refusal::Exists),
            &[(1, 1), (2, 2), (3, 3)],
        ),
        // One page travels to the end.
        (&[4], (4, 5, 3), HOLES, Outcome::Done, &[(7, 4)]),
        (&[2], (2, 4, 2), NOW, partial(1, Refusal::SourceHole), &[(4, 2)]),
        (&[2, 3], (2, 4, 4), NOW, Outcome::Done, &[(6, 2), (7, 3)]),
        (
            &[2, 3, 5],
            (2, 4, 4),
            NOW,
            partial(1, Refusal::Exists),
            &[(3, 3), (4, 2), (5, 5)],
        ),
    ];
    for (there, (from, to, pages), mode, expected, after) in rows {
        let (world, uffd, range) = registered_with(8, BOTH, Features::empty());
        for i in *there {
            let copied = uffd.copy(page(range, *i), &source(*i as u8, 1), P, FillMode::empty());
            assert_eq!(copied, Outcome::Done);
        }
        let (dst, src) = (page(range, *to), page(range, *from));
        let outcome = uffd.move_pages(&world.space, dst, src, pages * P, *mode);
        assert_eq!(outcome, *expected, "{there:?}: {pages} from {from} to {to}");
        let is_there = |i: &u64| matches!(world.space.entry(page(range, *i)).0, Entry::Leaf(_));
        let now: Vec<_> = (0..8).filter(is_there).collect();
        assert_eq!(now, after.iter().map(|(place, _)| *place).collect::<Vec<_>>());
        for (place, content) in *after {
            assert_eq!(world.load(page(range, *place)), Ok(word(*content as u8)));
        }
    }
}
