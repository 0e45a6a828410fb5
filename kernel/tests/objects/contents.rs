//! Reading and writing.

use kernel::mm::cache::{MAX_SIZE, Object, TruncateError, WriteError};
use kernel::mm::fault::FaultError;
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_PRIVATE};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::space::Memory;

use super::{H, P, read, write};
use crate::common::{RW, World, anon_frames, object_world, page};

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
