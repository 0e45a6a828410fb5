//! Pages ahead of use, and memory that is short.

use std::sync::{Arc, Mutex, Weak};

use kernel::mm::cache::{AllocateError, Lookup, MAX_SIZE, NoPage, Object, WriteError};
use kernel::mm::frame::{Anon, Frame, allocator};
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pressure::Shrinker;

use super::{Bed, H, P, read, write};
use crate::common::{World, anon_frames, object_world};

#[test]
fn allocated_pages_are_zeros_that_are_there() {
    let bed = Bed::new(4);
    assert_eq!(bed.object.allocate(P + 5, P, true), Ok(()));
    assert_eq!(bed.object.resident(), 2 * P);
    assert!(matches!(bed.object.lookup(P), Lookup::Present(_)));
    assert!(matches!(bed.object.lookup(0), Lookup::Absent));
    assert_eq!(bed.load(2), Ok(0));
    bed.store(1, 4);
    assert_eq!(bed.object.allocate(0, 4 * P, true), Ok(()));
    assert_eq!((bed.load(1), bed.object.resident()), (Ok(4), 4 * P));
}

#[test]
fn allocating_past_the_end_grows_the_object_unless_its_size_is_kept() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 10);
    assert_eq!(object.allocate(0, P, true), Ok(()));
    assert_eq!(object.allocate(5 * P, 2 * P, true), Ok(()));
    assert_eq!((object.size(), object.resident()), (10, 3 * P));
    assert!(matches!(object.lookup(5 * P), Lookup::BeyondEnd));
    assert_eq!(object.allocate(5 * P, 100, false), Ok(()));
    assert_eq!((object.size(), object.resident()), (5 * P + 100, 3 * P));
    assert!(matches!(object.lookup(5 * P), Lookup::Present(_)));
    // Cutting it off at its very size takes what lies past the end.
    assert_eq!(object.truncate(5 * P + 100), Ok(()));
    assert_eq!(object.resident(), 2 * P);
}

#[test]
fn allocations_that_cannot_be_are_refused() {
    let _world = object_world();
    let object = Object::new(&SHMEM, P);
    assert_eq!(object.allocate(0, 0, false), Err(AllocateError::Empty));
    assert_eq!(object.allocate(MAX_SIZE, 1, false), Err(AllocateError::TooLarge));
    assert_eq!(object.allocate(u64::MAX, 2, true), Err(AllocateError::TooLarge));
    let guest = Object::new(&GUEST_MEMFD, 2 * P);
    assert_eq!(guest.allocate(0, P, false), Err(AllocateError::FixedSize));
    assert_eq!(guest.allocate(0, 100, true), Err(AllocateError::Unaligned));
    assert_eq!(guest.allocate(P, 2 * P, true), Err(AllocateError::BeyondEnd));
    assert_eq!(guest.allocate(P, P, true), Ok(()));
    assert_eq!(guest.resident(), P);
    let huge = Object::new(&HUGETLB, 0);
    let free = allocator().huge_pages().free;
    let too_many = huge.allocate(0, (free + 1) * H, false);
    assert_eq!(too_many, Err(AllocateError::NoPage(NoPage::PoolEmpty)));
    assert_eq!((huge.size(), allocator().huge_pages().free), (0, free));
    assert_eq!(huge.allocate(0, 100, false), Ok(()));
    assert_eq!((huge.size(), huge.resident()), (100, H));
}

#[test]
fn an_allocation_that_fails_takes_back_what_nobody_uses() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 0);
    // Nodes and frames: any of them may be the one that is missing.
    for successes in 0..12 {
        allocator().inject_failure(successes);
        let outcome = object.allocate(60 * P, 10 * P, false);
        allocator().stop_injection();
        assert_eq!(outcome, Err(AllocateError::NoPage(NoPage::OutOfMemory)));
        assert_eq!((object.size(), object.resident(), anon_frames()), (0, 0, 0));
    }
    // What was there before stays, whether it was written or only asked for twice.
    assert_eq!(object.allocate(61 * P, P, true), Ok(()));
    write(&object, 62 * P, b"used");
    allocator().inject_failure(4);
    assert!(object.allocate(60 * P, 10 * P, false).is_err());
    allocator().stop_injection();
    assert_eq!(object.resident(), 2 * P);
    assert_eq!(read(&object, 62 * P, 4), b"used");
}

#[test]
fn a_write_that_finds_no_memory_says_how_far_it_came() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 0);
    allocator().inject_failure(3);
    // A node and a page, a page, and then none.
    let outcome = object.write(10, &[1; 3 * P as usize]);
    allocator().stop_injection();
    assert_eq!(
        outcome,
        (2 * P - 10, Err(WriteError::NoPage(NoPage::OutOfMemory)))
    );
    assert_eq!((object.size(), object.resident()), (2 * P, 2 * P));
}

/// Gives a hoard of frames back when it is asked.
struct Hoard(Mutex<Vec<Frame<Anon>>>);

impl Shrinker for Hoard {
    fn shrink(&self, _frames: u64) -> u64 {
        let given = std::mem::take(&mut *self.0.lock().expect("no holder has panicked"));
        given.len() as u64
    }
}

#[test]
fn writes_and_allocations_ask_for_memory_back_before_they_fail() {
    let _world = World::new();
    let hoard = Arc::new(Hoard(Mutex::default()));
    let refill = || {
        let mut frames = hoard.0.lock().expect("no holder has panicked");
        frames.extend(std::iter::from_fn(|| Frame::alloc().ok()));
    };
    let object = Object::new(&SHMEM, 0);
    refill();
    assert_eq!(
        object.write(0, &[1; 100]),
        (0, Err(WriteError::NoPage(NoPage::OutOfMemory)))
    );
    let shrinker: Weak<Hoard> = Arc::downgrade(&hoard);
    kernel::mm::kernel::get().pressure.register(shrinker);
    assert_eq!(object.write(0, &[1; 100]), (100, Ok(())));
    refill();
    assert_eq!(object.allocate(P, P, false), Ok(()));
    refill();
    // More than there is at all: nothing is left of the attempt.
    let everything = allocator().stats().managed * P;
    assert_eq!(
        object.allocate(0, everything, false),
        Err(AllocateError::NoPage(NoPage::OutOfMemory))
    );
    assert_eq!((object.size(), object.resident()), (2 * P, 2 * P));
}
