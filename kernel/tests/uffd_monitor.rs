//! The life of a context and of the task that serves it: closing, a monitor that faults on what it serves, one that ends
//! too early, and a whole restore.

mod common;

use std::sync::Arc;

use common::{eventually, failed, missing, page, returned, shared, until_it_waits};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::fault::FaultError;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::{Outcome as Ended, State};
use kernel::uffd::{Event, FillMode, Outcome, ReadError};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

#[test]
fn closing_wakes_everybody_and_they_find_plain_memory() {
    let (world, uffd, range) = shared(3);
    let tasks: Vec<_> = (0..3).map(|i| world.spawn_store(page(range, i), i)).collect();
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    assert!(uffd.try_read_event().is_ok());
    drop(uffd);
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    let seen: Vec<_> = world.run(|| (0..3).map(|i| uaccess::load(page(range, i))).collect());
    assert_eq!(seen, [Ok(0), Ok(1), Ok(2)]);
}

#[test]
fn closing_tells_a_reader_that_sleeps() {
    let (world, uffd, _) = shared(1);
    let reader = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || uffd.read_event())
    };
    eventually("the monitor sleeps", || reader.task().state() == State::Parked);
    uffd.close();
    assert_eq!(returned(reader), Err(ReadError::Closed));
    assert_eq!(uffd.try_read_event(), Err(ReadError::Closed));
}

#[test]
fn a_monitor_that_touches_what_it_serves_gets_an_error_that_names_it() {
    let (world, uffd, range) = shared(1);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            let me = kernel::task::current_arc();
            uffd.attach_monitor(&me);
            let result = uaccess::load(range.start);
            uffd.detach_monitor();
            (me.id(), result)
        })
    };
    let (id, result) = returned(monitor);
    assert_eq!(
        result,
        Err(AccessError {
            addr: range.start,
            why: FaultError::SelfFault { monitor: id }
        })
    );
    assert!(format!("{}", result.expect_err("just seen")).contains(&format!("{}", range.start)));
    assert_eq!(
        uffd.try_read_event(),
        Err(ReadError::WouldBlock),
        "nothing was queued"
    );
}

#[test]
fn a_monitor_that_ends_while_attached_fails_waiting_and_later_touches() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            uffd.read_event()
        })
    };
    assert_eq!(returned(monitor), missing(range.start, false));
    assert!(uffd.ctx().is_orphaned());
    assert_eq!(failed(returned(waiter)), Err(FaultError::MonitorGone));
    let later = world.spawn_store(page(range, 1), 1);
    let result = returned(later);
    assert_eq!(
        result,
        Err(AccessError {
            addr: page(range, 1),
            why: FaultError::MonitorGone
        })
    );
}

#[test]
fn a_monitor_that_panics_orphans_its_context_too() {
    let (world, uffd, range) = shared(1);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            panic!("a bug in the monitor");
        })
    };
    assert!(matches!(monitor.join(), Err(Ended::Failed(text)) if text.contains("a bug in the monitor")));
    let task = world.spawn_load(range.start);
    assert_eq!(failed(returned(task)), Err(FaultError::MonitorGone));
}

#[test]
fn pages_that_were_filled_before_the_monitor_ended_stay() {
    let (world, uffd, range) = shared(2);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            uffd.copy(range.start, &[9; P as usize], P, NOW)
        })
    };
    assert_eq!(returned(monitor), Outcome::Done);
    world.run(|| {
        assert_eq!(uaccess::load(range.start), Ok(0x0909_0909_0909_0909));
        assert_eq!(
            failed(uaccess::load(page(range, 1))),
            Err(FaultError::MonitorGone)
        );
    });
}

#[test]
fn a_monitor_that_detached_may_end_without_consequences() {
    let (world, uffd, range) = shared(1);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            uffd.detach_monitor();
        })
    };
    returned(monitor);
    assert!(!uffd.ctx().is_orphaned());
    let task = world.spawn_load(range.start);
    until_it_waits(task.task());
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn closing_an_orphaned_context_makes_its_memory_plain() {
    let (world, uffd, range) = shared(1);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            uffd.attach_monitor(&kernel::task::current_arc())
        })
    };
    returned(monitor);
    uffd.close();
    world.run(|| assert_eq!(uaccess::load(range.start), Ok(0)));
}

#[test]
fn a_monitor_that_takes_the_last_handle_with_it_leaves_no_zeros_behind() {
    let (world, uffd, range) = shared(2);
    let waiter = world.spawn_load(range.start);
    until_it_waits(waiter.task());
    let monitor = world.spawn("monitor", move || {
        uffd.attach_monitor(&kernel::task::current_arc());
        drop(uffd);
    });
    returned(monitor);
    assert_eq!(failed(returned(waiter)), Err(FaultError::MonitorGone));
    let later = world.spawn_load(page(range, 1));
    assert_eq!(failed(returned(later)), Err(FaultError::MonitorGone));
}

#[test]
fn a_new_monitor_goes_on_where_the_old_one_ended() {
    let (world, uffd, range) = shared(1);
    let attach = |name| {
        let uffd = Arc::clone(&uffd);
        world.spawn(name, move || {
            uffd.attach_monitor(&kernel::task::current_arc());
        })
    };
    returned(attach("first"));
    assert!(uffd.ctx().is_orphaned());
    let second = {
        let uffd = Arc::clone(&uffd);
        world.spawn("second", move || {
            uffd.attach_monitor(&kernel::task::current_arc());
            let event = uffd.read_event();
            let outcome = uffd.copy(range.start, &[9; P as usize], P, NOW);
            uffd.detach_monitor();
            (event, outcome)
        })
    };
    eventually("the second monitor serves", || !uffd.ctx().is_orphaned());
    let load = world.spawn_load(range.start);
    assert_eq!(returned(load), Ok(0x0909_0909_0909_0909));
    assert_eq!(returned(second), (missing(range.start, false), Outcome::Done));
}

#[test]
fn a_workload_restored_by_a_monitor_sees_every_byte() {
    const PAGES: u64 = 200;
    let (world, uffd, range) = shared(PAGES);
    let monitor = {
        let uffd = Arc::clone(&uffd);
        world.spawn("monitor", move || {
            let mut served = 0;
            while let Ok(Event::Pagefault { addr, .. }) = uffd.read_event() {
                let number = (addr - range.start) / P;
                let outcome = uffd.copy(addr, &[number as u8; P as usize], P, NOW);
                served += u64::from(outcome == Outcome::Done);
            }
            served
        })
    };
    let workload = world.spawn("workload", move || {
        (0..PAGES)
            .map(|i| i * 37 % PAGES)
            .all(|i| uaccess::load(page(range, i)) == Ok(u64::from_ne_bytes([i as u8; 8])))
    });
    assert!(returned(workload));
    uffd.close();
    assert_eq!(returned(monitor), PAGES, "one fault for each page");
}
