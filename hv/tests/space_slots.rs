//! Slots of address spaces: what the guest sees, and what it loses when the host takes it away.

mod common;

use common::{Guest, RW, World, bytes, gpa, page, pagefault, part, returned, slot_of, until_it_waits, word};
use hv::memslot::SlotRequest;
use hv::soft::SoftFormat;
use hv::userfault::Outcome as Stage2;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::Object;
use kernel::mm::fault::{BusError, FaultError};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD_PRIVATE;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::Prot;
use kernel::mm::space::Memory;
use kernel::mm::uaccess;
use kernel::uffd::{Features, FillMode, Flags, Modes, Outcome, TrapKind, Uffd};

for_both! {
    a_guest_and_its_host_see_the_same_memory
    a_store_to_a_read_only_slot_is_told_and_changes_nothing
    a_page_that_the_host_has_is_no_fault_of_the_space
    an_address_without_a_slot_is_unbacked
    slots_are_found_in_any_order
    a_discarded_page_is_gone_from_the_guest_too
    an_unmapped_page_fails_the_guests_access
    a_removed_slot_is_unbacked_and_its_space_forgets_it
    a_missing_page_of_a_registered_range_is_a_message_as_if_the_host_had_touched_it
    a_page_in_the_cache_of_a_registered_range_is_a_minor_message
    a_context_that_is_not_told_of_the_kernels_accesses_fails_the_guests
    poison_of_the_host_fails_the_guest
    guest_memory_that_is_a_guests_alone_is_not_reached_through_a_mapping
    two_vcpus_that_wait_for_one_page_are_both_woken
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
    assert_eq!(guest.store(0, 3), Err(Stage2::ReadOnly));
    assert_eq!(guest.load(0), Ok(2));
    assert_eq!(world.memory.set_read_only(slot, false), Ok(()));
    assert_eq!(guest.store(0, 3), Ok(()));
}

fn a_page_that_the_host_has_is_no_fault_of_the_space<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(4);
    world.populate(part(range, 0, 1));
    let faults = world.space.fault_count();
    assert_eq!((guest.load(0), guest.store(0, 2)), (Ok(1), Ok(())));
    assert_eq!(world.space.fault_count(), faults);
    assert_eq!(guest.store(1, 1), Ok(()));
    assert_eq!(
        world.space.fault_count(),
        faults + 1,
        "filled and mapped by one look"
    );
    assert_eq!(guest.load(2), Ok(0));
    assert_eq!(world.space.fault_count(), faults + 2, "the page of zeros");
    assert_eq!(guest.store(2, 3), Ok(()));
    assert_eq!((guest.load(2), guest.load(3)), (Ok(3), Ok(0)));
    world.space.unmap(part(range, 3, 1)).expect("it is mapped");
    let faults = world.space.fault_count();
    assert_eq!(guest.load(3), Err(Stage2::Failed(FaultError::Unmapped)));
    assert_eq!(world.space.fault_count(), faults + 1);
}

fn slots_are_found_in_any_order<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(1);
    world.populate(range);
    let far = world.map(1);
    world.populate(far);
    let request = SlotRequest {
        at: gpa(8),
        ..slot_of(&world.space, far)
    };
    let far_slot = world.memory.add(request).expect("nothing is wrong with it");
    for _ in 0..2 {
        assert_eq!((guest.load(8), guest.load(0)), (Ok(1), Ok(1)));
        assert_eq!(guest.load(4), Err(Stage2::Unbacked), "between them");
    }
    assert_eq!(world.memory.remove(far_slot), Ok(()));
    assert_eq!(guest.load(8), Err(Stage2::Unbacked));
    assert_eq!(guest.store(0, 5), Ok(()));
}

fn an_address_without_a_slot_is_unbacked<F: SoftFormat>() {
    let (_world, mut guest, _) = shown::<F>(1);
    assert_eq!(guest.load(1), Err(Stage2::Unbacked));
    assert_eq!(guest.store(1, 1), Err(Stage2::Unbacked));
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
    assert_eq!(guest.load(0), Err(Stage2::Failed(FaultError::Unmapped)));
    assert_eq!(guest.load(1), Ok(2));
    world
        .space
        .protect(part(range, 1, 1), Prot::READ)
        .expect("it is mapped");
    assert_eq!(guest.store(1, 3), Err(Stage2::Failed(FaultError::Forbidden)));
    world.space.protect(part(range, 1, 1), RW).expect("it is mapped");
    assert_eq!(guest.store(1, 3), Ok(()));
}

fn a_removed_slot_is_unbacked_and_its_space_forgets_it<F: SoftFormat>() {
    let (world, mut guest, range) = shown::<F>(1);
    world.populate(range);
    assert_eq!(guest.load(0), Ok(1));
    let slot = world.memory.slots()[0].id;
    assert_eq!(world.memory.remove(slot), Ok(()));
    assert_eq!(guest.load(0), Err(Stage2::Unbacked));
    world.space.discard(range).expect("it is mapped");
    world
        .memory
        .add(slot_of(&world.space, range))
        .expect("the place is free");
    assert_eq!(guest.load(0), Ok(0));
}

/// A guest whose slot lies in a registered range, and the context.
fn registered<F: SoftFormat>(
    memory: Memory,
    modes: Modes,
    flags: Flags,
) -> (World<F>, Uffd, kernel::mm::range::VirtRange) {
    let world = World::<F>::new();
    let range = world.map_memory(memory, 2);
    let uffd = Uffd::with_flags(&world.space, flags, Features::empty());
    uffd.register(range, modes).expect("such memory can");
    world.show(range);
    (world, uffd, range)
}

fn a_missing_page_of_a_registered_range_is_a_message_as_if_the_host_had_touched_it<F: SoftFormat>() {
    let (world, uffd, range) = registered::<F>(Memory::Own(&ANON), Modes::MISSING, Flags::empty());
    let vcpu = world.guest().spawn_store(1, 5);
    until_it_waits(vcpu.task());
    let at = page(range, 1);
    assert_eq!(uffd.try_read_event(), pagefault(TrapKind::Missing, at, true));
    assert_eq!(
        uffd.copy(at, &bytes(3), PAGE_SIZE, FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(returned(vcpu).map(drop), Ok(()));
    let mut guest = world.guest();
    assert_eq!(guest.load(1), Ok(5));
    assert_eq!(guest.violations, 0, "one violation for the store, and no other");
    // The host's memory of the page is the guest's.
    world.run(|| assert_eq!(uaccess::load(at + 8), Ok(word(3))));
}

fn a_page_in_the_cache_of_a_registered_range_is_a_minor_message<F: SoftFormat>() {
    let object = Object::new(&SHMEM, 2 * PAGE_SIZE);
    let modes = Modes::MISSING | Modes::MINOR;
    let (world, uffd, range) = registered::<F>(Memory::shared(&object), modes, Flags::empty());
    assert_eq!(object.write(0, &bytes(4)).1, Ok(()));
    // Its pages go with the world.
    drop(object);
    let vcpu = world.guest().spawn_load(0);
    until_it_waits(vcpu.task());
    let at = page(range, 0);
    assert_eq!(uffd.try_read_event(), pagefault(TrapKind::Minor, at, false));
    assert_eq!(uffd.cont(part(range, 0, 1), FillMode::empty()), Outcome::Done);
    assert_eq!(returned(vcpu), Ok(word(4)));
}

fn a_context_that_is_not_told_of_the_kernels_accesses_fails_the_guests<F: SoftFormat>() {
    let flags = Flags::USER_MODE_ONLY;
    let (world, uffd, _) = registered::<F>(Memory::Own(&ANON), Modes::MISSING, flags);
    let why = FaultError::BusError(BusError::KernelAccess);
    assert_eq!(world.guest().load(0), Err(Stage2::Failed(why)));
    assert!(!uffd.is_readable());
}

fn poison_of_the_host_fails_the_guest<F: SoftFormat>() {
    let (world, uffd, range) = registered::<F>(Memory::Own(&ANON), Modes::MISSING, Flags::empty());
    let vcpu = world.guest().spawn_load(0);
    until_it_waits(vcpu.task());
    assert_eq!(uffd.poison(part(range, 0, 1), FillMode::empty()), Outcome::Done);
    assert_eq!(returned(vcpu), Err(Stage2::Failed(FaultError::Poisoned)));
}

fn guest_memory_that_is_a_guests_alone_is_not_reached_through_a_mapping<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&GUEST_MEMFD_PRIVATE, PAGE_SIZE);
    world.show(world.map_memory(Memory::shared(&object), 1));
    assert_eq!(world.guest().load(0), Err(Stage2::Failed(FaultError::GuestOnly)));
}

fn two_vcpus_that_wait_for_one_page_are_both_woken<F: SoftFormat>() {
    let (world, uffd, range) = registered::<F>(Memory::Own(&ANON), Modes::MISSING, Flags::empty());
    let vcpus = [world.guest().spawn_load(0), world.guest().spawn_load(0)];
    vcpus.iter().for_each(|vcpu| until_it_waits(vcpu.task()));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 2);
    let at = page(range, 0);
    assert_eq!(
        uffd.copy(at, &bytes(9), PAGE_SIZE, FillMode::empty()),
        Outcome::Done
    );
    for vcpu in vcpus {
        assert_eq!(returned(vcpu), Ok(word(9)));
    }
}
