//! No CPU reaches what has moved at its old address.

use kernel::arch::host::MissedFlush;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::space::{Memory, RemapTo};
use kernel::mm::uaccess;

use super::{FAR, GIB, H, P, filled, remap, to};
use crate::common::kinds::map;
use crate::common::{World, page, returned};

#[test]
fn no_cpu_reaches_a_page_at_its_old_address_once_it_has_moved() {
    let (world, range) = filled(4);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (first, far) = (range.start, FAR + GIB);
    let (ready, cached) = std::sync::mpsc::channel::<()>();
    let task = world.spawn("holder", move || {
        // Cached, with the right to write.
        uaccess::store(first, 11).expect("mapped");
        ready.send(()).expect("somebody waits");
        wait.recv().expect("told to go on");
        (uaccess::store(first, 12).is_err(), uaccess::load(far))
    });
    cached.recv().expect("the task runs");
    assert_eq!(
        remap(&world.space, range, 4 * P, RemapTo::At(far)),
        Ok(to(far, 4 * P))
    );
    go.send(()).expect("the task listens");
    assert_eq!(returned(task), (true, Ok(11)));
}

#[test]
fn no_cpu_reaches_a_page_through_a_node_that_has_moved() {
    let world = World::new();
    let range = map(&world, Memory::Own(&ANON), Some(FAR), 2 * H);
    world.run(|| {
        uaccess::store(FAR, 1).expect("mapped");
        uaccess::store(FAR + H + 5 * P, 2).expect("mapped");
        let new = to(FAR + GIB, 2 * H);
        assert_eq!(remap(&world.space, range, 2 * H, RemapTo::At(new.start)), Ok(new));
        assert!(uaccess::store(FAR, 3).is_err());
        assert!(uaccess::store(FAR + H + 5 * P, 3).is_err());
        assert_eq!(
            (uaccess::load(new.start), uaccess::load(new.start + H + 5 * P)),
            (Ok(1), Ok(2))
        );
    });
}

/// The point of the software machine: take the flush out of a move and a test fails.
#[test]
fn a_flush_that_is_left_out_of_a_move_is_caught() {
    let (world, range) = filled(3);
    world.run(|| {
        uaccess::store(page(range, 1), 42).expect("mapped");
        world.machine.lose_flushes(3);
        remap(&world.space, range, 3 * P, RemapTo::At(FAR + GIB)).expect("there is room");
        let stale = uaccess::store(page(range, 1), 43);
        assert_eq!(stale, Ok(()), "the stale translation goes through");
    });
    let missed = world.machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Used(used)] if used.addr == page(range, 1)),
        "{missed:?}"
    );
}
