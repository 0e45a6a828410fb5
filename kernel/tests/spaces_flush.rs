//! What the translation caches are told when a space changes, and what becomes of a kernel that forgets to.

mod common;

use common::{RW, World, eventually, page, part, returned};
use kernel::arch::host::{FlushCall, MissedFlush};
use kernel::mm::addr::VirtAddr;
use kernel::mm::fault::FaultError;
use kernel::mm::kernel as mm;
use kernel::mm::pt::{Entry, Prot};
use kernel::mm::uaccess::{self};

fn frame_of(world: &World, addr: VirtAddr) -> Option<kernel::mm::addr::Pfn> {
    match world.space.entry(addr).0 {
        Entry::Leaf(leaf) => Some(leaf.frame),
        _ => None,
    }
}

#[test]
fn filling_what_was_absent_needs_no_flush() {
    let world = World::new();
    let range = world.map(32, RW);
    world.run(|| {
        world.machine.take_flushes();
        (0..32).for_each(|i| uaccess::store(page(range, i), i).expect("mapped"));
        assert_eq!(world.machine.take_flushes(), []);
    });
}

#[test]
fn few_pages_are_flushed_one_by_one_and_many_at_once() {
    let world = World::new();
    let range = world.map(100, RW);
    world.run(|| {
        (0..100).for_each(|i| uaccess::store(page(range, i), i).expect("mapped"));
        world.machine.take_flushes();
        world
            .space
            .protect(part(range, 0, 2), Prot::READ)
            .expect("mapped");
        let pages = [0, 1].map(|i| FlushCall::Page {
            cpu: 0,
            addr: page(range, i),
        });
        assert_eq!(world.machine.take_flushes(), pages);
        world
            .space
            .protect(part(range, 2, 98), Prot::READ)
            .expect("mapped");
        assert_eq!(world.machine.take_flushes(), [FlushCall::All { cpu: 0 }]);
    });
}

/// The point of the software machine: take the flush out of an unmap and a test fails.
#[test]
fn a_flush_that_is_left_out_is_caught_when_the_page_is_touched() {
    let world = World::new();
    let range = world.map(1, RW);
    world.run(|| {
        uaccess::store(range.start, 42).expect("mapped");
        world.machine.lose_flushes(1);
        world.space.protect(range, Prot::READ).expect("mapped");
        assert_eq!(
            uaccess::store(range.start, 43),
            Ok(()),
            "the stale right to write goes through"
        );
    });
    let missed = world.machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Used(used)] if used.addr == range.start),
        "{missed:?}"
    );
}

#[test]
fn a_flush_that_is_left_out_is_caught_when_the_frame_is_freed() {
    let world = World::new();
    let range = world.map(1, RW);
    let mut freed = None;
    world.run(|| {
        uaccess::store(range.start, 42).expect("mapped");
        freed = frame_of(&world, range.start);
        world.machine.lose_flushes(1);
        world.space.unmap(range).expect("mapped");
    });
    let missed = world.machine.take_missed_flushes();
    assert!(
        missed
            .iter()
            .any(|missed| matches!(missed, MissedFlush::Freed { frame, .. } if Some(*frame) == freed)),
        "{missed:?}"
    );
}

#[test]
#[should_panic(expected = "a flush is missing")]
fn a_test_with_a_missing_flush_fails_without_asking() {
    let world = World::new();
    let range = world.map(1, RW);
    world.run(|| {
        uaccess::store(range.start, 42).expect("mapped");
        world.machine.lose_flushes(1);
        world.space.unmap(range).expect("mapped");
    });
}

#[test]
fn a_page_that_another_cpu_has_cached_is_flushed_there_too() {
    let world = World::new();
    let range = world.map(2, RW);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let addr = range.start;
    let task = world.spawn("reader", move || {
        uaccess::store(addr, 1).expect("mapped");
        wait.recv().expect("told to go on");
        uaccess::load(addr).map_err(|error| error.why)
    });
    eventually("the page is there", || {
        frame_of(&world, addr).is_some_and(|f| f != mm::get().zero_frame())
    });
    world.space.unmap(range).expect("mapped");
    go.send(()).expect("the task listens");
    assert_eq!(returned(task), Err(FaultError::Unmapped));
}
