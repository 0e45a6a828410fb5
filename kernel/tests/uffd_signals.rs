//! Signals to tasks that wait at a context, row by row as Linux has it (checked there on 6.18): what becomes of the access,
//! and of its message. Each test is named after what it claims.

mod common;

use std::sync::Arc;

use common::{eventually, failed, missing, page, returned, shared, source, until_it_waits, word};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::{FaultError, Origin};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::JoinHandle;
use kernel::task::{self, Outcome as Ended, State, Task};
use kernel::uffd::slot::FaultState;
use kernel::uffd::{Event, FillMode, Outcome, ReadError, Uffd};

const P: u64 = PAGE_SIZE;
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

fn serve(uffd: &Uffd, addr: VirtAddr, byte: u8) {
    let filled = uffd.copy(addr, &source(byte, 1), P, FillMode::empty());
    assert_eq!(filled, Outcome::Done);
}

/// The faults that wait at the context: where, and whether they are read; unread ones first, oldest first.
fn listed(uffd: &Uffd) -> Vec<(VirtAddr, FaultState)> {
    let faults = uffd.ctx().outstanding_faults();
    faults.iter().map(|fault| (fault.addr, fault.state)).collect()
}

/// Waits until a task has taken notice of what it was told, and sleeps again.
#[track_caller]
fn until_it_sleeps(task: &Task) {
    eventually("the task sleeps", || task.state() == State::Parked);
}

/// Why a task that has no result ended.
#[track_caller]
fn why_it_ended<T>(task: JoinHandle<T>) -> String {
    eventually("the task has ended", || task.task().state() == State::Ended);
    match task.join().err() {
        Some(Ended::Failed(why)) => why,
        other => panic!("it was not killed: {other:?}"),
    }
}

/// A task that has the kernel copy a word of its memory at `addr`, and goes on however that ends.
fn spawn_copy(world: &common::World, addr: VirtAddr) -> JoinHandle<Result<(), AccessError>> {
    world.spawn("caller", move || {
        uaccess::on_behalf(|| uaccess::read(addr, &mut [0; 8]))
    })
}

#[test]
fn sigkill_kills_a_user_mode_waiter_and_its_unread_message_vanishes() {
    let (world, uffd, range) = shared(2);
    let victim = world.spawn_load(range.start);
    until_it_waits(victim.task());
    victim.task().kill();
    let why = why_it_ended(victim);
    assert!(why.contains(&range.start.to_string()), "{why}");
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(listed(&uffd), []);
    serve(&uffd, range.start, 1);
    assert_eq!(world.load(range.start), Ok(word(1)), "others go on");
}

#[test]
fn sigkill_kills_a_user_mode_waiter_whose_message_was_read() {
    let (world, uffd, range) = shared(1);
    let victim = world.spawn_store(range.start, 1);
    until_it_waits(victim.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    victim.task().kill();
    why_it_ended(victim);
    assert_eq!(listed(&uffd), []);
    assert_eq!(uffd.try_read_event(), NOTHING, "it stays consumed");
}

#[test]
fn sigkill_takes_the_victims_message_and_nobody_elses() {
    let (world, uffd, range) = shared(3);
    let [first, victim, last] = [0, 1, 2].map(|i| {
        let task = world.spawn_load(page(range, i));
        until_it_waits(task.task());
        task
    });
    victim.task().kill();
    why_it_ended(victim);
    assert_eq!(uffd.try_read_event(), missing(page(range, 0), false));
    assert_eq!(uffd.try_read_event(), missing(page(range, 2), false));
    for (i, task) in [(0, first), (2, last)] {
        serve(&uffd, page(range, i), i as u8);
        assert_eq!(returned(task), Ok(word(i as u8)));
    }
}

#[test]
fn a_signal_makes_a_user_mode_waiter_touch_again_and_its_unread_message_disappears() {
    let (world, uffd, range) = shared(2);
    let [first, second] = [0, 1].map(|i| {
        let task = world.spawn_load(page(range, i));
        until_it_waits(task.task());
        task
    });
    first.task().interrupt();
    let behind = [
        (page(range, 1), FaultState::Pending),
        (page(range, 0), FaultState::Pending),
    ];
    eventually("the fresh message is the youngest", || listed(&uffd) == behind);
    assert_eq!(uffd.try_read_event(), missing(page(range, 1), false));
    assert_eq!(uffd.try_read_event(), missing(page(range, 0), false));
    assert_eq!(uffd.try_read_event(), NOTHING, "one of each");
    for (i, task) in [(0, first), (1, second)] {
        serve(&uffd, page(range, i), i as u8);
        assert_eq!(returned(task), Ok(word(i as u8)));
    }
}

#[test]
fn a_signal_after_the_message_was_read_sends_a_fresh_one() {
    let (world, uffd, range) = shared(1);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    for _ in 0..3 {
        waiter.task().interrupt();
        eventually("there is a fresh message", || uffd.is_readable());
        assert_eq!(uffd.try_read_event(), missing(range.start, false));
        assert_eq!(uffd.try_read_event(), NOTHING, "one for each signal");
    }
    serve(&uffd, range.start, 4);
    assert_eq!(returned(waiter), Ok(word(4)));
}

#[test]
fn a_signal_does_not_abort_what_the_kernel_does_on_a_tasks_behalf() {
    let (world, uffd, range) = shared(2);
    let [caller, other] = [0, 1].map(|i| {
        let task = spawn_copy(&world, page(range, i));
        until_it_waits(task.task());
        task
    });
    let before = listed(&uffd);
    caller.task().interrupt();
    until_it_sleeps(caller.task());
    assert_eq!(listed(&uffd), before, "its message is where it was");
    for (i, task) in [(0, caller), (1, other)] {
        serve(&uffd, page(range, i), 1);
        assert_eq!(returned(task), Ok(()));
    }
}

#[test]
fn a_wait_for_a_page_is_uninterruptible_where_the_page_is_looked_up() {
    let (world, uffd, range) = shared(3);
    let space = Arc::clone(&world.space);
    let looked_up = page(range, 2);
    let toucher = world.spawn_load(range.start);
    until_it_waits(toucher.task());
    let copier = spawn_copy(&world, page(range, 1));
    until_it_waits(copier.task());
    let finder = world.spawn("finder", move || {
        space.read_bytes(looked_up, &mut [0; 8], Origin::Kernel)
    });
    until_it_waits(finder.task());
    assert!(!toucher.task().cannot_be_interrupted());
    assert!(!copier.task().cannot_be_interrupted());
    assert!(finder.task().cannot_be_interrupted());
    let before = listed(&uffd);
    finder.task().interrupt();
    until_it_sleeps(finder.task());
    assert_eq!(listed(&uffd), before, "its message is where it was");
    assert!(finder.task().cannot_be_interrupted());
    for i in 0..3 {
        serve(&uffd, page(range, i), 1);
    }
    assert_eq!(returned(toucher), Ok(word(1)));
    assert_eq!(returned(copier), Ok(()));
    assert_eq!(returned(finder), Ok(()));
}

#[test]
fn a_kernel_mode_waiter_is_killable_and_its_call_fails() {
    let (world, uffd, range) = shared(1);
    let caller = spawn_copy(&world, range.start);
    until_it_waits(caller.task());
    caller.task().kill();
    assert_eq!(failed(returned(caller)), Err(FaultError::Killed));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(listed(&uffd), []);
}

#[test]
fn whoever_waits_for_a_page_of_another_space_is_killable_too() {
    let (world, uffd, range) = shared(1);
    let space = Arc::clone(&world.space);
    let caller = task::spawn::spawn_returning("debugger", None, move || {
        space.read_bytes(range.start, &mut [0; 8], Origin::Kernel)
    })
    .expect("the host has threads");
    until_it_waits(caller.task());
    caller.task().kill();
    assert_eq!(failed(returned(caller)), Err(FaultError::Killed));
    assert_eq!(listed(&uffd), []);
}

#[test]
fn a_task_that_was_killed_before_it_touches_does_not_wait() {
    let (world, uffd, range) = shared(1);
    let caller = world.spawn("caller", move || {
        task::current().kill();
        // The wake-up that came with it is spent.
        task::park::park();
        uaccess::on_behalf(|| uaccess::read(range.start, &mut [0; 8]))
    });
    assert_eq!(failed(returned(caller)), Err(FaultError::Killed));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_reader_that_is_interrupted_is_told_once_and_sleeps_no_more() {
    let (world, uffd, range) = shared(1);
    let its = Arc::clone(&uffd);
    let reader = world.spawn("reader", move || [its.read_event(), its.read_event()]);
    until_it_sleeps(reader.task());
    reader.task().interrupt();
    eventually("it reads again", || reader.task().state() == State::Parked);
    let waiter = world.spawn_load(range.start);
    let read = returned(reader);
    assert_eq!(read, [Err(ReadError::Interrupted), missing(range.start, false)]);
    serve(&uffd, range.start, 2);
    assert_eq!(returned(waiter), Ok(word(2)));
}

#[test]
fn a_reader_that_is_killed_leaves_and_what_comes_later_is_somebody_elses() {
    let (world, uffd, range) = shared(1);
    let its = Arc::clone(&uffd);
    let reader = world.spawn("reader", move || [its.read_event(), its.read_event()]);
    until_it_sleeps(reader.task());
    reader.task().kill();
    let told = || Err(ReadError::Interrupted);
    assert_eq!(returned(reader), [told(), told()]);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    serve(&uffd, range.start, 3);
    assert_eq!(returned(waiter), Ok(word(3)));
}
