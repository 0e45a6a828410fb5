//! Slots of address spaces: what the guest sees, and what it loses when the host takes it away.

mod common;

use common::{Guest, RW, World, gpa, page, part, slot_of};
use hv::soft::SoftFormat;
use hv::userfault::Outcome;
use kernel::mm::fault::FaultError;
use kernel::mm::pt::Prot;
use kernel::mm::uaccess;

for_both! {
    a_guest_and_its_host_see_the_same_memory
    a_store_to_a_read_only_slot_is_told_and_changes_nothing
    an_address_without_a_slot_is_unbacked
    a_discarded_page_is_gone_from_the_guest_too
    an_unmapped_page_fails_the_guests_access
    a_removed_slot_is_unbacked_and_its_space_forgets_it
}

fn shown<F: SoftFormat>(pages: u64) -> (World<F>, Guest<F>, kernel::mm::range::VirtRange) {
    let world = World::<F>::new();
    let range = world.map(pages);
    world.show(range);
    let guest = world.guest();
    (world, guest, range)
}

fn a_guest_and_its_host_see_the_same_memory<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(4);
    world.populate(part(range, 0, 2));
    assert_eq!(guest.load(0), Ok(1));
    assert_eq!(guest.store(1, 7), Ok(()));
    assert_eq!(guest.store(3, 9), Ok(()), "a page that was nowhere");
    world.run(|| {
        assert_eq!(uaccess::load(page(range, 1)), Ok(7));
        assert_eq!(uaccess::load(page(range, 3)), Ok(9));
    });
    let mut word = [0; 8];
    assert_eq!(world.memory.read(gpa(1), &mut word), Ok(()));
    assert_eq!(u64::from_le_bytes(word), 7);
    assert_eq!(world.memory.write(gpa(1), &11u64.to_le_bytes()), Ok(()));
    assert_eq!(guest.load(1), Ok(11));
}

fn a_store_to_a_read_only_slot_is_told_and_changes_nothing<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(1);
    world.populate(range);
    assert_eq!(guest.store(0, 2), Ok(()));
    let slot = world.memory.slots()[0].id;
    assert_eq!(world.memory.set_read_only(slot, true), Ok(()));
    assert_eq!(guest.store(0, 3), Err(Outcome::ReadOnly));
    assert_eq!(guest.load(0), Ok(2));
    assert_eq!(world.memory.set_read_only(slot, false), Ok(()));
    assert_eq!(guest.store(0, 3), Ok(()));
}

fn an_address_without_a_slot_is_unbacked<F: SoftFormat>() {
    let (_world, mut guest, _) = shown::<F>(1);
    assert_eq!(guest.load(1), Err(Outcome::Unbacked));
    assert_eq!(guest.store(1, 1), Err(Outcome::Unbacked));
}

fn a_discarded_page_is_gone_from_the_guest_too<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(2);
    world.populate(range);
    assert_eq!((guest.load(0), guest.load(1)), (Ok(1), Ok(2)));
    world.space.discard(part(range, 0, 1)).expect("it is mapped");
    assert_eq!((guest.load(0), guest.load(1)), (Ok(0), Ok(2)));
}

fn an_unmapped_page_fails_the_guests_access<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(2);
    world.populate(range);
    assert_eq!(guest.load(0), Ok(1));
    world.space.unmap(part(range, 0, 1)).expect("it is mapped");
    assert_eq!(guest.load(0), Err(Outcome::Failed(FaultError::Unmapped)));
    assert_eq!(guest.load(1), Ok(2));
    world
        .space
        .protect(part(range, 1, 1), Prot::READ)
        .expect("it is mapped");
    assert_eq!(guest.store(1, 3), Err(Outcome::Failed(FaultError::Forbidden)));
    world.space.protect(part(range, 1, 1), RW).expect("it is mapped");
    assert_eq!(guest.store(1, 3), Ok(()));
}

fn a_removed_slot_is_unbacked_and_its_space_forgets_it<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(1);
    world.populate(range);
    assert_eq!(guest.load(0), Ok(1));
    let slot = world.memory.slots()[0].id;
    assert_eq!(world.memory.remove(slot), Ok(()));
    assert_eq!(guest.load(0), Err(Outcome::Unbacked));
    world.space.discard(range).expect("it is mapped");
    world
        .memory
        .add(slot_of(&world.space, range))
        .expect("the place is free");
    assert_eq!(guest.load(0), Ok(0));
}
