//! What mappings see of an object.

use std::sync::Arc;

use kernel::mm::cache::Object;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::space::{Memory, Privilege, Space};
use kernel::mm::vma::Sharing;

use super::{Bed, P, load_in, map_in, read, store_in, write};
use crate::common::{RW, World, anon_frames, page};

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
