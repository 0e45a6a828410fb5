//! Who is stuck on which page, and why: the table of outstanding faults over all contexts, what it finds wrong, and faults
//! that would wait for the very task that faults.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    RW, World, eventually, failed, missing, page, part, populate, registered_with, returned, shared,
    until_it_waits,
};
use kernel::mm::fault::FaultError;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::task::{Completion, State, Task, WaitReason};
use kernel::uffd::diagnosis::{Finding, PATIENCE, Page, Progress, Server, Waiting, waiting, waiting_at_once};
use kernel::uffd::{
    Delivery, Features, FillMode, Handled, Modes, MonitorDeath, Outcome, ReadError, Refusal, TrapKind, Uffd,
    Upcall,
};

const NOW: FillMode = FillMode::empty();

/// The rows of one context: the table is that of all tests that run at the moment.
fn rows(uffd: &Uffd) -> Vec<Waiting> {
    let mut rows = waiting();
    rows.retain(|row| row.ctx == uffd.ctx().id());
    rows
}

/// What is wrong with the only fault of a context when nothing may take any time.
#[track_caller]
fn finding(uffd: &Uffd) -> Finding {
    let rows = rows(uffd);
    let [row] = &rows[..] else {
        panic!("one row: {rows:?}")
    };
    row.finding(Duration::ZERO)
}

#[test]
fn a_row_says_who_waits_for_what_since_when_and_who_serves() {
    let (world, uffd, range) = shared(2);
    let monitor = Task::detached("monitor");
    uffd.attach_monitor(&monitor);
    let first = world.stuck_storing_at(page(range, 1) + 0x18);
    let second = world.stuck_at(range.start);
    monitor.run_as(|| assert_eq!(uffd.try_read_event(), missing(page(range, 1), true)));
    let rows = rows(&uffd);
    // Unread ones first.
    let [unread, read] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!((read.task, read.name.as_str()), (first.id(), "stuck"));
    assert_eq!(
        (read.addr, read.trap.kind, read.trap.write),
        (page(range, 1) + 0x18, TrapKind::Missing, true)
    );
    assert!(matches!(read.progress, Progress::Read { by, ago } if by == monitor.id() && ago <= read.age));
    assert_eq!((unread.task, unread.progress), (second.id(), Progress::Unread));
    assert!(
        rows.iter()
            .all(|row| row.server == Server::Monitor(monitor.id()) && row.page == Page::Unresolved)
    );
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(self::rows(&uffd).is_empty());
}

#[test]
fn the_table_is_over_all_contexts_in_the_order_in_which_they_were_made() {
    let world = World::new();
    let contexts: Vec<(Uffd, VirtRange)> = (0..3)
        .map(|_| {
            let range = world.map(1, RW);
            let uffd = Uffd::new(&world.space, Features::empty());
            uffd.register(range, Modes::MISSING)
                .expect("anonymous memory can");
            (uffd, range)
        })
        .collect();
    let tasks: Vec<_> = contexts
        .iter()
        .rev()
        .map(|(_, range)| world.stuck_at(range.start))
        .collect();
    let ours = |row: &Waiting| contexts.iter().any(|(uffd, _)| uffd.ctx().id() == row.ctx);
    let seen: Vec<_> = waiting().into_iter().filter(ours).map(|row| row.task).collect();
    let expected: Vec<_> = tasks.iter().rev().map(|task| task.id()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_is_seen_without_waiting_is_the_same() {
    let (world, uffd, range) = shared(3);
    let _tasks: Vec<_> = (0..3).map(|i| world.stuck_at(page(range, i))).collect();
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    let key = |row: &Waiting| {
        (
            row.task,
            row.addr,
            matches!(row.progress, Progress::Read { .. }),
            row.page,
        )
    };
    let expected: Vec<_> = rows(&uffd).iter().map(key).collect();
    let mut seen = Vec::new();
    // Other tests may hold a lock of their own contexts; ours are free.
    waiting_at_once(|row| {
        if row.ctx == uffd.ctx().id() {
            seen.push(key(row));
        }
    });
    assert_eq!(seen, expected);
}

#[test]
fn a_fill_that_finds_the_page_there_loses_the_wake_and_that_is_found() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(finding(&uffd), Finding::Unresolved);
    assert_eq!(uffd.zeropage(range, FillMode::DONTWAKE), Outcome::Done);
    let again = uffd.zeropage(range, NOW);
    assert_eq!(again, Outcome::Refused(Refusal::Exists), "and nobody is woken");
    assert_eq!(finding(&uffd), Finding::LostWake);
    assert_eq!(
        rows(&uffd)[0].finding(Duration::MAX),
        Finding::Serving,
        "not before its time"
    );
    assert_eq!(uffd.wake(range), Ok(()), "what the finding says to do");
    assert_eq!(returned(task), Ok(0));
    assert!(rows(&uffd).is_empty());
}

#[test]
fn a_protection_that_was_ended_without_a_wake_is_found_too() {
    let (world, uffd, range) = registered_with(1, Modes::WP, Features::empty());
    populate(&world, range);
    uffd.write_protect(range).expect("registered");
    let writer = world.spawn_store(range.start, 7);
    until_it_waits(writer.task());
    uffd.try_read_event().expect("one");
    assert_eq!(finding(&uffd), Finding::Unresolved);
    uffd.remove_write_protection(range, FillMode::DONTWAKE)
        .expect("registered");
    assert_eq!(finding(&uffd), Finding::LostWake);
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(returned(writer), Ok(()));
}

#[test]
fn a_poisoned_page_counts_as_resolved() {
    let (world, uffd, range) = shared(1);
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    uffd.try_read_event().expect("one");
    assert_eq!(uffd.poison(range, FillMode::DONTWAKE), Outcome::Done);
    assert_eq!(finding(&uffd), Finding::LostWake);
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(failed(returned(task)), Err(FaultError::Poisoned));
}

#[test]
fn whoever_waits_for_what_was_unmapped_is_stranded() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    world.space.unmap(part(range, 0, 1)).expect("mapped");
    assert_eq!(finding(&uffd), Finding::Stranded);
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(failed(returned(waiter)), Err(FaultError::Unmapped));
}

#[test]
fn whoever_waits_for_protection_that_is_unregistered_is_stranded_as_on_linux() {
    let (world, uffd, range) = registered_with(1, Modes::WP, Features::empty());
    populate(&world, range);
    uffd.write_protect(range).expect("registered");
    let writer = world.spawn_store(range.start, 7);
    until_it_waits(writer.task());
    uffd.unregister(range).expect("registered");
    assert_eq!(finding(&uffd), Finding::Stranded);
    assert_eq!(uffd.wake(range), Ok(()));
    assert_eq!(returned(writer), Ok(()));
}

#[test]
fn a_fault_that_nobody_reads_is_told_from_one_whose_monitor_has_ended() {
    let (world, uffd, range) = shared(1);
    uffd.on_monitor_death(MonitorDeath::Hang);
    let _task = world.stuck_at(range.start);
    assert_eq!(finding(&uffd), Finding::Unread);
    assert_eq!(
        rows(&uffd)[0].finding(PATIENCE),
        Finding::Queued,
        "it has just come"
    );
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc())
        })
    };
    let id = monitor.task().id();
    returned(monitor);
    assert_eq!(rows(&uffd)[0].server, Server::Lost(Some(id), MonitorDeath::Hang));
    assert_eq!(finding(&uffd), Finding::NoMonitor);
    assert_eq!(uffd.wake(range), Ok(()));
}

static GATE: WaitReason = WaitReason::new("the test");

#[test]
fn a_fault_that_a_handler_is_at_stands_in_the_table() {
    let world = World::new();
    let gate = Arc::new((Completion::new(&GATE), Completion::new(&GATE)));
    let its = Arc::clone(&gate);
    let handler = move |fault: &Upcall<'_>| {
        its.0.complete();
        its.1.wait();
        match fault.zeropage(fault.page(), NOW) {
            Outcome::Done => Handled::Resolved,
            _ => Handled::Failed,
        }
    };
    let range = world.map(1, RW);
    let uffd = Uffd::with_delivery(&world.space, Features::empty(), Delivery::upcall(handler));
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let toucher = world.spawn_load(range.start + 8);
    gate.0.wait();
    let rows = rows(&uffd);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (row.task, row.addr, row.server),
        (toucher.task().id(), range.start + 8, Server::Handler)
    );
    assert_eq!(finding(&uffd), Finding::InHandler);
    gate.1.complete();
    assert_eq!(returned(toucher), Ok(0));
}

/// Has a task read one message and touch page `touched` of the context's memory; comes to what that gave.
fn read_then_load(
    world: &World,
    uffd: &Arc<Uffd>,
    range: VirtRange,
    touched: u64,
) -> Result<u64, FaultError> {
    let uffd = Arc::clone(uffd);
    let server = world.spawn("server", move || {
        uffd.read_event().expect("there is a fault");
        uaccess::load(page(range, touched))
    });
    failed(returned(server))
}

#[test]
fn a_task_that_holds_a_fault_and_is_the_only_one_to_serve_is_told_of_its_own() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    assert!(matches!(
        read_then_load(&world, &uffd, range, 1),
        Err(FaultError::SelfFault { .. })
    ));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "nothing was queued"
    );
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
}

#[test]
fn a_task_that_served_what_it_read_is_queued_like_anybody_as_on_linux() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let its = Arc::clone(&uffd);
    let server = world.spawn("server", move || {
        its.read_event().expect("there is a fault");
        assert_eq!(its.zeropage(part(range, 0, 1), NOW), Outcome::Done);
        uaccess::load(page(range, 1))
    });
    assert_eq!(returned(waiter), Ok(0));
    until_it_waits(server.task());
    assert_eq!(uffd.zeropage(part(range, 1, 1), NOW), Outcome::Done);
    assert_eq!(returned(server), Ok(0));
}

#[test]
fn a_second_reader_serves_the_first_as_on_linux() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let (its, asleep) = (Arc::clone(&uffd), Arc::new(Completion::new(&GATE)));
    let go = Arc::clone(&asleep);
    let first = world.spawn("first", move || {
        its.read_event().expect("there is a fault");
        go.wait();
        uaccess::load(page(range, 1))
    });
    eventually("the first has read", || waiter.task().fault.reader().is_some());
    let its = Arc::clone(&uffd);
    let second = world.spawn("second", move || {
        let event = its.read_event();
        assert_eq!(its.zeropage(range, NOW), Outcome::Done);
        event
    });
    eventually("the second sleeps", || second.task().state() == State::Parked);
    asleep.complete();
    assert_eq!(returned(second), missing(page(range, 1), false));
    assert_eq!((returned(first), returned(waiter)), (Ok(0), Ok(0)));
}

#[test]
fn the_last_of_two_that_wait_for_each_other_is_told() {
    let (world, uffd, range) = shared(4);
    let waiters = [0, 1].map(|i| {
        let task = world.spawn_load(page(range, i));
        until_it_waits(task.task());
        task
    });
    let go = [0, 1].map(|_| Arc::new(Completion::new(&GATE)));
    let servers = [0, 1].map(|i| {
        let (its, go) = (Arc::clone(&uffd), Arc::clone(&go[i as usize]));
        let server = world.spawn("server", move || {
            its.read_event().expect("there is a fault");
            go.wait();
            uaccess::load(page(range, 2 + i))
        });
        eventually("it has read", || {
            waiters[i as usize].task().fault.reader() == Some(server.task().id())
        });
        server
    });
    let [first, second] = servers;
    go[0].complete();
    until_it_waits(first.task());
    go[1].complete();
    let monitor = second.task().id();
    assert_eq!(failed(returned(second)), Err(FaultError::SelfFault { monitor }));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(first), Ok(0));
    waiters
        .into_iter()
        .for_each(|waiter| assert_eq!(returned(waiter), Ok(0)));
}

#[test]
fn a_helper_beside_the_attached_monitor_may_wait_for_it() {
    let (world, uffd, range) = shared(2);
    uffd.attach_monitor(&Task::detached("monitor"));
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let its = Arc::clone(&uffd);
    let helper = world.spawn("helper", move || {
        its.read_event().expect("there is a fault");
        uaccess::load(page(range, 1))
    });
    until_it_waits(helper.task());
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!((returned(helper), returned(waiter)), (Ok(0), Ok(0)));
    uffd.detach_monitor();
}

#[test]
fn whoever_reads_one_context_may_wait_for_another() {
    let (world, uffd, range) = shared(1);
    let other = world.map(1, RW);
    let elsewhere = Uffd::new(&world.space, Features::empty());
    elsewhere
        .register(other, Modes::MISSING)
        .expect("anonymous memory can");
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let its = Arc::clone(&uffd);
    let server = world.spawn("server", move || {
        its.read_event().expect("there is a fault");
        uaccess::load(other.start)
    });
    until_it_waits(server.task());
    assert_eq!(elsewhere.zeropage(other, NOW), Outcome::Done);
    assert_eq!(returned(server), Ok(0));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
}
