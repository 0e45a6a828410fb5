//! Pages that are taken away from whoever maps them.

use std::sync::Arc;

use kernel::arch::host::MissedFlush;
use kernel::mm::cache::{Lookup, Object};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::Folio;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Entry;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::task::State;
use kernel::task::spawn::spawn_returning;

use super::{Bed, P, load_in, map_in, store_in};
use crate::common::{anon_frames, eventually, page, returned};

#[test]
fn views_that_map_nothing_any_more_are_forgotten_when_they_are_next_asked() {
    let bed = Bed::new(2);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let third = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), 2);
    map_in(&third, Memory::shared(&bed.object), 2);
    // Twice in one space is one view.
    let again = bed.privately();
    assert_eq!(bed.object.views(), 3);
    drop(third);
    assert_eq!(bed.object.views(), 2, "a space that is gone does not count");
    assert_eq!(other.unmap(there), Ok(()));
    assert_eq!(bed.world.space.unmap(again), Ok(()));
    assert_eq!(bed.object.views(), 2, "nobody has asked yet");
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(bed.object.views(), 1);
    // Whoever comes back is asked again.
    let there = map_in(&other, Memory::shared(&bed.object), 2);
    assert_eq!(store_in(&other, there.start, 5), Ok(()));
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(load_in(&other, there.start), Ok(0));
    assert_eq!(bed.object.views(), 2);
}

#[test]
fn a_forked_child_is_asked_too() {
    let bed = Bed::new(2);
    let private = bed.privately();
    bed.store(0, 1);
    assert_eq!(bed.world.load(private.start), Ok(1));
    let child = bed.world.space.fork().expect("RAM is plenty");
    assert_eq!(load_in(&child, private.start), Ok(1));
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(load_in(&child, private.start), Ok(0));
    assert_eq!(load_in(&child, bed.range.start), Ok(0));
    assert_eq!(bed.object.truncate(0), Ok(()));
    assert_eq!(load_in(&child, private.start), Err(FaultError::BeyondEnd));
}

/// The point of the software machine: take the flush out and a test fails.
#[test]
fn a_flush_that_is_left_out_when_a_page_is_taken_from_the_object_is_caught() {
    for cut in [false, true] {
        let bed = Bed::new(1);
        let start = bed.range.start;
        let freed = bed.world.run(|| {
            uaccess::store(start, 42).expect("mapped");
            let Lookup::Present(folio) = bed.object.lookup(0) else {
                panic!("a page was just stored to");
            };
            let pfn = folio.pfn();
            drop(folio);
            bed.world.machine.lose_flushes(1);
            if cut {
                assert_eq!(bed.object.truncate(0), Ok(()));
            } else {
                assert_eq!(bed.object.punch(0, P), Ok(()));
            }
            pfn
        });
        let missed = bed.world.machine.take_missed_flushes();
        assert!(
            missed
                .iter()
                .any(|missed| matches!(missed, MissedFlush::Freed { frame, .. } if *frame == freed)),
            "{missed:?}"
        );
    }
}

#[test]
fn other_cpus_lose_the_page_too() {
    let bed = Bed::new(1);
    let start = bed.range.start;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let task = bed.world.spawn("reader", move || {
        uaccess::store(start, 1).expect("mapped");
        wait.recv().expect("told to go on");
        uaccess::load(start).map_err(|error| error.why)
    });
    eventually("the page is there", || bed.object.resident() == P);
    eventually("and mapped", || {
        matches!(bed.world.space.entry(start).0, Entry::Leaf(_))
    });
    assert_eq!(bed.object.truncate(0), Ok(()));
    go.send(()).expect("the task listens");
    assert_eq!(returned(task), Err(FaultError::BeyondEnd));
}

/// Tasks of two spaces touch, while others punch, cut off, grow and write. Afterwards every entry has the page that the
/// cache has, or none, and no frame is lost (the machine counts).
#[test]
fn pages_that_are_taken_while_they_are_touched_are_gone_afterwards() {
    const PAGES: u64 = 80;
    const ROUNDS: u64 = 300;
    let bed = Bed::new(PAGES);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), PAGES);
    let touch = |space: &Arc<Space>, range: VirtRange, seed: u64| {
        let work = move || {
            for i in 0..ROUNDS * 20 {
                let at = page(range, (i * 13 + seed) % PAGES);
                let outcome = match i % 2 {
                    0 => uaccess::load(at).map(|_| ()),
                    _ => uaccess::store(at, i),
                };
                assert!(
                    matches!(
                        outcome.map_err(|error| error.why),
                        Ok(()) | Err(FaultError::BeyondEnd)
                    ),
                    "{outcome:?}"
                );
            }
        };
        spawn_returning("toucher", Some(Arc::clone(space)), work).expect("the host has threads")
    };
    let change = |name: &str, work: fn(&Object, u64)| {
        let object = Arc::clone(&bed.object);
        let all = move || (0..ROUNDS).for_each(|i| work(&object, i));
        spawn_returning(name, None, all).expect("the host has threads")
    };
    let tasks = [
        touch(&bed.world.space, bed.range, 0),
        touch(&other, there, 7),
        change("puncher", |object, i| {
            assert_eq!(object.punch(i % PAGES * P, 9 * P + 5), Ok(()));
        }),
        change("cutter", |object, i| {
            assert_eq!(object.truncate(i * 37 % PAGES * P + i), Ok(()));
            assert_eq!(object.truncate(PAGES * P), Ok(()));
        }),
        change("writer", |object, i| {
            let (_, outcome) = object.write(i * 3 % PAGES * P, &[7; 100]);
            assert_eq!(outcome, Ok(()));
        }),
        change("allocator", |object, i| {
            assert_eq!(object.allocate(i * 11 % PAGES * P, P, true), Ok(()));
        }),
    ];
    for task in tasks {
        eventually("the task has ended", || task.task().state() == State::Ended);
        assert!(task.join().is_ok());
    }
    for i in 0..PAGES {
        let cached = match bed.object.lookup(i * P) {
            Lookup::Present(folio) => Some(folio.pfn()),
            _ => None,
        };
        for (space, range) in [(&bed.world.space, bed.range), (&other, there)] {
            if let Entry::Leaf(leaf) = space.entry(page(range, i)).0 {
                assert_eq!(Some(leaf.frame), cached, "page {i}");
            }
        }
    }
    assert_eq!(bed.object.resident(), anon_frames() * P);
    assert_eq!(bed.object.punch(0, PAGES * P), Ok(()));
    assert_eq!(anon_frames(), 0);
}

#[test]
fn taking_back_what_was_put_in_leaves_another_page_that_took_its_place() {
    let bed = Bed::new(1);
    let fresh = || Folio::from(SHMEM.alloc().expect("RAM is plenty"));
    let (mine, other) = (fresh(), fresh());
    bed.object.insert(0, mine.clone()).expect("a hole");
    assert_eq!(bed.object.punch(0, P), Ok(()));
    bed.object.insert(0, other.clone()).expect("a hole again");
    assert!(bed.object.remove(0, &mine).is_none());
    let found = match bed.object.lookup(0) {
        Lookup::Present(folio) => folio,
        missing => panic!("{missing:?}"),
    };
    assert_eq!(found.pfn(), other.pfn());
    assert!(bed.object.remove(0, &other).is_none(), "somebody has found it");
    drop(found);
    assert_eq!(
        bed.object.remove(0, &other).map(|folio| folio.pfn()),
        Some(other.pfn())
    );
    assert!(matches!(bed.object.lookup(0), Lookup::Absent));
}
