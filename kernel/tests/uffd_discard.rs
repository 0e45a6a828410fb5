//! Dropping contents of registered memory: who is told, of what, and when the pages go, row by row as Linux has it (checked
//! there on 6.18). Each test is named after what it claims.

mod common;

use common::kinds::{Bed, Kind, Seen, until_it_announces};
use common::{missing, page, part, populate, returned, until_it_waits};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::{AttrFlags, Entry, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{DiscardError, Space};
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const TELL: Features = Features::EVENT_REMOVE;
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

type Operation = fn(&Space, VirtRange) -> Result<(), DiscardError>;
const ALL: [Operation; 3] = [Space::discard, Space::discard_locked, Space::discard_lazily];

/// A bed of pages that are there, whose removal is told.
fn told(kind: Kind, granules: u64) -> Bed {
    let bed = Bed::unregistered(kind, granules, TELL);
    (0..granules).for_each(|i| bed.store(i, i + 1));
    bed.uffd
        .register(bed.range, Modes::MISSING)
        .expect("the type can");
    bed
}

/// A task that drops the contents of `range`, and waits for its event to be read.
fn dropping(bed: &Bed, operation: Operation, range: VirtRange) -> JoinHandle<Result<(), DiscardError>> {
    let task = bed.spawn(move |space| operation(space, range));
    until_it_announces(&task);
    task
}

fn removed(range: VirtRange) -> Result<Event, ReadError> {
    Ok(Event::Remove { range })
}

/// Drops the contents of `range` in a task, which must not wait for anybody.
fn at_once(bed: &Bed, operation: Operation, range: VirtRange) -> Result<(), DiscardError> {
    returned(bed.spawn(move |space| operation(space, range)))
}

#[test]
fn the_pages_are_still_there_until_the_event_is_read_and_gone_afterwards() {
    for kind in Kind::ALL {
        for operation in [Space::discard, Space::discard_locked] {
            let bed = told(kind, 2);
            let task = dropping(&bed, operation, bed.range);
            assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Page, Seen::Page), "{kind:?}");
            assert_eq!(bed.load(1), 2);
            assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
            assert_eq!(returned(task), Ok(()));
            assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Empty, Seen::Empty), "{kind:?}");
            assert_eq!(bed.uffd.try_read_event(), NOTHING);
        }
    }
}

#[test]
fn the_event_is_clipped_to_the_range_and_to_each_area() {
    let bed = told(Kind::Anon, 8);
    // Three areas: of one, four and three pages.
    for (start, count) in [(1, 7), (5, 3)] {
        let rest = bed.part(start, count);
        bed.space().protect(rest, Prot::READ).expect("mapped");
        if start == 1 {
            bed.space().protect(rest, Prot::empty()).expect("mapped");
        }
    }
    assert_eq!(bed.space().areas().len(), 3);
    let task = dropping(&bed, Space::discard, bed.part(0, 7));
    for (start, count) in [(0, 1), (1, 4), (5, 2)] {
        until_it_announces(&task);
        assert_eq!(bed.uffd.try_read_event(), removed(bed.part(start, count)));
    }
    assert_eq!(returned(task), Ok(()));
    let pages: Vec<_> = (0..8).filter(|&i| bed.seen(i) == Seen::Page).collect();
    assert_eq!(pages, [7]);
}

#[test]
fn pages_of_an_area_go_before_the_next_area_is_told() {
    let bed = told(Kind::Anon, 2);
    bed.space().protect(bed.one(1), Prot::READ).expect("mapped");
    let task = dropping(&bed, Space::discard, bed.range);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(0)));
    until_it_announces(&task);
    assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Empty, Seen::Page));
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(1)));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn without_the_feature_nobody_is_told_and_the_next_touch_is_missing() {
    for kind in Kind::ALL {
        let bed = Bed::unregistered(kind, 1, Features::EVENT_UNMAP | Features::EVENT_REMAP);
        bed.store(0, 1);
        bed.uffd
            .register(bed.range, Modes::MISSING)
            .expect("the type can");
        assert_eq!(at_once(&bed, Space::discard, bed.range), Ok(()));
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
        if kind.is_shared() || kind == Kind::PrivateShmem {
            assert_eq!(bed.load(0), u64::from(kind.is_shared()), "the object has a page");
        } else {
            let task = bed.world.spawn_load(bed.at(0));
            until_it_waits(task.task());
            assert_eq!(bed.uffd.try_read_event(), missing(bed.at(0), false));
            bed.uffd.close();
            assert_eq!(returned(task), Ok(0));
        }
    }
}

#[test]
fn areas_that_are_not_registered_are_not_told_of() {
    let bed = told(Kind::Anon, 3);
    bed.uffd.unregister(bed.one(1)).expect("ours");
    let task = dropping(&bed, Space::discard, bed.range);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(0)));
    until_it_announces(&task);
    assert_eq!(bed.seen(1), Seen::Empty, "dropped on the way");
    // Nor is there a translation left that leads to it: Linux 6.18 flushes only after the last wait, and loses this store.
    assert_eq!(bed.load(1), 0);
    bed.store(1, 7);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(2)));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(bed.load(1), 7);
}

#[test]
fn every_context_is_told_of_its_own_areas() {
    let bed = told(Kind::Anon, 4);
    bed.uffd.unregister(bed.part(2, 2)).expect("ours");
    let other = Uffd::new(bed.space(), TELL);
    other.register(bed.part(2, 2), Modes::MISSING).expect("nobody's");
    let task = dropping(&bed, Space::discard, bed.part(1, 2));
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(1)));
    until_it_announces(&task);
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
    assert_eq!(other.try_read_event(), removed(bed.one(2)));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn the_event_of_large_pages_ends_where_the_last_whole_one_does() {
    for kind in Kind::LARGE {
        let bed = told(kind, 2);
        let task = dropping(&bed, Space::discard, VirtRange::new(bed.at(0), bed.at(1) + P));
        assert_eq!(bed.uffd.try_read_event(), removed(bed.one(0)));
        assert_eq!(returned(task), Ok(()));
        assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Empty, Seen::Page));
        assert_eq!(at_once(&bed, Space::discard, VirtRange::page(bed.at(1))), Ok(()));
        assert_eq!(bed.uffd.try_read_event(), NOTHING, "no page, no event");
    }
}

#[test]
fn what_is_refused_is_not_told_of() {
    let bed = told(Kind::Anon, 2);
    bed.space().lock(bed.range).expect("mapped");
    for operation in [Space::discard, Space::discard_lazily] {
        assert_eq!(at_once(&bed, operation, bed.range), Err(DiscardError::Locked));
    }
    assert_eq!((bed.seen(0), bed.uffd.try_read_event()), (Seen::Page, NOTHING));
    for kind in Kind::LARGE {
        let bed = told(kind, 1);
        let lazily = at_once(&bed, Space::discard_lazily, bed.range);
        let inside = at_once(&bed, Space::discard, VirtRange::new(bed.at(0) + P, bed.at(1)));
        assert_eq!(lazily, Err(DiscardError::NotAnonymous));
        assert_eq!(inside, Err(DiscardError::InsidePage));
        assert_eq!((bed.seen(0), bed.uffd.try_read_event()), (Seen::Page, NOTHING));
    }
}

#[test]
fn locked_memory_is_discarded_by_who_says_so() {
    let bed = told(Kind::Anon, 1);
    bed.space().lock(bed.range).expect("mapped");
    let task = dropping(&bed, Space::discard_locked, bed.range);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    assert_eq!((returned(task), bed.seen(0)), (Ok(()), Seen::Empty));
}

#[test]
fn areas_before_a_locked_one_are_dropped_and_those_behind_it_are_not() {
    let bed = Bed::unregistered(Kind::Anon, 3, Features::empty());
    (0..3).for_each(|i| bed.store(i, 1));
    bed.space().lock(bed.one(1)).expect("mapped");
    assert_eq!(bed.space().discard(bed.range), Err(DiscardError::Locked));
    let seen: Vec<_> = (0..3).map(|i| bed.seen(i)).collect();
    assert_eq!(seen, [Seen::Empty, Seen::Page, Seen::Page]);
}

#[test]
fn letting_go_lazily_tells_and_keeps_the_contents() {
    let bed = told(Kind::Anon, 2);
    let task = dropping(&bed, Space::discard_lazily, bed.range);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    assert_eq!(returned(task), Ok(()));
    assert_eq!((bed.load(0), bed.load(1)), (1, 2));
}

#[test]
fn pages_that_were_let_go_of_lazily_are_clean_until_they_are_written() {
    let bed = Bed::unregistered(Kind::Anon, 1, Features::empty());
    let dirty = || match bed.space().entry(bed.at(0)).0 {
        Entry::Leaf(leaf) => leaf.attr.flags.contains(AttrFlags::DIRTY),
        other => panic!("{other:?}"),
    };
    bed.store(0, 1);
    assert!(dirty());
    bed.world.run(|| {
        // With the translation cached as dirty: without a flush the next store would not be noted.
        kernel::mm::uaccess::store(bed.at(0), 2).expect("mapped");
        bed.space().discard_lazily(bed.range).expect("anonymous");
        assert!(!dirty());
        kernel::mm::uaccess::store(bed.at(0), 3).expect("mapped");
    });
    assert!(dirty());
}

#[test]
fn letting_go_lazily_of_an_objects_pages_is_told_of_and_then_refused() {
    for kind in [Kind::Shmem, Kind::PrivateShmem] {
        let bed = told(kind, 1);
        let task = dropping(&bed, Space::discard_lazily, bed.range);
        assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
        assert_eq!(returned(task), Err(DiscardError::NotAnonymous));
        assert_eq!((bed.seen(0), bed.load(0)), (Seen::Page, 1));
    }
}

#[test]
fn fills_are_refused_until_the_event_is_read() {
    let bed = Bed::new(Kind::Anon, 4, Modes::MISSING, TELL);
    for (i, operation) in (1..).zip(ALL) {
        let task = dropping(&bed, operation, bed.one(0));
        let copy = || bed.uffd.copy(bed.at(i), &[5; P as usize], P, NOW);
        assert_eq!(copy(), Outcome::Refused(Refusal::Changing));
        assert_eq!(bed.uffd.try_read_event(), removed(bed.one(0)));
        assert_eq!(returned(task), Ok(()));
        assert_eq!(copy(), Outcome::Done);
    }
}

#[test]
fn an_area_that_is_unmapped_while_the_caller_waits_is_not_mapped_any_more() {
    let bed = told(Kind::Anon, 4);
    let task = dropping(&bed, Space::discard, bed.range);
    bed.space().unmap(bed.part(0, 2)).expect("mapped");
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    assert_eq!(returned(task), Err(DiscardError::NotMapped));
    assert_eq!((bed.seen(2), bed.seen(3)), (Seen::Page, Seen::Page));
}

#[test]
fn an_area_that_is_cut_while_the_caller_waits_is_dropped_in_parts_and_the_rest_told_again() {
    let bed = told(Kind::Anon, 4);
    let task = dropping(&bed, Space::discard, bed.range);
    bed.space().protect(bed.part(2, 2), Prot::READ).expect("mapped");
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    until_it_announces(&task);
    let seen: Vec<_> = (0..4).map(|i| bed.seen(i)).collect();
    assert_eq!(seen, [Seen::Empty, Seen::Empty, Seen::Page, Seen::Page]);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.part(2, 2)));
    assert_eq!(returned(task), Ok(()));
    assert!((0..4).all(|i| bed.seen(i) == Seen::Empty));
}

#[test]
fn an_area_that_is_locked_while_the_caller_waits_is_refused() {
    let bed = told(Kind::Anon, 1);
    let task = dropping(&bed, Space::discard, bed.range);
    bed.space().lock(bed.range).expect("mapped");
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    assert_eq!(
        (returned(task), bed.seen(0)),
        (Err(DiscardError::Locked), Seen::Page)
    );
}

#[test]
fn closing_the_context_lets_the_caller_go_on_and_the_pages_go() {
    let bed = told(Kind::Anon, 1);
    let task = dropping(&bed, Space::discard, bed.range);
    bed.uffd.close();
    assert_eq!((returned(task), bed.seen(0)), (Ok(()), Seen::Empty));
}

#[test]
fn a_caller_that_is_killed_finishes_what_it_began() {
    let bed = told(Kind::Anon, 1);
    let task = dropping(&bed, Space::discard, bed.range);
    task.task().kill();
    assert_eq!((returned(task), bed.seen(0)), (Ok(()), Seen::Empty));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}

#[test]
fn both_sides_of_a_hole_are_told_of_and_dropped_and_the_hole_is_reported() {
    let bed = told(Kind::Anon, 5);
    bed.space().unmap(bed.one(2)).expect("mapped");
    let task = dropping(&bed, Space::discard, bed.range);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.part(0, 2)));
    until_it_announces(&task);
    assert_eq!(bed.uffd.try_read_event(), removed(bed.part(3, 2)));
    assert_eq!(returned(task), Err(DiscardError::NotMapped));
    assert!([0, 1, 3, 4].iter().all(|&i| bed.seen(i) == Seen::Empty));
}

#[test]
fn a_range_that_begins_in_a_hole_is_dropped_from_the_first_area_on() {
    let bed = told(Kind::Anon, 2);
    let task = dropping(&bed, Space::discard, VirtRange::new(bed.at(0) - 2 * P, bed.at(1)));
    assert_eq!(bed.uffd.try_read_event(), removed(bed.one(0)));
    assert_eq!(returned(task), Err(DiscardError::NotMapped));
    assert_eq!((bed.seen(0), bed.seen(1)), (Seen::Empty, Seen::Page));
}

#[test]
fn a_waiter_in_the_range_stays_asleep() {
    let bed = Bed::new(Kind::Anon, 1, Modes::MISSING, TELL);
    let waiter = bed.world.spawn_load(bed.at(0));
    until_it_waits(waiter.task());
    let task = dropping(&bed, Space::discard, bed.range);
    assert_eq!(
        bed.uffd.try_read_event(),
        missing(bed.at(0), false),
        "faults come first"
    );
    assert_eq!(bed.uffd.try_read_event(), removed(bed.range));
    assert_eq!(returned(task), Ok(()));
    assert!(waiter.task().fault.is_waiting());
    assert_eq!(bed.uffd.zeropage(bed.range, NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
}

#[test]
fn rights_do_not_matter() {
    let bed = Bed::unregistered(Kind::Anon, 3, Features::empty());
    populate(&bed.world, bed.range);
    for (i, prot) in [(1, Prot::READ), (2, Prot::empty())] {
        bed.space().protect(part(bed.range, i, 1), prot).expect("mapped");
    }
    assert_eq!(bed.space().discard(bed.range), Ok(()));
    assert_eq!(bed.world.load(page(bed.range, 1)), Ok(0));
    assert_eq!(bed.world.load(page(bed.range, 2)), Err(FaultError::Forbidden));
}

#[test]
fn punching_through_a_mapping_is_told_of_and_empties_the_object() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_shared()) {
        let bed = told(kind, 3);
        let task = dropping(&bed, Space::punch, bed.one(1));
        assert_eq!((bed.seen(1), bed.load(1)), (Seen::Page, 2), "{kind:?}");
        assert_eq!(bed.uffd.try_read_event(), removed(bed.one(1)));
        assert_eq!(returned(task), Ok(()));
        assert_eq!(
            [0, 1, 2].map(|i| bed.seen(i)),
            [Seen::Page, Seen::Empty, Seen::Page]
        );
        let object = bed.object.as_ref().expect("shared memory has one");
        assert_eq!(object.resident(), 2 * kind.granule(), "{kind:?}");
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn punching_what_no_object_gives_back_is_refused_and_not_told_of() {
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_shared()) {
        let bed = told(kind, 1);
        let why = if bed.object.is_some() {
            DiscardError::NotWritable
        } else {
            DiscardError::NoObject
        };
        assert_eq!(at_once(&bed, Space::punch, bed.range), Err(why), "{kind:?}");
        assert_eq!((bed.seen(0), bed.load(0)), (Seen::Page, 1));
        assert_eq!(bed.uffd.try_read_event(), NOTHING);
    }
    let bed = told(Kind::Shmem, 1);
    bed.space().lock(bed.range).expect("mapped");
    assert_eq!(at_once(&bed, Space::punch, bed.range), Err(DiscardError::Locked));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}
