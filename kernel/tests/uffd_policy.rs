//! What follows when a monitor ends: each declared policy, for who waits and for who comes later.

mod common;

use std::sync::Arc;

use common::{
    RW, World, eventually, failed, missing, page, part, populate, returned, shared, shared_with, source,
    until_it_waits, was_woken, word,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin};
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::JoinHandle;
use kernel::task::{Outcome as Ended, State, Task};
use kernel::uffd::delivery::{Wait, hand_over};
use kernel::uffd::slot::FaultState;
use kernel::uffd::{Event, Features, FillMode, Modes, MonitorDeath, Outcome, ReadError, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

/// A task that waits for a page to load from.
type Waiter = JoinHandle<Result<u64, AccessError>>;

/// Attaches a monitor that reads `messages` of them and ends without resolving any.
fn lose_monitor(world: &World, uffd: &Arc<Uffd>, messages: usize) -> Vec<Event> {
    let uffd = Arc::clone(uffd);
    returned(world.spawn("monitor", move || {
        uffd.attach_monitor(&kernel::task::current_arc());
        (0..messages)
            .map(|_| uffd.read_event().expect("a fault is there"))
            .collect()
    }))
}

/// Two tasks that wait for pages 0 and 1 of `range`, in this order.
fn two_waiters(world: &World, range: VirtRange) -> [Waiter; 2] {
    [0, 1].map(|i| {
        let task = world.spawn_load(page(range, i));
        until_it_waits(task.task());
        task
    })
}

/// A world in which the monitor is lost under `policy`, having read the first of two faults: pages 0 and 1 are waited for.
fn bereft(policy: MonitorDeath) -> (World, Arc<Uffd>, VirtRange, [Waiter; 2]) {
    let (world, uffd, range) = shared(4);
    uffd.on_monitor_death(policy);
    let waiters = two_waiters(&world, range);
    assert_eq!(lose_monitor(&world, &uffd, 1).len(), 1);
    (world, uffd, range, waiters)
}

fn serve(uffd: &Uffd, addr: VirtAddr, byte: u8) {
    assert_eq!(uffd.copy(addr, &source(byte, 1), P, NOW), Outcome::Done);
}

#[test]
fn failing_is_what_happens_unless_something_else_was_declared() {
    let (world, uffd, range) = shared(4);
    let waiters = two_waiters(&world, range);
    lose_monitor(&world, &uffd, 1);
    assert!(uffd.ctx().is_orphaned());
    for waiter in waiters {
        assert_eq!(failed(returned(waiter)), Err(FaultError::MonitorGone));
    }
    assert_eq!(world.load(page(range, 2)), Err(FaultError::MonitorGone));
    assert_eq!(MonitorDeath::default(), MonitorDeath::Fail);
}

#[test]
fn poison_fails_who_waits_and_who_comes_later_as_poisoned() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Poison);
    for waiter in waiters {
        assert_eq!(failed(returned(waiter)), Err(FaultError::Poisoned));
    }
    assert_eq!(world.store(page(range, 2), 1), Err(FaultError::Poisoned));
    assert!(uffd.ctx().outstanding_faults().is_empty());
}

#[test]
fn poison_stays_when_the_context_is_closed_and_what_nobody_touched_is_plain() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Poison);
    for waiter in waiters {
        assert!(returned(waiter).is_err());
    }
    uffd.close();
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
    assert_eq!(world.load(page(range, 3)), Ok(0));
}

#[test]
fn poison_spares_pages_that_are_there() {
    let (world, uffd, range) = shared(2);
    uffd.on_monitor_death(MonitorDeath::Poison);
    serve(&uffd, range.start, 9);
    lose_monitor(&world, &uffd, 0);
    assert_eq!(world.load(range.start), Ok(word(9)));
    assert_eq!(world.load(page(range, 1)), Err(FaultError::Poisoned));
}

#[test]
fn poison_reaches_absent_pages_that_are_write_protected() {
    let (world, uffd, range) = registered(2, Modes::MISSING | Modes::WP, Features::WP_UNPOPULATED);
    uffd.on_monitor_death(MonitorDeath::Poison);
    uffd.write_protect(range).expect("registered");
    lose_monitor(&world, &uffd, 0);
    assert_eq!(world.store(range.start, 1), Err(FaultError::Poisoned));
    assert_eq!(world.load(page(range, 1)), Err(FaultError::Poisoned));
}

/// Has `task` go on that has found a fault at `addr` and not handed it over.
fn resolve(task: &Arc<Task>, addr: VirtAddr) -> Result<(), FaultError> {
    let info = FaultInfo {
        addr,
        access: Access::Read,
        origin: Origin::Task,
    };
    task.run_as(|| hand_over(task, &info, Wait::Interruptible))
}

#[test]
fn poison_is_found_by_two_tasks_that_touch_a_page_at_once() {
    let (world, uffd, range) = shared(1);
    uffd.on_monitor_death(MonitorDeath::Poison);
    lose_monitor(&world, &uffd, 0);
    // Both have looked at the entry before either resolves what it found.
    let tasks = [world.stuck_at(range.start), world.stuck_storing_at(range.start)];
    for task in tasks {
        assert_eq!(resolve(&task, range.start), Ok(()), "the next look decides");
    }
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
}

#[test]
fn a_page_that_is_filled_while_a_task_would_poison_it_is_found() {
    let (world, uffd, range) = shared(1);
    uffd.on_monitor_death(MonitorDeath::Poison);
    lose_monitor(&world, &uffd, 0);
    let task = world.stuck_at(range.start);
    serve(&uffd, range.start, 6);
    assert_eq!(resolve(&task, range.start), Ok(()));
    assert_eq!(world.load(range.start), Ok(word(6)));
}

#[test]
fn a_store_to_a_protected_page_fails_under_poison_and_its_page_stays() {
    let (world, uffd, range) = registered(1, Modes::WP, Features::empty());
    uffd.on_monitor_death(MonitorDeath::Poison);
    populate(&world, range);
    uffd.write_protect(range).expect("registered");
    let writer = world.spawn_store(range.start, 7);
    until_it_waits(writer.task());
    lose_monitor(&world, &uffd, 1);
    assert_eq!(failed(returned(writer)), Err(FaultError::MonitorGone));
    assert_eq!(world.load(range.start), Ok(1));
}

/// A world with memory registered with `modes`, and a context to share.
fn registered(pages: u64, modes: Modes, features: Features) -> (World, Arc<Uffd>, VirtRange) {
    let (world, uffd, range) = common::registered_with(pages, modes, features);
    (world, Arc::new(uffd), range)
}

#[test]
fn a_monitor_that_is_attached_after_poison_serves_the_rest() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Poison);
    for waiter in waiters {
        assert!(returned(waiter).is_err());
    }
    uffd.attach_monitor(&Task::detached("second"));
    assert!(!uffd.ctx().is_orphaned());
    let later = world.spawn_load(page(range, 3));
    until_it_waits(later.task());
    assert_eq!(uffd.try_read_event(), missing(page(range, 3), false));
    serve(&uffd, page(range, 3), 5);
    assert_eq!(returned(later), Ok(word(5)));
    assert_eq!(
        world.load(range.start),
        Err(FaultError::Poisoned),
        "what is poisoned stays so"
    );
}

#[test]
fn kill_ends_who_waits_and_who_comes_later_and_nobody_else() {
    let (world, uffd, range) = shared(4);
    uffd.on_monitor_death(MonitorDeath::Kill);
    serve(&uffd, page(range, 3), 3);
    let waiters = two_waiters(&world, range);
    lose_monitor(&world, &uffd, 1);
    let later = world.spawn_store(page(range, 2), 1);
    for (i, task) in waiters
        .into_iter()
        .map(|waiter| ended(waiter))
        .chain([ended(later)])
        .enumerate()
    {
        let Ended::Failed(why) = task else {
            panic!("it was done: {task:?}")
        };
        let at = page(range, i as u64).to_string();
        assert!(why.contains("killed") && why.contains(&at), "{why}");
    }
    assert_eq!(world.load(page(range, 3)), Ok(word(3)));
}

/// How a task that has no result ended.
#[track_caller]
fn ended<T>(task: JoinHandle<T>) -> Ended {
    eventually("the task has ended", || task.task().state() == State::Ended);
    task.join().err().expect("it has no result")
}

#[test]
fn kill_ends_a_task_in_the_middle_of_a_copy() {
    let (world, uffd, range) = shared(2);
    uffd.on_monitor_death(MonitorDeath::Kill);
    serve(&uffd, range.start, 1);
    lose_monitor(&world, &uffd, 0);
    let at = page(range, 1) - 8;
    let task = world.spawn("reader", move || uaccess::read(at, &mut [0; 16]));
    assert!(matches!(ended(task), Ended::Failed(_)));
}

#[test]
fn kill_fails_what_the_kernel_does_on_a_tasks_behalf_and_leaves_the_end_to_the_task() {
    let (world, uffd, range) = shared(2);
    uffd.on_monitor_death(MonitorDeath::Kill);
    serve(&uffd, range.start, 1);
    lose_monitor(&world, &uffd, 0);
    let at = page(range, 1) - 8;
    let space = Arc::clone(&world.space);
    let caller = world.spawn("caller", move || {
        let copied = uaccess::on_behalf(|| uaccess::read(at, &mut [0; 16]));
        let killed = kernel::task::current().is_killed();
        let reached = space.read_bytes(at, &mut [0; 16], Origin::Kernel);
        (failed(copied), killed, failed(reached))
    });
    let gone = Err(FaultError::Killed);
    assert_eq!(returned(caller), (gone, true, gone));
}

#[test]
fn zero_is_what_closing_is() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Zero);
    for waiter in waiters {
        assert_eq!(returned(waiter), Ok(0));
    }
    assert_eq!(world.load(page(range, 2)), Ok(0));
    assert!(!uffd.ctx().is_orphaned());
    assert_eq!(uffd.try_read_event(), Err(ReadError::Closed));
    let registered = world.space.query(range.start).and_then(|vma| vma.uffd);
    assert!(registered.is_none());
}

#[test]
fn hang_leaves_everybody_where_they_are_and_lists_them() {
    let (world, uffd, range) = shared(4);
    uffd.on_monitor_death(MonitorDeath::Hang);
    let early = [0, 1].map(|i| world.stuck_at(page(range, i)));
    assert_eq!(
        lose_monitor(&world, &uffd, 1),
        [missing(range.start, false).expect("one")]
    );
    let late = world.stuck_storing_at(page(range, 2));
    assert!(uffd.ctx().is_orphaned());
    let listed: Vec<_> = uffd
        .ctx()
        .outstanding_faults()
        .iter()
        .map(|fault| (fault.addr, fault.state))
        .collect();
    let expected = [
        (page(range, 1), FaultState::Pending),
        (page(range, 2), FaultState::Pending),
        (page(range, 0), FaultState::Read),
    ];
    assert_eq!(listed, expected);
    assert!(early.iter().chain([&late]).all(|task| !was_woken(task)));
    assert_eq!(uffd.wake(range), Ok(()));
    assert!(early.iter().chain([&late]).all(|task| was_woken(task)));
}

#[test]
fn another_reader_goes_on_under_hang_as_on_linux() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Hang);
    let [first, second] = waiters;
    assert_eq!(uffd.try_read_event(), missing(page(range, 1), false));
    serve(&uffd, page(range, 1), 1);
    assert_eq!(returned(second), Ok(word(1)));
    let reader = {
        let uffd = Arc::clone(&uffd);
        world.spawn("reader", move || uffd.read_event())
    };
    eventually("the reader sleeps", || reader.task().state() == State::Parked);
    let third = world.spawn_load(page(range, 2));
    assert_eq!(returned(reader), missing(page(range, 2), false));
    serve(&uffd, page(range, 2), 2);
    assert_eq!(returned(third), Ok(word(2)));
    assert!(
        first.task().fault.is_waiting(),
        "what the dead one had read is lost"
    );
    serve(&uffd, range.start, 0);
    assert_eq!(returned(first), Ok(0));
}

#[test]
fn the_monitor_attached_after_hang_is_not_given_what_the_dead_one_had_read() {
    let (_world, uffd, range, waiters) = bereft(MonitorDeath::Hang);
    uffd.attach_monitor(&Task::detached("second"));
    assert_eq!(uffd.try_read_event(), missing(page(range, 1), false));
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    waiters
        .into_iter()
        .for_each(|waiter| assert_eq!(returned(waiter), Ok(0)));
}

#[test]
fn the_next_monitor_reads_all_outstanding_faults_again_oldest_first() {
    let (world, uffd, range) = shared(4);
    uffd.on_monitor_death(MonitorDeath::Reattach);
    let order = [2, 0, 3, 1];
    let waiters = order.map(|i| {
        let task = world.spawn_load(page(range, i));
        until_it_waits(task.task());
        task
    });
    assert_eq!(lose_monitor(&world, &uffd, 2).len(), 2);
    uffd.attach_monitor(&Task::detached("second"));
    for i in order {
        assert_eq!(uffd.try_read_event(), missing(page(range, i), false));
        serve(&uffd, page(range, i), i as u8);
    }
    assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    for (i, waiter) in order.into_iter().zip(waiters) {
        assert_eq!(returned(waiter), Ok(word(i as u8)));
    }
}

#[test]
fn faults_that_come_while_there_is_no_monitor_wait_for_the_next() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Reattach);
    assert!(uffd.ctx().is_orphaned());
    let late = world.spawn_store(page(range, 2), 7);
    until_it_waits(late.task());
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::Orphaned),
        "whoever is not attached is not the one to serve"
    );
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("second", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            let seen: Vec<_> = (0..3).map(|_| uffd.read_event()).collect();
            assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
            uffd.detach_monitor();
            seen
        })
    };
    let expected = [
        missing(range.start, false),
        missing(page(range, 1), false),
        missing(page(range, 2), true),
    ];
    assert_eq!(returned(monitor), expected);
    waiters
        .into_iter()
        .for_each(|waiter| assert_eq!(returned(waiter), Ok(0)));
    assert_eq!(returned(late), Ok(()));
}

#[test]
fn a_monitor_that_dies_again_and_again_loses_nothing_under_reattach() {
    let (world, uffd, range, waiters) = bereft(MonitorDeath::Reattach);
    for _ in 0..5 {
        let seen = lose_monitor(&world, &uffd, 2);
        assert_eq!(
            seen.into_iter().map(Ok).collect::<Vec<_>>(),
            [missing(range.start, false), missing(page(range, 1), false)]
        );
    }
    uffd.attach_monitor(&Task::detached("last"));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    waiters
        .into_iter()
        .for_each(|waiter| assert_eq!(returned(waiter), Ok(0)));
}

#[test]
fn a_reader_that_sleeps_beside_the_monitor_is_told_under_reattach() {
    let (world, uffd, _range) = shared(1);
    uffd.on_monitor_death(MonitorDeath::Reattach);
    let its = Arc::clone(&uffd);
    let reader = world.spawn("reader", move || its.read_event());
    eventually("the reader sleeps", || reader.task().state() == State::Parked);
    lose_monitor(&world, &uffd, 0);
    assert_eq!(returned(reader), Err(ReadError::Orphaned));
}

#[test]
fn an_announced_event_waits_for_the_next_monitor_too() {
    let (world, uffd, range) = shared_with(2, RW, Features::EVENT_UNMAP);
    uffd.on_monitor_death(MonitorDeath::Reattach);
    lose_monitor(&world, &uffd, 0);
    let space = Arc::clone(&world.space);
    let gone = part(range, 1, 1);
    let unmapper = world.spawn("unmapper", move || space.unmap(gone));
    eventually("the task announces", || {
        unmapper.task().event.is_queued() && unmapper.task().state() == State::Parked
    });
    uffd.attach_monitor(&Task::detached("second"));
    assert_eq!(uffd.try_read_event(), Ok(Event::Unmap { range: gone }));
    assert_eq!(returned(unmapper), Ok(()));
}

#[test]
fn an_announced_event_is_let_go_by_the_policies_that_answer() {
    for policy in [
        MonitorDeath::Fail,
        MonitorDeath::Poison,
        MonitorDeath::Kill,
        MonitorDeath::Zero,
    ] {
        let (world, uffd, range) = shared_with(1, RW, Features::EVENT_UNMAP);
        uffd.on_monitor_death(policy);
        let space = Arc::clone(&world.space);
        let unmapper = world.spawn("unmapper", move || space.unmap(range));
        eventually("the task announces", || unmapper.task().event.is_queued());
        lose_monitor(&world, &uffd, 0);
        assert_eq!(returned(unmapper), Ok(()), "{policy}");
    }
}

#[test]
fn the_last_handle_that_goes_with_the_monitor_changes_nothing_about_the_policy() {
    let outcomes = [
        (MonitorDeath::Fail, Err(FaultError::MonitorGone)),
        (MonitorDeath::Poison, Err(FaultError::Poisoned)),
        (MonitorDeath::Zero, Ok(0)),
    ];
    for (policy, outcome) in outcomes {
        let (world, uffd, range) = shared(1);
        uffd.on_monitor_death(policy);
        let monitor = world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            drop(uffd);
        });
        returned(monitor);
        assert_eq!(world.load(range.start), outcome, "{policy}");
    }
}

#[test]
fn a_context_whose_last_handle_is_lost_can_be_reopened_and_served() {
    let (world, uffd, range) = shared(1);
    uffd.on_monitor_death(MonitorDeath::Reattach);
    let ctx = Arc::clone(uffd.ctx());
    assert!(Uffd::reopen(&ctx).is_none(), "there is a handle");
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let monitor = world.spawn("monitor", move || {
        uffd.attach_monitor(&kernel::task::current_arc());
        drop((uffd.read_event(), uffd));
    });
    returned(monitor);
    let found = world
        .space
        .query(range.start)
        .and_then(|vma| vma.uffd)
        .expect("registered");
    assert!(Arc::ptr_eq(&found.ctx, &ctx), "its areas still know it");
    let uffd = Uffd::reopen(&ctx).expect("it was lost");
    assert!(Uffd::reopen(&ctx).is_none(), "and now there is one again");
    uffd.attach_monitor(&Task::detached("second"));
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(waiter), Ok(0));
    uffd.detach_monitor();
    drop(uffd);
    assert!(Uffd::reopen(&ctx).is_none(), "closed is closed");
}

#[test]
fn a_policy_that_is_declared_too_late_makes_no_difference() {
    let (world, uffd, range) = shared(1);
    lose_monitor(&world, &uffd, 0);
    uffd.on_monitor_death(MonitorDeath::Zero);
    assert_eq!(world.load(range.start), Err(FaultError::MonitorGone));
}

#[test]
fn a_monitor_that_was_replaced_may_end_and_its_successor_may_not() {
    let (world, uffd, range) = shared(1);
    let second = Task::detached("second");
    let first = {
        let (uffd, second) = (Arc::clone(&uffd), Arc::clone(&second));
        world.spawn("first", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            uffd.attach_monitor(&second);
        })
    };
    returned(first);
    assert!(!uffd.ctx().is_orphaned());
    lose_monitor(&world, &uffd, 0);
    assert!(uffd.ctx().is_orphaned());
    assert_eq!(world.load(range.start), Err(FaultError::MonitorGone));
}

#[test]
fn a_monitor_that_has_ended_before_it_is_attached_is_lost_at_once() {
    let (world, uffd, range) = shared(1);
    let monitor = world.spawn("monitor", || ());
    let task = Arc::clone(monitor.task());
    returned(monitor);
    uffd.attach_monitor(&task);
    assert!(uffd.ctx().is_orphaned());
    assert_eq!(world.load(range.start), Err(FaultError::MonitorGone));
}
