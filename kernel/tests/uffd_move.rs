//! MOVE as Linux has it (checked there on 6.18): what it does, in which order it looks at what it was asked, and between which
//! areas pages move. Each test is named after what it claims; what becomes of each page is in `uffd_move_pages`.

mod common;

use std::sync::Arc;

use common::kinds::map;
use common::moving::{Bed, HOLES, NOW};
use common::{
    RW, World, anon_frames, answer, eventually, missing, object_world, page, part, populate, registered_with,
    returned, source, until_it_waits, was_woken, word, write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP};
use kernel::mm::cache::Object;
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{Entry, Prot};
use kernel::mm::space::{Immovable, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, MoveMode, OpSet, Outcome, RangeError, ReadError, Refusal, Uffd,
};

const P: u64 = PAGE_SIZE;
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// Pages move from the first source page to the first destination page.
fn assert_movable(bed: &Bed) {
    bed.world
        .run(|| uaccess::store(bed.src.start, 5).expect("mapped"));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.world.load(bed.dst.start), Ok(5));
}

#[track_caller]
fn assert_immovable(bed: &Bed, why: Immovable) {
    let outcome = bed.move_pages(0, 0, 1, NOW);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::Immovable(why)), (Some(22), Some(-22)))
    );
}

#[test]
fn a_missing_page_is_resolved_by_moving_one_there() {
    let bed = Bed::full(2);
    let task = bed.world.spawn_load(page(bed.dst, 1) + 8);
    until_it_waits(task.task());
    assert_eq!(bed.uffd.try_read_event(), missing(page(bed.dst, 1), false));
    bed.world
        .run(|| uaccess::store(page(bed.src, 1) + 8, 77).expect("mapped"));
    assert_eq!(bed.move_pages(1, 1, 1, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(77));
    assert_eq!(bed.world.load(page(bed.dst, 1)), Ok(2));
}

#[test]
fn what_is_left_behind_is_empty_and_reads_as_zeros() {
    let bed = Bed::full(2);
    let frame = bed.entry(bed.src.start);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY);
    let (Entry::Leaf(old), Entry::Leaf(new)) = (frame, bed.entry(bed.dst.start)) else {
        panic!("{frame:?} moved");
    };
    assert_eq!(old.frame, new.frame, "the very page");
    assert_eq!(anon_frames(), 2, "no copy");
    assert_eq!(bed.world.load(bed.src.start), Ok(0));
    assert_eq!(bed.world.load(page(bed.src, 1)), Ok(2), "its neighbour stays");
}

#[test]
fn a_registered_source_faults_as_missing_afterwards() {
    let bed = Bed::full(1);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let waiter = bed.world.stuck_at(bed.src.start);
    assert_eq!(bed.uffd.try_read_event(), missing(bed.src.start, false));
    assert_eq!(bed.uffd.wake(bed.src), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn a_page_that_arrived_is_written_without_a_fault() {
    let bed = Bed::full(1);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let faults = bed.world.space.fault_count();
    assert_eq!(bed.world.store(bed.dst.start, 8), Ok(()));
    assert_eq!(bed.world.space.fault_count(), faults);
}

#[test]
fn a_caller_from_another_space_is_einval_before_everything_else_and_leaves_the_field_untouched() {
    let bed = Bed::full(1);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    for (len, mode) in [(P, NOW), (5, NOW), (P, MoveMode::from_bits_retain(4))] {
        let outcome = bed
            .uffd
            .move_pages(&other, bed.dst.start, bed.src.start, len, mode);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::ForeignSpace), (Some(22), None))
        );
    }
    assert_eq!(bed.world.load(bed.src.start), Ok(1));
}

#[test]
fn an_outstanding_event_is_eagain_even_before_the_caller_is_looked_at() {
    let world = World::new();
    let (dst, src) = (world.map(2, RW), world.map(2, RW));
    let uffd = Uffd::new(&world.space, Features::EVENT_UNMAP);
    uffd.register(dst, Modes::MISSING).expect("anonymous memory can");
    populate(&world, src);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let space = Arc::clone(&world.space);
    let unmapper = world.spawn("unmapper", move || space.unmap(part(dst, 1, 1)));
    eventually("it waits for its event to be read", || {
        unmapper.task().event.is_queued()
    });
    for (caller, len) in [(&world.space, P), (&other, P), (&world.space, 7)] {
        let outcome = uffd.move_pages(caller, dst.start, src.start, len, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Changing), (Some(11), Some(-11)))
        );
    }
    assert_eq!(
        uffd.try_read_event(),
        Ok(Event::Unmap {
            range: part(dst, 1, 1)
        })
    );
    assert_eq!(returned(unmapper), Ok(()));
    let outcome = uffd.move_pages(&world.space, dst.start, src.start, P, NOW);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn a_target_that_is_gone_is_einval_because_whoever_asks_lives_elsewhere() {
    let Bed {
        dst,
        src,
        uffd,
        world,
    } = Bed::new(1);
    let World { space, machine } = world;
    drop(space);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let outcome = uffd.move_pages(&other, dst.start, src.start, P, NOW);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::ForeignSpace), (Some(22), None))
    );
    drop((other, machine));
}

#[test]
fn bad_ranges_then_a_bad_mode_are_einval_and_leave_the_field_untouched() {
    let bed = Bed::full(2);
    let (dst, src) = (bed.dst.start, bed.src.start);
    let odd = MoveMode::from_bits_retain(4);
    let into = |why| Refusal::Range(why);
    let from = |why| Refusal::SourceRange(why);
    let rows = [
        (dst + 1, src + 1, P, odd, into(RangeError::Unaligned)),
        (dst, src + 1, 0, odd, into(RangeError::Empty)),
        (dst, src, P + 1, odd, into(RangeError::Unaligned)),
        (USER_TOP, src + 1, P, odd, into(RangeError::BeyondTop)),
        (dst, src, u64::MAX - P + 1, odd, into(RangeError::BeyondTop)),
        (dst, src + 1, P, odd, from(RangeError::Unaligned)),
        (dst, USER_TOP, P, odd, from(RangeError::BeyondTop)),
        (dst, USER_TOP - P, 2 * P, odd, from(RangeError::BeyondTop)),
        (dst, src, P, odd, Refusal::UnknownMode),
        (dst, src, P, MoveMode::from_bits_retain(7), Refusal::UnknownMode),
    ];
    for (dst, src, len, mode, why) in rows {
        let outcome = bed.move_at(dst, src, len, mode);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(why), (Some(22), None)),
            "{len:#x} bytes from {src:?} to {dst:?}, {mode:?}"
        );
    }
}

#[test]
fn a_destination_or_a_source_whose_start_is_not_mapped_is_enoent() {
    let bed = Bed::full(2);
    let hole = bed.world.map(2, RW);
    bed.world.space.unmap(hole).expect("mapped");
    let read_only = bed.world.map(1, Prot::READ).start;
    for (dst, src) in [
        (hole.start, bed.src.start),
        (bed.dst.start, hole.start),
        (hole.start, hole.start),
        // Before anything about the areas is asked.
        (hole.start, read_only),
        (read_only, hole.start),
        (bed.dst.start, USER_TOP - 10 * P),
    ] {
        let outcome = bed.move_at(dst, src, P, HOLES);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::NotMapped), (Some(2), Some(-2)))
        );
    }
}

#[test]
fn a_range_that_leaves_its_area_is_einval_even_if_the_next_area_could_take_it() {
    let bed = Bed::full(4);
    // The same memory, but another area: one is locked.
    assert_eq!(bed.world.space.lock(part(bed.src, 3, 1)), Ok(()));
    let past = |outcome| {
        let refused = Outcome::Refused(Refusal::Immovable(Immovable::PastEnd));
        assert_eq!((outcome, answer(outcome, P)), (refused, (Some(22), Some(-22))));
    };
    past(bed.move_pages(0, 2, 2, NOW));
    past(bed.move_pages(0, 0, 4, NOW));
    past(bed.move_pages(2, 0, 3, NOW));
    past(bed.move_at(page(bed.dst, 3), bed.src.start, 2 * P, NOW));
    assert_eq!(bed.move_pages(0, 0, 3, NOW), Outcome::Done, "what fits moves");
}

#[test]
fn areas_with_different_rights_are_einval() {
    let bed = Bed::full(1);
    for prot in [Prot::READ, RW | Prot::EXEC, Prot::empty()] {
        bed.world.space.protect(bed.src, prot).expect("mapped");
        assert_immovable(&bed, Immovable::Rights);
    }
    bed.world.space.protect(bed.src, RW).expect("mapped");
    assert_movable(&bed);
}

#[test]
fn areas_that_are_executable_too_are_fine_if_both_are() {
    let bed = Bed::full(1);
    for range in [bed.src, bed.dst] {
        bed.world.space.protect(range, RW | Prot::EXEC).expect("mapped");
    }
    assert_movable(&bed);
}

#[test]
fn areas_that_cannot_be_written_are_einval() {
    let bed = Bed::full(1);
    for prot in [Prot::READ, Prot::READ | Prot::EXEC, Prot::empty()] {
        for range in [bed.src, bed.dst] {
            bed.world.space.protect(range, prot).expect("mapped");
        }
        assert_immovable(&bed, Immovable::ReadOnly);
    }
}

#[test]
fn one_locked_area_is_einval_and_two_are_fine() {
    let bed = Bed::full(1);
    for locked in [bed.src, bed.dst] {
        assert_eq!(bed.world.space.lock(locked), Ok(()));
        assert_immovable(&bed, Immovable::Locking);
        assert_eq!(bed.world.space.unlock(locked), Ok(()));
    }
    for range in [bed.src, bed.dst] {
        assert_eq!(bed.world.space.lock(range), Ok(()));
    }
    assert_movable(&bed);
}

#[test]
fn a_destination_that_is_not_registered_with_this_very_context_is_einval() {
    let bed = Bed::full(2);
    let other = Uffd::new(&bed.world.space, Features::empty());
    bed.uffd.unregister(bed.dst).expect("registered");
    assert_immovable(&bed, Immovable::NotOurs);
    other.register(bed.dst, BOTH).expect("anonymous memory can");
    assert_immovable(&bed, Immovable::NotOurs);
    let outcome = other.move_pages(&bed.world.space, bed.dst.start, bed.src.start, P, NOW);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn the_source_may_be_registered_with_anybody() {
    let bed = Bed::full(1);
    let other = Uffd::new(&bed.world.space, Features::empty());
    other
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
}

#[test]
fn shared_memory_is_einval_on_either_side_although_registering_it_says_otherwise_on_linux() {
    let world = object_world();
    let object = Object::new(&SHMEM, 4 * P);
    let shared = map(&world, Memory::shared(&object), None, P);
    let private = map(&world, Memory::private(&object), None, P);
    let plain = world.map(1, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    for range in [shared, private] {
        let ops = uffd.register(range, Modes::MISSING).expect("shared memory can");
        assert!(!ops.contains(OpSet::MOVE), "the typed interface tells the truth");
        assert_eq!(world.store(plain.start, 1), Ok(()));
    }
    assert!(
        uffd.register(plain, Modes::MISSING)
            .is_ok_and(|ops| ops.contains(OpSet::MOVE))
    );
    for (object, why) in [(shared, Immovable::Shared), (private, Immovable::Type)] {
        for (dst, src) in [(object, plain), (plain, object)] {
            let outcome = uffd.move_pages(&world.space, dst.start, src.start, P, HOLES);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::Immovable(why)), (Some(22), Some(-22)))
            );
        }
    }
}

#[test]
fn huge_pages_are_einval() {
    let world = object_world();
    let len = Granule::Huge.size();
    let (dst, src) = (
        map(&world, Memory::Own(&HUGETLB), None, len),
        map(&world, Memory::Own(&HUGETLB), None, len),
    );
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(dst, Modes::MISSING).expect("huge memory can");
    for mode in [NOW, HOLES] {
        let outcome = uffd.move_pages(&world.space, dst.start, src.start, len, mode);
        assert_eq!(outcome, Outcome::Refused(Refusal::Immovable(Immovable::Type)));
    }
}

#[test]
fn a_destination_registered_for_write_protection_only_is_fine() {
    let bed = Bed::with(2, Modes::WP);
    populate(&bed.world, bed.src);
    assert_eq!(bed.move_pages(0, 0, 2, NOW), Outcome::Done);
    assert_eq!(
        bed.world.store(bed.dst.start, 9),
        Ok(()),
        "it arrives unprotected"
    );
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
    assert_eq!(bed.uffd.write_protect(bed.dst), Ok(()));
    let waiter = bed.world.stuck_storing_at(page(bed.dst, 1));
    assert_eq!(bed.uffd.try_read_event(), write_protected(page(bed.dst, 1)));
    bed.uffd.close();
    assert!(was_woken(&waiter));
}

#[test]
fn source_and_destination_may_be_one_area() {
    let (world, uffd, range) = registered_with(8, BOTH, Features::empty());
    assert_eq!(
        uffd.copy(range.start, &source(1, 2), 2 * P, FillMode::empty()),
        Outcome::Done
    );
    let outcome = uffd.move_pages(&world.space, page(range, 6), range.start, 2 * P, NOW);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(world.load(page(range, 7)), Ok(word(2)));
    let waiter = world.stuck_at(range.start);
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    uffd.close();
    assert!(was_woken(&waiter));
}
