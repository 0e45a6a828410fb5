//! Objects that are cut short, and holes that are punched into them.

use kernel::mm::cache::{MAX_SIZE, Object, PunchError, TruncateError};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::space::{Memory, Privilege, Space};

use super::{Bed, H, P, load_in, map_in, read, write};
use crate::common::{RW, World, anon_frames, object_world, page};

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
