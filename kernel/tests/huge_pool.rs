//! The pool of huge pages: what is set aside stays set aside, and comes back to the pool whoever lets go of it last.

use kernel::arch::host::{Config, Running, SoftMachine};
use kernel::mm::frame::{
    Anon, Folio, Frame, HugePages, Kind, ORDER_2M, OutOfFrames, PoolEmpty, Table, allocator,
};
use kernel::mm::memtype::AllocError;
use kernel::mm::memtype::hugetlb::HUGETLB;

/// Frames of a huge page.
const FRAMES: u64 = 1 << ORDER_2M;

fn machine() -> Running {
    SoftMachine::start(Config::default())
}

fn pool(total: u64, free: u64) -> HugePages {
    HugePages {
        total,
        free,
        promised: 0,
    }
}

fn of(kind: Kind) -> u64 {
    allocator().stats().of(kind)
}

#[test]
fn an_empty_pool_says_so() {
    let _machine = machine();
    assert_eq!(allocator().huge_pages(), pool(0, 0));
    assert_eq!(Frame::<Anon>::alloc_huge().err(), Some(PoolEmpty));
    assert_eq!(HUGETLB.alloc().err(), Some(AllocError::PoolEmpty));
}

#[test]
fn huge_pages_are_set_aside_until_they_are_released() {
    let _machine = machine();
    let free = allocator().stats().free;
    allocator().reserve_huge(3).expect("RAM is plenty");
    assert_eq!(allocator().huge_pages(), pool(3, 3));
    assert_eq!(of(Kind::Pooled), 3 * FRAMES);
    assert_eq!(allocator().stats().free, free - 3 * FRAMES);
    assert_eq!(allocator().release_huge(2), 2);
    assert_eq!(allocator().huge_pages(), pool(1, 1));
    assert_eq!(allocator().release_huge(2), 1);
    assert_eq!(allocator().huge_pages(), pool(0, 0));
    assert_eq!((allocator().stats().free, of(Kind::Pooled)), (free, 0));
}

#[test]
fn setting_more_aside_than_there_is_changes_nothing() {
    let _machine = machine();
    allocator().reserve_huge(1).expect("RAM is plenty");
    let before = allocator().stats();
    assert_eq!(allocator().reserve_huge(8), Err(OutOfFrames));
    assert_eq!(allocator().huge_pages(), pool(1, 1));
    let after = allocator().stats();
    assert_eq!((after.free, after.in_use), (before.free, before.in_use));
}

#[test]
fn what_is_promised_is_kept_for_whoever_takes_it_on_the_promise() {
    let _machine = machine();
    allocator().reserve_huge(2).expect("RAM is plenty");
    assert_eq!(allocator().promise_huge(), Ok(()));
    assert_eq!(allocator().promise_huge(), Ok(()));
    assert_eq!(allocator().promise_huge(), Err(PoolEmpty));
    assert_eq!(Frame::<Anon>::alloc_huge().err(), Some(PoolEmpty));
    assert_eq!(allocator().release_huge(1), 0, "what is promised stays");
    let page = Frame::<Anon>::alloc_promised_huge().expect("one was promised");
    assert_eq!(allocator().huge_pages().promised, 1);
    drop(page);
    assert_eq!(allocator().huge_pages().promised, 2, "it was not used");
    allocator().release_promised_huge();
    assert!(Frame::<Anon>::alloc_huge().is_ok());
    allocator().release_promised_huge();
    assert_eq!(allocator().huge_pages(), pool(2, 2));
}

#[test]
fn a_huge_page_comes_back_to_the_pool_when_its_last_owner_lets_go() {
    let _machine = machine();
    allocator().reserve_huge(2).expect("RAM is plenty");
    let frame = Frame::<Anon>::alloc_huge().expect("two are free");
    assert_eq!(frame.order(), ORDER_2M);
    assert!(frame.pfn().as_u64().is_multiple_of(FRAMES));
    assert_eq!((of(Kind::Anon), of(Kind::Pooled)), (FRAMES, FRAMES));
    let folio = Folio::from(frame);
    let second = folio.clone();
    drop(folio);
    assert_eq!(allocator().huge_pages(), pool(2, 1));
    drop(second);
    assert_eq!(allocator().huge_pages(), pool(2, 2));
    assert_eq!((of(Kind::Anon), of(Kind::Pooled)), (0, 2 * FRAMES));
}

#[test]
fn each_huge_page_is_handed_out_once() {
    let _machine = machine();
    allocator().reserve_huge(3).expect("RAM is plenty");
    let taken: Vec<_> = std::iter::from_fn(|| Frame::<Anon>::alloc_huge().ok()).collect();
    let mut numbers: Vec<_> = taken.iter().map(Frame::pfn).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
    assert_eq!(allocator().huge_pages(), pool(3, 0));
}

#[test]
fn huge_pages_in_use_cannot_be_released() {
    let _machine = machine();
    allocator().reserve_huge(2).expect("RAM is plenty");
    let used = Frame::<Anon>::alloc_huge().expect("two are free");
    assert_eq!(allocator().release_huge(2), 1);
    assert_eq!(allocator().huge_pages(), pool(1, 0));
    drop(used);
    assert_eq!(allocator().huge_pages(), pool(1, 1));
}

#[test]
fn nobody_else_gets_what_is_set_aside() {
    let _machine = machine();
    allocator().reserve_huge(2).expect("RAM is plenty");
    let hoard: Vec<_> = std::iter::from_fn(|| Frame::<Table>::alloc().ok()).collect();
    assert_eq!(allocator().stats().free, 0);
    assert_eq!(allocator().huge_pages(), pool(2, 2));
    assert!(Frame::<Anon>::alloc_huge().is_ok());
    assert!(Frame::<Anon>::alloc_order(ORDER_2M).is_err());
    drop(hoard);
}

#[test]
fn an_injected_failure_finds_the_pool_empty() {
    let _machine = machine();
    allocator().reserve_huge(2).expect("RAM is plenty");
    allocator().inject_failure(1);
    let first = Frame::<Anon>::alloc_huge();
    assert!(first.is_ok());
    assert_eq!(Frame::<Anon>::alloc_huge().err(), Some(PoolEmpty));
    allocator().stop_injection();
    assert_eq!(allocator().huge_pages(), pool(2, 1));
    assert!(Frame::<Anon>::alloc_huge().is_ok());
}
