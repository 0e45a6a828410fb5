//! Events beside page faults: who waits until when, in which order they are read, what is refused meanwhile, and what
//! closing does. Unmapping is the operation behind them here.

mod common;

use std::sync::Arc;

use common::{
    RW, World, answer, eventually, failed, missing, object_world, page, part, populate, returned,
    shared_with, source, until_it_waits, was_woken, word,
};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory, UnmapError};
use kernel::task::State;
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{
    Event, Features, FillMode, Modes, MoveMode, Outcome, ReadError, Refusal, Uffd, WriteProtectError, linux,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const TELL: Features = Features::EVENT_UNMAP;
const EVERY_EVENT: Features = Features::EVENT_FORK
    .union(Features::EVENT_REMAP)
    .union(Features::EVENT_REMOVE)
    .union(Features::EVENT_UNMAP);

/// A world with `pages` of memory whose unmapping is told.
fn told(pages: u64) -> (World, Arc<Uffd>, VirtRange) {
    shared_with(pages, RW, TELL)
}

/// Starts a task that unmaps `range`.
fn unmapper(world: &World, range: VirtRange) -> JoinHandle<Result<(), UnmapError>> {
    let space = Arc::clone(&world.space);
    world.spawn("unmapper", move || space.unmap(range))
}

/// Waits until `task` sleeps until its event is read.
#[track_caller]
fn until_it_announces<T>(task: &JoinHandle<T>) {
    eventually("the task waits for its event to be read", || {
        task.task().event.is_queued() && task.task().state() == State::Parked
    });
}

/// An unmapping of `range` that waits to be read.
fn unmapping(world: &World, range: VirtRange) -> JoinHandle<Result<(), UnmapError>> {
    let task = unmapper(world, range);
    until_it_announces(&task);
    task
}

fn unmapped(range: VirtRange) -> Result<Event, ReadError> {
    Ok(Event::Unmap { range })
}

/// A reader that sleeps.
fn reader(world: &World, uffd: &Arc<Uffd>) -> JoinHandle<Result<Event, ReadError>> {
    let uffd = Arc::clone(uffd);
    let task = world.spawn("monitor", move || uffd.read_event());
    eventually("the monitor sleeps", || task.task().state() == State::Parked);
    task
}

#[test]
fn munmap_sends_one_unmap_that_carries_the_whole_range_not_clipped_to_registered_parts() {
    let world = World::new();
    let range = world.map(7, RW);
    let uffd = Uffd::new(&world.space, TELL);
    for i in [1, 4] {
        uffd.register(part(range, i, 2), Modes::MISSING)
            .expect("anonymous memory can");
    }
    let task = unmapping(&world, range);
    assert_eq!(uffd.try_read_event(), unmapped(range));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn munmap_is_done_while_its_caller_waits() {
    let (world, uffd, range) = told(3);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    let task = unmapping(&world, part(range, 0, 2));
    assert_eq!(world.space.query(range.start), None);
    assert!(world.space.query(page(range, 2)).is_some());
    assert!(!world.space.entry(range.start).0.is_leaf());
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 0, 2)));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn munmap_tells_every_context_in_the_range_once_one_after_the_other() {
    let world = World::new();
    let range = world.map(4, RW);
    let uffds: Vec<_> = (0..2)
        .map(|i| {
            let uffd = Uffd::new(&world.space, TELL);
            uffd.register(part(range, 2 * i, 1), Modes::MISSING)
                .expect("anonymous memory can");
            uffd
        })
        .collect();
    let task = unmapping(&world, range);
    // Nothing of the second is to be read yet, and it fills nothing either.
    assert!(uffds[0].is_readable() && !uffds[1].is_readable());
    assert!(uffds.iter().all(|uffd| uffd.is_changing()));
    assert_eq!(uffds[0].try_read_event(), unmapped(range));
    eventually("the second is told", || uffds[1].is_readable());
    eventually("the first is through", || !uffds[0].is_changing());
    assert!(uffds[1].is_changing());
    assert_eq!(uffds[1].try_read_event(), unmapped(range));
    assert_eq!(returned(task), Ok(()));
    assert!(!uffds[1].is_changing());
}

#[test]
fn without_the_feature_nothing_is_sent() {
    let (world, uffd, range) = shared_with(2, RW, EVERY_EVENT - TELL);
    assert_eq!(returned(unmapper(&world, range)), Ok(()));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert!(!uffd.is_changing());
}

#[test]
fn unmapping_what_no_context_has_sends_nothing() {
    let (world, uffd, _range) = told(1);
    let other = world.map(1, RW);
    assert_eq!(returned(unmapper(&world, other)), Ok(()));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn an_unmap_that_is_refused_tells_nobody_and_leaves_fills_allowed() {
    let (world, uffd, range) = told(1);
    let bad = VirtRange {
        start: range.start + 1,
        end: range.end,
    };
    assert_eq!(world.space.unmap(bad), Err(UnmapError::BadRange));
    assert!(!uffd.is_changing() && !uffd.is_readable());
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
}

#[test]
fn faults_are_read_before_events_whatever_the_arrival_order() {
    let (world, uffd, range) = told(6);
    let first = unmapping(&world, part(range, 0, 1));
    let early = world.stuck_at(page(range, 4));
    let second = unmapping(&world, part(range, 1, 1));
    let late = world.stuck_at(page(range, 5));
    assert_eq!(uffd.try_read_event(), missing(page(range, 4), false));
    assert_eq!(uffd.try_read_event(), missing(page(range, 5), false));
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 0, 1)));
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 1, 1)));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!((returned(first), returned(second)), (Ok(()), Ok(())));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&early) && was_woken(&late));
}

#[test]
fn a_reader_that_sleeps_is_woken_by_an_event() {
    let (world, uffd, range) = told(1);
    let monitor = reader(&world, &uffd);
    assert_eq!(returned(unmapper(&world, range)), Ok(()));
    assert_eq!(returned(monitor), unmapped(range));
}

#[test]
fn an_event_is_delivered_once_to_one_reader() {
    let (world, uffd, range) = told(3);
    let readers = [reader(&world, &uffd), reader(&world, &uffd)];
    assert_eq!(returned(unmapper(&world, part(range, 0, 1))), Ok(()));
    eventually("one has it and the other sleeps again", || {
        let ended = readers.iter().filter(|task| task.task().state() == State::Ended);
        ended.count() == 1
    });
    let task = world.spawn_load(page(range, 1));
    until_it_waits(task.task());
    let mut seen = readers.map(returned);
    seen.sort_by_key(|event| matches!(event, Ok(Event::Unmap { .. })));
    assert_eq!(
        seen,
        [missing(page(range, 1), false), unmapped(part(range, 0, 1))]
    );
    assert_eq!(uffd.zeropage(part(range, 1, 2), NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn mapping_over_registered_memory_sends_unmap_and_the_new_mapping_is_in_place() {
    let (world, uffd, range) = told(4);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    let over = part(range, 1, 2);
    let task = {
        let space = Arc::clone(&world.space);
        let request = MapRequest {
            at: Some(over.start),
            len: over.len(),
            prot: Prot::READ,
            memory: Memory::Own(&ANON),
        };
        world.spawn("mapper", move || space.map_over(request))
    };
    until_it_announces(&task);
    let new = world.space.query(over.start).expect("mapped");
    assert_eq!((new.range, new.prot, new.uffd), (over, Prot::READ, None));
    assert!(
        !world.space.entry(over.start).0.is_leaf(),
        "what was there is gone"
    );
    assert_eq!(uffd.try_read_event(), unmapped(over));
    assert_eq!(returned(task), Ok(over));
    assert!(world.space.query(range.start).expect("mapped").uffd.is_some());
    assert!(world.space.entry(range.start).0.is_leaf());
}

#[test]
fn mapping_over_what_no_context_has_sends_nothing() {
    let (world, uffd, range) = told(1);
    let plain = world.map(3, RW);
    populate(&world, plain);
    let request = MapRequest {
        at: Some(page(plain, 1)),
        len: P,
        prot: RW,
        memory: Memory::Own(&ANON),
    };
    assert_eq!(world.space.map(request.clone()), Err(MapError::Occupied));
    assert_eq!(world.space.map_over(request), Ok(part(plain, 1, 1)));
    let seen = [0, 1, 2].map(|i| world.load(page(plain, i)));
    assert_eq!(seen, [Ok(1), Ok(0), Ok(3)]);
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert!(world.space.query(range.start).expect("mapped").uffd.is_some());
}

#[test]
fn mapping_over_part_of_a_large_page_is_refused_and_changes_nothing() {
    let world = object_world();
    let huge = Granule::Huge.size();
    let request = MapRequest {
        at: None,
        len: huge,
        prot: RW,
        memory: Memory::shared(&Object::new(&HUGETLB, huge)),
    };
    let range = world.space.map(request).expect("there is room");
    let uffd = Uffd::new(&world.space, TELL);
    uffd.register(range, Modes::MISSING).expect("huge pages can");
    let request = MapRequest {
        at: Some(range.start + P),
        len: P,
        prot: RW,
        memory: Memory::Own(&ANON),
    };
    assert_eq!(world.space.map_over(request), Err(MapError::SplitsPage));
    assert_eq!(world.space.query(range.start).expect("mapped").range, range);
    assert!(!uffd.is_changing() && !uffd.is_readable());
}

#[test]
fn protecting_and_guarding_tell_nobody() {
    let (world, uffd, range) = shared_with(2, RW, EVERY_EVENT);
    world.space.protect(range, Prot::READ).expect("mapped");
    world.space.install_guards(part(range, 1, 1)).expect("mapped");
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert!(!uffd.is_changing());
}

#[test]
fn protecting_does_not_wake_and_a_copy_afterwards_fails_the_writer() {
    let (world, uffd, range) = shared_with(1, RW, EVERY_EVENT);
    let writer = world.spawn_store(range.start, 1);
    until_it_waits(writer.task());
    world.space.protect(range, Prot::READ).expect("mapped");
    assert!(writer.task().fault.is_waiting());
    assert_eq!(uffd.copy(range.start, &source(1, 1), P, NOW), Outcome::Done);
    assert_eq!(failed(returned(writer)), Err(FaultError::Forbidden));
    assert_eq!(world.load(range.start), Ok(word(1)));
}

#[test]
fn unread_faults_are_readable_and_read_or_resolved_ones_are_not() {
    let (world, uffd, range) = told(2);
    let (first, second) = (world.stuck_at(range.start), world.stuck_at(page(range, 1)));
    assert!(uffd.is_readable());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert!(uffd.is_readable(), "the second is unread");
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert!(!uffd.is_readable(), "it is resolved, and the first is read");
    assert!(was_woken(&second) && !was_woken(&first));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&first));
}

#[test]
fn nothing_is_readable_once_the_target_is_gone() {
    let (world, uffd, _) = told(1);
    let World { space, machine } = world;
    drop(space);
    assert!(!uffd.is_readable() && !uffd.is_changing());
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    drop(uffd);
    drop(machine);
}

#[test]
fn poll_says_readable_until_the_event_is_read() {
    let (world, uffd, range) = told(1);
    assert!(!uffd.is_readable());
    let task = unmapping(&world, range);
    assert!(uffd.is_readable());
    assert_eq!(uffd.try_read_event(), unmapped(range));
    assert!(!uffd.is_readable());
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn while_an_event_is_outstanding_every_fill_is_refused_before_its_arguments_are_looked_at() {
    let (world, uffd, range) = told(2);
    let task = unmapping(&world, part(range, 0, 1));
    let refused = Outcome::Refused(Refusal::Changing);
    let garbage = VirtRange {
        start: VirtAddr::new(7),
        end: VirtAddr::new(3),
    };
    let unknown = FillMode::all();
    for range in [part(range, 1, 1), garbage] {
        for mode in [NOW, unknown] {
            assert_eq!(uffd.copy(range.start, &[], P, mode), refused);
            assert_eq!(uffd.zeropage(range, mode), refused);
            assert_eq!(uffd.poison(range, mode), refused);
            assert_eq!(uffd.cont(range, mode), refused);
            assert_eq!(
                uffd.remove_write_protection(range, mode),
                Err(WriteProtectError::Changing)
            );
        }
        assert_eq!(uffd.write_protect(range), Err(WriteProtectError::Changing));
    }
    assert_eq!(uffd.copy(VirtAddr::new(u64::MAX), &[], P, NOW), refused);
    for (dst, src, mode) in [
        (page(range, 1), range.start, MoveMode::empty()),
        (VirtAddr::new(7), VirtAddr::new(u64::MAX), MoveMode::all()),
    ] {
        assert_eq!(uffd.move_pages(&world.space, dst, src, P, mode), refused);
    }
    assert_eq!(answer(refused, P), (Some(11), Some(-11)));
    assert_eq!(linux::write_protect(WriteProtectError::Changing).number(), 11);
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 0, 1)));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
}

#[test]
fn while_an_event_is_outstanding_register_unregister_wake_and_reads_work() {
    let (world, uffd, range) = told(3);
    let more = world.map(1, RW);
    let waiter = world.stuck_at(page(range, 2));
    let task = unmapping(&world, part(range, 0, 1));
    assert!(uffd.register(more, Modes::MISSING).is_ok());
    assert_eq!(uffd.unregister(more), Ok(()));
    assert_eq!(uffd.try_read_event(), missing(page(range, 2), false));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
    assert!(
        task.task().event.is_queued(),
        "waking a range does not release who announces an event"
    );
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 0, 1)));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn an_outstanding_event_stops_the_fills_of_its_own_context_only() {
    let (world, uffd, range) = told(2);
    let other = Uffd::new(&world.space, TELL);
    let task = unmapping(&world, part(range, 0, 1));
    assert_eq!(
        uffd.zeropage(part(range, 1, 1), NOW),
        Outcome::Refused(Refusal::Changing)
    );
    // Which context a range is registered with does not matter to a fill, nor here.
    assert_eq!(other.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 0, 1)));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn closing_releases_whoever_announces_and_the_operation_completes() {
    let (world, uffd, range) = told(2);
    populate_zeros(&world, &uffd, range);
    let tasks = [
        unmapping(&world, part(range, 0, 1)),
        unmapping(&world, part(range, 1, 1)),
    ];
    drop(uffd);
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    assert_eq!(world.space.areas(), []);
}

#[test]
fn closing_although_there_are_handles_releases_them_too_and_later_events_are_not_sent() {
    let (world, uffd, range) = told(2);
    let task = unmapping(&world, part(range, 0, 1));
    uffd.close();
    assert_eq!(returned(task), Ok(()));
    assert_eq!(returned(unmapper(&world, part(range, 1, 1))), Ok(()));
    assert_eq!(uffd.try_read_event(), Err(ReadError::Closed));
    assert!(!uffd.is_changing());
}

#[test]
fn a_monitor_that_ends_while_attached_releases_whoever_announces() {
    let (world, uffd, range) = told(2);
    let monitor = world.spawn("monitor", || ());
    let task = unmapping(&world, part(range, 0, 1));
    uffd.attach_monitor(monitor.task());
    returned(monitor);
    assert_eq!(returned(task), Ok(()));
    // Nobody is there to read, so nobody waits.
    assert_eq!(returned(unmapper(&world, part(range, 1, 1))), Ok(()));
    assert!(uffd.ctx().is_orphaned());
}

#[test]
fn a_fatal_signal_ends_the_wait_and_takes_the_event_away() {
    let (world, uffd, range) = told(2);
    let tasks = [
        unmapping(&world, part(range, 0, 1)),
        unmapping(&world, part(range, 1, 1)),
    ];
    let [killed, waiting] = tasks;
    killed.task().kill();
    assert_eq!(returned(killed), Ok(()), "what it did stays done");
    assert_eq!(uffd.try_read_event(), unmapped(part(range, 1, 1)));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!(returned(waiting), Ok(()));
    assert!(!uffd.is_changing());
}

#[test]
fn a_wake_up_that_is_none_leaves_the_caller_asleep() {
    let (world, uffd, range) = told(1);
    let task = unmapping(&world, range);
    task.task().unpark();
    // It looks, and sleeps again.
    until_it_announces(&task);
    assert!(uffd.is_changing());
    assert_eq!(uffd.try_read_event(), unmapped(range));
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn an_event_that_is_not_admitted_stays_queued_and_its_caller_waits_on() {
    let (world, uffd, range) = told(2);
    let task = unmapping(&world, part(range, 0, 1));
    let mut asked = 0;
    let result = uffd.try_read_event_if(|event| {
        asked += 1;
        assert_eq!(
            event,
            &Event::Unmap {
                range: part(range, 0, 1)
            }
        );
        false
    });
    assert_eq!((result, asked), (Err(ReadError::NotAdmitted), 1));
    assert!(task.task().event.is_queued() && uffd.is_readable() && uffd.is_changing());
    let waiter = world.stuck_at(page(range, 1));
    assert_eq!(
        uffd.read_event_if(|_| false),
        missing(page(range, 1), false),
        "faults are taken by everybody"
    );
    assert_eq!(uffd.read_event_if(|_| false), Err(ReadError::NotAdmitted));
    assert_eq!(uffd.read_event_if(|_| true), unmapped(part(range, 0, 1)));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn unmapping_the_whole_of_user_space_is_told_as_it_was_asked() {
    let (world, uffd, range) = told(1);
    let everything = VirtRange::new(VirtAddr::new(0), USER_TOP);
    let task = unmapping(&world, everything);
    assert_eq!(uffd.try_read_event(), unmapped(everything));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(world.space.query(range.start), None);
}

/// Has a page of zeros everywhere, so that there is something to unmap.
fn populate_zeros(world: &World, uffd: &Uffd, range: VirtRange) {
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    populate(world, range);
}
