//! How a missing page becomes a message and who is woken when, row by row as Linux has it (checked there on 6.18). Each
//! test is named after what it claims.

mod common;

use std::sync::Arc;

use common::{
    RW, World, eventually, failed, missing, page, part, returned, shared, shared_with, until_it_waits,
    was_woken,
};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess::{self};
use kernel::task::State;
use kernel::uffd::slot::FaultState;
use kernel::uffd::{
    Event, Features, FillMode, Modes, Outcome, RangeError, ReadError, RegisterError, TrapKind, WakeError,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

#[test]
fn a_load_of_a_missing_page_is_a_message_without_the_write_flag() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.copy(range.start, &[3; P as usize], P, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0x0303_0303_0303_0303));
}

#[test]
fn a_store_to_a_missing_page_is_a_message_with_the_write_flag() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_store(range.start, 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(()));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "writing to the zero page sends no message"
    );
    world.run(|| assert_eq!(uaccess::load(range.start), Ok(7)));
}

#[test]
fn a_forbidden_access_fails_without_a_message_even_on_a_missing_page() {
    let (world, uffd, range) = shared_with(1, Prot::READ, Features::empty());
    let task = world.spawn_store(range.start, 7);
    assert_eq!(failed(returned(task)), Err(FaultError::Forbidden));
    world.space.protect(range, Prot::empty()).expect("mapped");
    let task = world.spawn_load(range.start);
    assert_eq!(failed(returned(task)), Err(FaultError::Forbidden));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn the_address_is_the_pages_unless_the_exact_one_was_asked_for() {
    for (features, offset) in [(Features::empty(), 0), (Features::EXACT_ADDRESS, 0x238)] {
        let (world, uffd, range) = shared_with(2, RW, features);
        let task = world.spawn_load(page(range, 1) + 0x238);
        until_it_waits(task.task());
        assert_eq!(uffd.try_read_event(), missing(page(range, 1) + offset, false));
        assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
        assert_eq!(returned(task), Ok(0));
    }
}

#[test]
fn the_thread_is_named_when_that_was_asked_for() {
    let (world, uffd, range) = shared_with(1, RW, Features::THREAD_ID);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    let Ok(Event::Pagefault { thread, .. }) = uffd.try_read_event() else {
        panic!("a message is there")
    };
    assert_eq!(thread, Some(task.task().id()));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    returned(task).expect("filled");
}

#[test]
fn two_tasks_on_one_page_are_two_messages() {
    let (world, uffd, range) = shared(1);
    let tasks = [world.spawn_load(range.start), world.spawn_load(range.start + 64)];
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    for task in tasks {
        assert_eq!(returned(task), Ok(0), "one fill wakes both");
    }
}

#[test]
fn messages_are_read_oldest_first() {
    let (world, uffd, range) = shared(5);
    let order = [3, 0, 4, 1, 2];
    let tasks: Vec<_> = order
        .iter()
        .map(|i| {
            let task = world.spawn_load(page(range, *i));
            until_it_waits(task.task());
            task
        })
        .collect();
    for i in order {
        assert_eq!(uffd.try_read_event(), missing(page(range, i), false));
    }
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    tasks
        .into_iter()
        .for_each(|task| assert_eq!(returned(task), Ok(0)));
}

#[test]
fn reading_without_waiting_says_when_nothing_is_there() {
    let (_world, uffd, _) = shared(1);
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn a_read_that_waits_is_woken_by_the_first_fault() {
    let (world, uffd, range) = shared(1);
    let reader = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || uffd.read_event())
    };
    eventually("the monitor sleeps", || reader.task().state() == State::Parked);
    let task = world.spawn_load(range.start);
    assert_eq!(returned(reader), missing(range.start, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn a_message_is_delivered_once_to_one_reader() {
    let (world, uffd, range) = shared(2);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let uffd = Arc::clone(&uffd);
            world.spawn("monitor", move || uffd.read_event())
        })
        .collect();
    eventually("both sleep", || {
        readers
            .iter()
            .all(|reader| reader.task().state() == State::Parked)
    });
    let tasks = [world.spawn_load(range.start), world.spawn_load(page(range, 1))];
    let mut seen: Vec<_> = readers.into_iter().map(|reader| returned(reader)).collect();
    seen.sort_by_key(|event| event != &missing(range.start, false));
    assert_eq!(
        seen,
        [missing(range.start, false), missing(page(range, 1), false)]
    );
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    tasks
        .into_iter()
        .for_each(|task| assert_eq!(returned(task), Ok(0)));
}

#[test]
fn a_reader_waits_on_when_the_fault_it_was_woken_for_is_resolved_first() {
    let (world, uffd, range) = shared(2);
    let reader = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || uffd.read_event())
    };
    eventually("the monitor sleeps", || reader.task().state() == State::Parked);
    let first = world.spawn_load(range.start);
    // The reader and this thread race for the message; both outcomes are legal for the first fault.
    let filled = uffd.zeropage(part(range, 0, 1), NOW);
    assert_eq!(filled, Outcome::Done);
    assert_eq!(returned(first), Ok(0));
    let second = world.spawn_load(page(range, 1));
    let event = returned(reader);
    assert!(
        event == missing(range.start, false) || event == missing(page(range, 1), false),
        "{event:?}"
    );
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(returned(second), Ok(0));
}

#[test]
fn a_fault_that_is_resolved_before_it_is_read_vanishes() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn waking_removes_unread_messages_too() {
    let (world, uffd, range) = shared(1);
    let waiter = world.stuck_at(range.start);
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&waiter));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
}

#[test]
fn waking_makes_the_task_try_again_and_send_a_new_message() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_store(range.start, 4);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    for _ in 0..3 {
        assert_eq!(uffd.wake(range), Ok(()));
        let mut again = Err(ReadError::WouldBlock);
        eventually("the message comes again", || {
            again = uffd.try_read_event();
            again.is_ok()
        });
        assert_eq!(again, missing(range.start, true));
    }
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(()));
}

#[test]
fn waking_is_not_remembered() {
    let (world, uffd, range) = shared(1);
    assert_eq!(uffd.wake(range), Ok(()));
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    returned(task).expect("filled");
}

#[test]
fn waking_one_page_leaves_waiters_of_the_next_asleep() {
    let (world, uffd, range) = shared(2);
    let (first, second) = (world.stuck_at(range.start + 8), world.stuck_at(page(range, 1)));
    assert_eq!(uffd.wake(part(range, 0, 1)), Ok(()));
    assert_eq!((was_woken(&first), was_woken(&second)), (true, false));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(was_woken(&second));
}

#[test]
fn waking_asks_for_neither_mapping_nor_registration_nor_a_living_target() {
    let (world, uffd, range) = shared(1);
    world.space.unmap(range).expect("mapped");
    let everything = VirtRange {
        start: VirtAddr::new(0),
        end: USER_TOP,
    };
    assert_eq!((uffd.wake(range), uffd.wake(everything)), (Ok(()), Ok(())));
    let World { space, machine } = world;
    drop(space);
    assert_eq!(uffd.wake(everything), Ok(()));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "reading goes on working too"
    );
    drop(machine);
}

#[test]
fn waking_a_bad_range_is_einval() {
    let (_world, uffd, range) = shared(1);
    let rows = [
        (range.start + 1, range.end, RangeError::Unaligned),
        (range.start, range.start, RangeError::Empty),
        (VirtAddr::new(0), USER_TOP + P, RangeError::BeyondTop),
    ];
    for (start, end, why) in rows {
        assert_eq!(uffd.wake(VirtRange { start, end }), Err(WakeError::Range(why)));
    }
}

#[test]
fn neither_unmapping_nor_protecting_nor_discarding_wakes() {
    let (world, uffd, range) = shared(3);
    let waiters: Vec<_> = (0..3).map(|i| world.stuck_at(page(range, i))).collect();
    world
        .space
        .protect(part(range, 0, 1), Prot::empty())
        .expect("mapped");
    world.space.discard(part(range, 1, 1)).expect("mapped");
    world.space.unmap(part(range, 2, 1)).expect("mapped");
    assert!(waiters.iter().all(|waiter| !was_woken(waiter)));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
}

#[test]
fn unmapping_does_not_wake_and_a_wake_afterwards_fails_the_access() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    world.space.unmap(range).expect("mapped");
    assert!(task.task().fault.is_waiting());
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(failed(returned(task)), Err(FaultError::Unmapped));
}

#[test]
fn copying_across_a_page_border_faults_once_for_each_page() {
    let (world, uffd, range) = shared(2);
    let at = page(range, 1) - 4;
    let task = world.spawn("writer", move || uaccess::write(at, &[1; 8]));
    for i in 0..2 {
        until_it_waits(task.task());
        assert_eq!(uffd.try_read_event(), missing(page(range, i), true));
        assert_eq!(uffd.zeropage(part(range, i, 1), NOW), Outcome::Done);
        if i == 0 {
            eventually("the second page is asked for", || {
                task.task().fault.addr() == page(range, 1)
            });
        }
    }
    assert_eq!(returned(task), Ok(()));
    world.run(|| {
        let mut bytes = [0; 10];
        assert_eq!(uaccess::read(at - 1, &mut bytes), Ok(()));
        assert_eq!(bytes, [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    });
}

#[test]
fn every_outstanding_fault_can_be_listed_unread_ones_first() {
    let (world, uffd, range) = shared(3);
    let tasks: Vec<_> = (0..3)
        .map(|i| {
            let task = world.spawn_store(page(range, i) + 16, i);
            until_it_waits(task.task());
            task
        })
        .collect();
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    let faults = uffd.ctx().outstanding_faults();
    let listed: Vec<_> = faults
        .iter()
        .map(|fault| (fault.addr, fault.state, fault.task.id()))
        .collect();
    let row = |i: u64, state| (page(range, i) + 16, state, tasks[i as usize].task().id());
    assert_eq!(
        listed,
        [
            row(1, FaultState::Pending),
            row(2, FaultState::Pending),
            row(0, FaultState::Read)
        ]
    );
    assert!(
        faults
            .iter()
            .all(|fault| fault.trap.write && fault.trap.kind == TrapKind::Missing)
    );
    assert!(
        faults[0].since < faults[1].since,
        "older faults have waited longer"
    );
    drop(faults);
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    tasks.into_iter().for_each(|task| returned(task).expect("filled"));
    assert!(uffd.ctx().outstanding_faults().is_empty());
}

#[test]
fn a_reader_beside_the_monitor_is_told_when_the_monitor_ends() {
    let (world, uffd, _range) = shared(1);
    let uffd = Arc::new(uffd);
    let its = Arc::clone(&uffd);
    let reader = world.spawn("reader", move || its.read_event());
    eventually("the reader sleeps", || reader.task().state() == State::Parked);
    let monitor = world.spawn("monitor", || ());
    uffd.attach_monitor(monitor.task());
    returned(monitor);
    assert_eq!(returned(reader), Err(ReadError::Orphaned));
    assert_eq!(uffd.try_read_event(), Err(ReadError::Orphaned));
}

#[test]
fn nothing_is_registered_with_a_closed_context() {
    let (world, uffd, range) = shared(1);
    uffd.close();
    assert_eq!(uffd.register(range, Modes::MISSING), Err(RegisterError::Closed));
    world.run(|| assert_eq!(uaccess::load(range.start), Ok(0)));
}
