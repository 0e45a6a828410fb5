//! What tests on the software machine start from, those of other crates too: memory by the page, tasks, and waiting for them.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::Space;
use kernel::mm::uaccess;
use kernel::task::spawn::JoinHandle;
use kernel::task::{State, Task};
use kernel::uffd::{Event, ReadError, TrapKind};

/// Rights of ordinary memory.
pub const RW: Prot = Prot::READ.union(Prot::WRITE);

/// The address of page number `page` of `range`.
pub fn page(range: VirtRange, page: u64) -> VirtAddr {
    range.start + page * PAGE_SIZE
}

/// The `pages` pages from page number `first` of `range` on.
pub fn part(range: VirtRange, first: u64, pages: u64) -> VirtRange {
    VirtRange::new(page(range, first), page(range, first + pages))
}

/// The word that a page of these bytes begins with.
pub fn word(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Runs `f` on this thread, as a task of `space`.
pub fn run_in<R>(space: &Arc<Space>, f: impl FnOnce() -> R) -> R {
    struct Unload<'a>(&'a Space);
    impl Drop for Unload<'_> {
        fn drop(&mut self) {
            self.0.unload_here();
        }
    }
    Task::detached_in("test", Arc::clone(space)).run_as(|| {
        space.activate();
        let _unload = Unload(space);
        f()
    })
}

/// Stores 1, 2, ... at the start of pages 0, 1, ... of `range` in `space`.
pub fn populate_in(space: &Arc<Space>, range: VirtRange) {
    run_in(space, || {
        for i in 0..range.pages() {
            assert_eq!(uaccess::store(page(range, i), i + 1), Ok(()));
        }
    });
}

/// Waits until `condition` holds.
///
/// # Panics
/// It does not within a minute, which is long also where many others run.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "still not so after a minute: {what}"
        );
        std::thread::yield_now();
    }
}

/// Waits until `task` sleeps in a delegated fault.
#[track_caller]
pub fn until_it_waits(task: &Task) {
    eventually("the task waits for a page", || {
        task.fault.is_waiting() && task.state() == State::Parked
    });
}

/// What the job of a task returned; a task that never returns fails the test instead of stopping it.
#[track_caller]
pub fn returned<T>(handle: JoinHandle<T>) -> T {
    eventually("the task has ended", || handle.task().state() == State::Ended);
    match handle.join() {
        Ok(value) => value,
        Err(outcome) => panic!("the task ended without a result: {outcome:?}"),
    }
}

/// A message about a page of an address space.
pub fn pagefault(kind: TrapKind, addr: VirtAddr, write: bool) -> Result<Event, ReadError> {
    Ok(Event::Pagefault {
        kind,
        write,
        addr,
        thread: None,
    })
}
