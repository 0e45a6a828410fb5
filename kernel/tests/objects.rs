//! Memory objects: what is in them, what mappings see of it, and what becomes of both when it is taken away.

mod common;

use std::sync::{Arc, Mutex, Weak};

use common::{RW, World, anon_frames, answer, eventually, object_world, page, returned, word};
use kernel::arch::host::MissedFlush;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::{
    AllocateError, Lookup, MAX_SIZE, NoPage, Object, PunchError, Quota, TruncateError, WriteError,
};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Anon, Folio, Frame, allocator};
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_PRIVATE};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pressure::Shrinker;
use kernel::mm::pt::Entry;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::mm::vma::Sharing;
use kernel::task::State;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd};

const P: u64 = PAGE_SIZE;
const H: u64 = Granule::Huge.size();

/// A shared-memory object of so many pages and a mapping of all of it. The machine, which counts frames, goes last.
struct Bed {
    object: Arc<Object>,
    range: VirtRange,
    world: World,
}

impl Bed {
    fn new(pages: u64) -> Self {
        let world = World::new();
        let object = Object::new(&SHMEM, pages * P);
        let range = world.map_memory(Memory::shared(&object), None, pages, RW);
        Self { object, range, world }
    }

    fn privately(&self) -> VirtRange {
        let memory = Memory::private(&self.object);
        self.world.map_memory(memory, None, self.range.pages(), RW)
    }

    fn load(&self, index: u64) -> Result<u64, FaultError> {
        self.world.load(page(self.range, index))
    }

    fn store(&self, index: u64, value: u64) {
        assert_eq!(self.world.store(page(self.range, index), value), Ok(()));
    }
}

fn write(object: &Object, offset: u64, bytes: &[u8]) {
    assert_eq!(object.write(offset, bytes), (bytes.len() as u64, Ok(())));
}

fn read(object: &Object, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    let got = object.read(offset, &mut bytes);
    bytes.truncate(got);
    bytes
}

fn map_in(space: &Arc<Space>, memory: Memory, pages: u64) -> VirtRange {
    let request = MapRequest {
        at: None,
        len: pages * P,
        prot: RW,
        memory,
    };
    space.map(request).expect("there is room")
}

/// Loads a word in a task of that space.
fn load_in(space: &Arc<Space>, addr: VirtAddr) -> Result<u64, FaultError> {
    let load = move || uaccess::load(addr).map_err(|error| error.why);
    returned(spawn_returning("other", Some(Arc::clone(space)), load).expect("the host has threads"))
}

fn store_in(space: &Arc<Space>, addr: VirtAddr, value: u64) -> Result<(), FaultError> {
    let store = move || uaccess::store(addr, value).map_err(|error| error.why);
    returned(spawn_returning("other", Some(Arc::clone(space)), store).expect("the host has threads"))
}

// Reading and writing.

#[test]
fn holes_read_as_zeros_and_reading_ends_with_the_object() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 2 * P + 10);
    assert_eq!(read(&object, 0, 5), [0; 5]);
    assert_eq!(read(&object, 2 * P, 100), [0; 10]);
    assert_eq!(read(&object, 2 * P + 10, 5), []);
    assert_eq!(read(&object, u64::MAX - 2, 5), []);
    assert_eq!(object.resident(), 0);
}

#[test]
fn what_is_written_is_read_across_pages_and_only_written_pages_take_memory() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 100 * P);
    let text: Vec<u8> = (0..2 * P as usize + 100).map(|i| (i * 7) as u8).collect();
    write(&object, 50 * P - 50, &text);
    assert_eq!(read(&object, 50 * P - 50, text.len()), text);
    assert_eq!(
        read(&object, 49 * P, (P - 50) as usize),
        vec![0; (P - 50) as usize]
    );
    assert_eq!(object.resident(), 4 * P);
    assert_eq!(object.size(), 100 * P);
    assert_eq!(anon_frames(), 4);
}

#[test]
fn writing_past_the_end_makes_the_object_longer_and_leaves_a_hole_between() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 10);
    write(&object, 0, b"0123456789");
    write(&object, 5 * P + 3, b"end");
    assert_eq!((object.size(), object.resident()), (5 * P + 6, 2 * P));
    assert_eq!(read(&object, 8, 4), b"89\0\0");
    assert_eq!(read(&object, 5 * P, 100), b"\0\0\0end");
}

#[test]
fn writing_nothing_changes_nothing() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 0);
    assert_eq!(object.write(10, &[]), (0, Ok(())));
    assert_eq!(object.size(), 0);
}

#[test]
fn no_object_is_written_past_the_largest_size() {
    let _world = World::new();
    let object = Object::new(&SHMEM, 0);
    assert_eq!(object.write(MAX_SIZE, b"x"), (0, Err(WriteError::TooLarge)));
    assert_eq!(object.write(u64::MAX, b"x"), (0, Err(WriteError::TooLarge)));
    assert_eq!(object.write(MAX_SIZE - 1, b"x"), (1, Ok(())));
    assert_eq!(
        object.write(MAX_SIZE - P, &[1; 2 * P as usize]),
        (1, Err(WriteError::TooLarge)),
        "up to the end of the first page, which ends one byte past the largest offset"
    );
}

#[test]
fn objects_in_huge_pages_are_not_written_to_but_read() {
    let world = object_world();
    let object = Object::new(&HUGETLB, H);
    assert_eq!(object.write(0, b"x"), (0, Err(WriteError::NotWritable)));
    let range = world.map_memory(Memory::shared(&object), None, 512, RW);
    assert_eq!(world.store(range.start + (H - 8), 7), Ok(()));
    assert_eq!(read(&object, H - 8, 9), 7_u64.to_ne_bytes());
}

#[test]
fn guest_memory_is_written_up_to_its_end_and_keeps_its_size() {
    let _world = World::new();
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_PRIVATE] {
        let object = Object::new(ty, 2 * P);
        assert_eq!(
            object.write(P, &[3; 2 * P as usize]),
            (P, Err(WriteError::BeyondEnd))
        );
        assert_eq!(object.truncate(P), Err(TruncateError::FixedSize));
        assert_eq!(object.truncate(3 * P), Err(TruncateError::FixedSize));
        assert_eq!((object.size(), object.resident()), (2 * P, P));
        assert_eq!(read(&object, P, 2), [3, 3]);
    }
}

#[test]
fn memory_that_is_a_guests_alone_is_not_touched_by_tasks_even_where_there_is_a_page() {
    let world = World::new();
    let object = Object::new(&GUEST_MEMFD_PRIVATE, 2 * P);
    write(&object, 0, b"filled");
    let range = world.map_memory(Memory::shared(&object), None, 2, RW);
    for index in 0..2 {
        assert_eq!(world.load(page(range, index)), Err(FaultError::GuestOnly));
        assert_eq!(world.store(page(range, index), 1), Err(FaultError::GuestOnly));
    }
    assert_eq!(object.resident(), P);
}

// Mappings.

#[test]
fn a_write_is_seen_by_every_mapping_and_a_store_by_every_reader() {
    let bed = Bed::new(2);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), 2);
    let private = bed.privately();
    bed.store(0, 1);
    assert_eq!(load_in(&other, there.start), Ok(1));
    assert_eq!(bed.world.load(private.start), Ok(1));
    write(&bed.object, 0, &2_u64.to_ne_bytes());
    assert_eq!(
        (
            bed.load(0),
            load_in(&other, there.start),
            bed.world.load(private.start)
        ),
        (Ok(2), Ok(2), Ok(2))
    );
    assert_eq!(store_in(&other, there.start + 8, 3), Ok(()));
    assert_eq!(read(&bed.object, 8, 8), 3_u64.to_ne_bytes());
    assert_eq!(anon_frames(), 1);
}

#[test]
fn a_private_copy_is_not_written_through() {
    let bed = Bed::new(1);
    let private = bed.privately();
    bed.store(0, 1);
    assert_eq!(bed.world.store(private.start, 2), Ok(()));
    write(&bed.object, 0, &3_u64.to_ne_bytes());
    assert_eq!((bed.load(0), bed.world.load(private.start)), (Ok(3), Ok(2)));
}

#[test]
fn an_object_goes_with_its_last_mapping() {
    let bed = Bed::new(3);
    (0..3).for_each(|i| bed.store(i, i));
    let Bed { object, range, world } = bed;
    drop(object);
    assert_eq!(anon_frames(), 3);
    assert_eq!(world.space.unmap(range), Ok(()));
    assert_eq!(anon_frames(), 0);
}

#[test]
fn mappings_of_different_parts_meet_where_they_overlap() {
    let world = World::new();
    let object = Object::new(&SHMEM, 4 * P);
    let at = |offset| Memory::Object {
        object: Arc::clone(&object),
        offset,
        sharing: Sharing::Shared,
        read_only: false,
    };
    let low = world.map_memory(at(0), None, 3, RW);
    let high = world.map_memory(at(2 * P), None, 2, RW);
    assert_eq!(world.store(page(low, 2), 9), Ok(()));
    assert_eq!(world.load(high.start), Ok(9));
    assert_eq!(object.punch(2 * P, P), Ok(()));
    assert_eq!((world.load(page(low, 2)), world.load(high.start)), (Ok(0), Ok(0)));
}

// Truncation.

#[test]
fn what_is_cut_off_is_gone_for_everybody_and_comes_back_as_zeros() {
    let bed = Bed::new(4);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), 4);
    for i in 0..4 {
        bed.store(i, 10 + i);
        assert_eq!(load_in(&other, page(there, i)), Ok(10 + i));
    }
    assert_eq!(bed.object.truncate(P + 100), Ok(()));
    assert_eq!(anon_frames(), 2);
    for i in 0..4 {
        let expected = if i < 2 {
            Ok(10 + i)
        } else {
            Err(FaultError::BeyondEnd)
        };
        assert_eq!(bed.load(i), expected);
        assert_eq!(load_in(&other, page(there, i)), expected);
    }
    assert_eq!(bed.object.truncate(4 * P), Ok(()));
    assert_eq!((bed.load(3), load_in(&other, page(there, 3))), (Ok(0), Ok(0)));
    assert_eq!(bed.object.resident(), 3 * P);
}

#[test]
fn the_rest_of_the_last_page_becomes_zeros() {
    let bed = Bed::new(1);
    write(&bed.object, 0, &[5; P as usize]);
    assert_eq!(bed.object.truncate(9), Ok(()));
    // The page is still mapped: tasks see the zeros past the end.
    assert_eq!(
        bed.world.load(bed.range.start + 8),
        Ok(u64::from_ne_bytes([5, 0, 0, 0, 0, 0, 0, 0]))
    );
    assert_eq!(bed.world.load(bed.range.start + 16), Ok(0));
    assert_eq!(bed.object.truncate(P), Ok(()));
    assert_eq!(read(&bed.object, 0, 12), [5, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0, 0]);
}

#[test]
fn private_copies_go_with_what_is_cut_off() {
    let bed = Bed::new(2);
    let private = bed.privately();
    assert_eq!(bed.world.store(page(private, 1), 7), Ok(()));
    assert_eq!(bed.object.truncate(P), Ok(()));
    assert_eq!(bed.world.load(page(private, 1)), Err(FaultError::BeyondEnd));
    assert_eq!(bed.object.truncate(2 * P), Ok(()));
    assert_eq!(bed.world.load(page(private, 1)), Ok(0));
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let _world = object_world();
    let object = Object::new(&SHMEM, 5);
    assert_eq!(object.truncate(MAX_SIZE + 1), Err(TruncateError::TooLarge));
    assert_eq!(object.truncate(MAX_SIZE), Ok(()));
    assert_eq!(object.truncate(0), Ok(()));
    let huge = Object::new(&HUGETLB, 2 * H);
    assert_eq!(huge.truncate(H + P), Err(TruncateError::Unaligned));
    assert_eq!(huge.size(), 2 * H);
    assert_eq!(huge.truncate(H), Ok(()));
}

#[test]
fn huge_pages_that_are_cut_off_are_back_in_the_pool() {
    let world = object_world();
    let free = allocator().huge_pages().free;
    let object = Object::new(&HUGETLB, 2 * H);
    let range = world.map_memory(Memory::shared(&object), None, 1024, RW);
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!(world.store(range.start + H, 2), Ok(()));
    assert_eq!(allocator().huge_pages().free, free - 2);
    assert_eq!(object.truncate(H), Ok(()));
    assert_eq!(allocator().huge_pages().free, free - 1);
    assert_eq!(world.load(range.start + H), Err(FaultError::BeyondEnd));
    assert_eq!(world.load(range.start), Ok(1));
}

// Holes.

#[test]
fn a_hole_is_punched_for_everybody_and_keeps_private_copies() {
    let bed = Bed::new(4);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), 4);
    let private = bed.privately();
    (0..4).for_each(|i| bed.store(i, 10 + i));
    (0..4).for_each(|i| assert_eq!(load_in(&other, page(there, i)), Ok(10 + i)));
    // One copied, one only looked at.
    assert_eq!(bed.world.store(page(private, 1), 77), Ok(()));
    assert_eq!(bed.world.load(page(private, 2)), Ok(12));
    assert_eq!(bed.object.punch(P, 2 * P), Ok(()));
    assert_eq!((bed.object.size(), bed.object.resident()), (4 * P, 2 * P));
    let expected = [10, 0, 0, 13];
    for i in 0..4 {
        assert_eq!(bed.load(i), Ok(expected[i as usize]));
        assert_eq!(load_in(&other, page(there, i)), Ok(expected[i as usize]));
    }
    assert_eq!(
        (bed.world.load(page(private, 1)), bed.world.load(page(private, 2))),
        (Ok(77), Ok(0))
    );
}

#[test]
fn pages_at_the_ends_of_a_hole_are_cleared_in_part_and_stay() {
    let bed = Bed::new(3);
    write(&bed.object, 0, &[6; 3 * P as usize]);
    let before = read(&bed.object, 0, 3 * P as usize);
    assert_eq!(bed.object.punch(100, 2 * P), Ok(()));
    let mut expected = before;
    expected[100..100 + 2 * P as usize].fill(0);
    assert_eq!(bed.object.resident(), 2 * P);
    assert_eq!(read(&bed.object, 0, 3 * P as usize), expected);
    // Inside one page, and where there is none.
    assert_eq!(bed.object.punch(10, 5), Ok(()));
    expected[10..15].fill(0);
    assert_eq!(bed.object.punch(P + 10, 5), Ok(()));
    assert_eq!(read(&bed.object, 0, 3 * P as usize), expected);
    assert_eq!(bed.object.resident(), 2 * P);
}

#[test]
fn a_hole_in_part_of_a_huge_page_is_zeros_in_the_page() {
    let world = object_world();
    let object = Object::new(&HUGETLB, 2 * H);
    let range = world.map_memory(Memory::shared(&object), None, 1024, RW);
    for at in [0, 104, H - 8, H, H + 8] {
        assert_eq!(world.store(range.start + at, at + 1), Ok(()));
    }
    assert_eq!(object.punch(8, H - 8 + 8), Ok(()));
    let words = [0, 104, H - 8, H, H + 8].map(|at| world.load(range.start + at));
    assert_eq!(words, [Ok(1), Ok(0), Ok(0), Ok(0), Ok(H + 9)]);
    assert_eq!(object.resident(), 2 * H);
}

#[test]
fn holes_that_cannot_be_are_refused() {
    let _world = World::new();
    let object = Object::new(&SHMEM, P);
    assert_eq!(object.punch(0, 0), Err(PunchError::Empty));
    assert_eq!(object.punch(MAX_SIZE - P, 2 * P), Err(PunchError::TooLarge));
    assert_eq!(object.punch(u64::MAX, 2), Err(PunchError::TooLarge));
    assert_eq!(object.punch(100 * P, P), Ok(()), "past the end there is nothing");
    let guest = Object::new(&GUEST_MEMFD, 2 * P);
    assert_eq!(guest.punch(0, 100), Err(PunchError::Unaligned));
    assert_eq!(guest.punch(100, P), Err(PunchError::Unaligned));
    write(&guest, 0, &[1; 2 * P as usize]);
    assert_eq!(guest.punch(P, P), Ok(()));
    assert_eq!(guest.resident(), P);
}

// Pages ahead of use.

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

// Quotas.

#[test]
fn objects_that_share_a_quota_cannot_have_more_pages_together() {
    let world = World::new();
    let quota = Arc::new(Quota::new(3 * P + 100));
    let one = Object::with_quota(&SHMEM, 10 * P, Arc::clone(&quota));
    let two = Object::with_quota(&SHMEM, 10 * P, Arc::clone(&quota));
    write(&one, 0, &[1; 2 * P as usize]);
    assert_eq!(
        two.write(0, &[2; 2 * P as usize]),
        (P, Err(WriteError::NoPage(NoPage::NoSpace)))
    );
    assert_eq!((quota.used(), quota.limit()), (3 * P, 3 * P + 100));
    let range = world.map_memory(Memory::shared(&two), None, 10, RW);
    assert_eq!(world.load(range.start), Ok(word(2)));
    assert_eq!(world.store(page(range, 5), 1), Err(FaultError::NoSpace));
    assert_eq!(
        two.allocate(0, 4 * P, true),
        Err(AllocateError::NoPage(NoPage::NoSpace))
    );
    assert_eq!(quota.used(), 3 * P);
    // Space comes back by a hole, by cutting off and with the object.
    assert_eq!(one.punch(0, P), Ok(()));
    assert_eq!(world.store(page(range, 5), 1), Ok(()));
    assert_eq!(two.truncate(P), Ok(()));
    assert_eq!(quota.used(), 2 * P);
    drop(one);
    assert_eq!(quota.used(), P);
    assert_eq!(world.space.unmap(range), Ok(()));
    drop(two);
    assert_eq!(quota.used(), 0);
}

#[test]
fn a_fill_past_the_quota_is_enomem_even_over_a_page_that_is_there() {
    let world = World::new();
    let quota = Arc::new(Quota::new(P));
    let object = Object::with_quota(&SHMEM, 2 * P, Arc::clone(&quota));
    write(&object, 0, b"x");
    let range = world.map_memory(Memory::shared(&object), None, 2, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("the type can");
    let refused = Outcome::Refused(Refusal::NoSpace);
    for index in 0..2 {
        let copied = uffd.copy(page(range, index), &[1; P as usize], P, FillMode::empty());
        assert_eq!(copied, refused);
        assert_eq!(answer(copied, P), (Some(12), Some(-12)));
        let zeroed = uffd.zeropage(common::part(range, index, 1), FillMode::empty());
        assert_eq!(zeroed, refused);
    }
    assert_eq!((quota.used(), object.resident()), (P, P));
    // A private mapping has pages of its own.
    let private = world.map_memory(Memory::private(&object), None, 2, RW);
    uffd.register(private, Modes::MISSING).expect("the type can");
    let copied = uffd.copy(page(private, 1), &[1; P as usize], P, FillMode::empty());
    assert_eq!(copied, Outcome::Done);
    assert_eq!(quota.used(), P);
}

// Views.

#[test]
fn views_that_map_nothing_any_more_are_forgotten_when_they_are_next_asked() {
    let bed = Bed::new(2);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let third = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), 2);
    map_in(&third, Memory::shared(&bed.object), 2);
    // Twice in one space is one view.
    let again = bed.privately();
    assert_eq!(bed.object.views(), 3);
    drop(third);
    assert_eq!(bed.object.views(), 2, "a space that is gone does not count");
    assert_eq!(other.unmap(there), Ok(()));
    assert_eq!(bed.world.space.unmap(again), Ok(()));
    assert_eq!(bed.object.views(), 2, "nobody has asked yet");
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(bed.object.views(), 1);
    // Whoever comes back is asked again.
    let there = map_in(&other, Memory::shared(&bed.object), 2);
    assert_eq!(store_in(&other, there.start, 5), Ok(()));
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(load_in(&other, there.start), Ok(0));
    assert_eq!(bed.object.views(), 2);
}

#[test]
fn a_forked_child_is_asked_too() {
    let bed = Bed::new(2);
    let private = bed.privately();
    bed.store(0, 1);
    assert_eq!(bed.world.load(private.start), Ok(1));
    let child = bed.world.space.fork().expect("RAM is plenty");
    assert_eq!(load_in(&child, private.start), Ok(1));
    assert_eq!(bed.object.punch(0, P), Ok(()));
    assert_eq!(load_in(&child, private.start), Ok(0));
    assert_eq!(load_in(&child, bed.range.start), Ok(0));
    assert_eq!(bed.object.truncate(0), Ok(()));
    assert_eq!(load_in(&child, private.start), Err(FaultError::BeyondEnd));
}

/// The point of the software machine: take the flush out and a test fails.
#[test]
fn a_flush_that_is_left_out_when_a_page_is_taken_from_the_object_is_caught() {
    for cut in [false, true] {
        let bed = Bed::new(1);
        let start = bed.range.start;
        let freed = bed.world.run(|| {
            uaccess::store(start, 42).expect("mapped");
            let Lookup::Present(folio) = bed.object.lookup(0) else {
                panic!("a page was just stored to");
            };
            let pfn = folio.pfn();
            drop(folio);
            bed.world.machine.lose_flushes(1);
            if cut {
                assert_eq!(bed.object.truncate(0), Ok(()));
            } else {
                assert_eq!(bed.object.punch(0, P), Ok(()));
            }
            pfn
        });
        let missed = bed.world.machine.take_missed_flushes();
        assert!(
            missed
                .iter()
                .any(|missed| matches!(missed, MissedFlush::Freed { frame, .. } if *frame == freed)),
            "{missed:?}"
        );
    }
}

#[test]
fn other_cpus_lose_the_page_too() {
    let bed = Bed::new(1);
    let start = bed.range.start;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let task = bed.world.spawn("reader", move || {
        uaccess::store(start, 1).expect("mapped");
        wait.recv().expect("told to go on");
        uaccess::load(start).map_err(|error| error.why)
    });
    eventually("the page is there", || bed.object.resident() == P);
    eventually("and mapped", || {
        matches!(bed.world.space.entry(start).0, Entry::Leaf(_))
    });
    assert_eq!(bed.object.truncate(0), Ok(()));
    go.send(()).expect("the task listens");
    assert_eq!(returned(task), Err(FaultError::BeyondEnd));
}

/// Tasks of two spaces touch, while others punch, cut off, grow and write. Afterwards every entry has the page that the
/// cache has, or none, and no frame is lost (the machine counts).
#[test]
fn pages_that_are_taken_while_they_are_touched_are_gone_afterwards() {
    const PAGES: u64 = 80;
    const ROUNDS: u64 = 300;
    let bed = Bed::new(PAGES);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let there = map_in(&other, Memory::shared(&bed.object), PAGES);
    let touch = |space: &Arc<Space>, range: VirtRange, seed: u64| {
        let work = move || {
            for i in 0..ROUNDS * 20 {
                let at = page(range, (i * 13 + seed) % PAGES);
                let outcome = match i % 2 {
                    0 => uaccess::load(at).map(|_| ()),
                    _ => uaccess::store(at, i),
                };
                assert!(
                    matches!(
                        outcome.map_err(|error| error.why),
                        Ok(()) | Err(FaultError::BeyondEnd)
                    ),
                    "{outcome:?}"
                );
            }
        };
        spawn_returning("toucher", Some(Arc::clone(space)), work).expect("the host has threads")
    };
    let change = |name: &str, work: fn(&Object, u64)| {
        let object = Arc::clone(&bed.object);
        let all = move || (0..ROUNDS).for_each(|i| work(&object, i));
        spawn_returning(name, None, all).expect("the host has threads")
    };
    let tasks = [
        touch(&bed.world.space, bed.range, 0),
        touch(&other, there, 7),
        change("puncher", |object, i| {
            assert_eq!(object.punch(i % PAGES * P, 9 * P + 5), Ok(()));
        }),
        change("cutter", |object, i| {
            assert_eq!(object.truncate(i * 37 % PAGES * P + i), Ok(()));
            assert_eq!(object.truncate(PAGES * P), Ok(()));
        }),
        change("writer", |object, i| {
            let (_, outcome) = object.write(i * 3 % PAGES * P, &[7; 100]);
            assert_eq!(outcome, Ok(()));
        }),
        change("allocator", |object, i| {
            assert_eq!(object.allocate(i * 11 % PAGES * P, P, true), Ok(()));
        }),
    ];
    for task in tasks {
        eventually("the task has ended", || task.task().state() == State::Ended);
        assert!(task.join().is_ok());
    }
    for i in 0..PAGES {
        let cached = match bed.object.lookup(i * P) {
            Lookup::Present(folio) => Some(folio.pfn()),
            _ => None,
        };
        for (space, range) in [(&bed.world.space, bed.range), (&other, there)] {
            if let Entry::Leaf(leaf) = space.entry(page(range, i)).0 {
                assert_eq!(Some(leaf.frame), cached, "page {i}");
            }
        }
    }
    assert_eq!(bed.object.resident(), anon_frames() * P);
    assert_eq!(bed.object.punch(0, PAGES * P), Ok(()));
    assert_eq!(anon_frames(), 0);
}

#[test]
fn taking_back_what_was_put_in_leaves_another_page_that_took_its_place() {
    let bed = Bed::new(1);
    let fresh = || Folio::from(SHMEM.alloc().expect("RAM is plenty"));
    let (mine, other) = (fresh(), fresh());
    bed.object.insert(0, mine.clone()).expect("a hole");
    assert_eq!(bed.object.punch(0, P), Ok(()));
    bed.object.insert(0, other.clone()).expect("a hole again");
    assert!(bed.object.remove(0, &mine).is_none());
    let found = match bed.object.lookup(0) {
        Lookup::Present(folio) => folio,
        missing => panic!("{missing:?}"),
    };
    assert_eq!(found.pfn(), other.pfn());
    assert!(bed.object.remove(0, &other).is_none(), "somebody has found it");
    drop(found);
    assert_eq!(
        bed.object.remove(0, &other).map(|folio| folio.pfn()),
        Some(other.pfn())
    );
    assert!(matches!(bed.object.lookup(0), Lookup::Absent));
}
