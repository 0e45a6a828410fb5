//! Slots as such: what is refused, and by which name.

mod common;

use std::sync::Arc;

use common::{AT, World, bytes, gpa, page, part, request, returned, slot_of, slot_of_object, until_it_waits};
use hv::bitmap::Bitmap;
use hv::memslot::{Backing, SlotError, SlotRequest};
use hv::soft::{self, SoftFormat};
use hv::userfault::{Delivery, Outcome, Userfaults};
use hv::vendor::Features;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::uffd::{Features as UffdFeatures, Modes, Uffd};

for_both! {
    odd_ranges_are_refused_by_name
    ranges_that_overlap_are_refused_and_neighbours_are_not
    odd_backings_are_refused_by_name
    what_is_no_slot_cannot_be_changed
    a_slot_that_was_refused_leaves_nothing_behind
    slots_are_found_at_both_ends
    a_read_only_slot_of_an_object_is_read_only
    a_removed_slot_lets_waiters_in_its_space_go
}

fn odd_ranges_are_refused_by_name<F: SoftFormat>() {
    let world = World::<F>::with(&Features {
        physical_bits: 36,
        ..Features::default()
    });
    let above = world.map(4);
    let (good, range) = request(&world, 4);
    world.space.unmap(above).expect("it is mapped");
    let add = |change: &dyn Fn(&mut SlotRequest)| {
        let mut odd = good.clone();
        change(&mut odd);
        world.memory.add(odd)
    };
    let at = |raw| move |odd: &mut SlotRequest| odd.at = GuestPhysAddr::new(raw);
    assert_eq!(add(&|odd| odd.len = 0), Err(SlotError::Empty));
    assert_eq!(add(&|odd| odd.len = 100), Err(SlotError::Misaligned));
    assert_eq!(add(&at(0x10_0800)), Err(SlotError::Misaligned));
    assert_eq!(add(&at(u64::MAX - PAGE_SIZE + 1)), Err(SlotError::Wraps));
    let too_wide = Err(SlotError::TooWide { bits: 36 });
    assert_eq!(add(&at(1 << 36)), too_wide);
    assert_eq!(add(&at((1 << 36) - 3 * PAGE_SIZE)), too_wide);
    let last = add(&at((1 << 36) - 4 * PAGE_SIZE)).expect("it ends where the addresses do");
    world.memory.remove(last).expect("it is there");
    let odd_backing = |addr| {
        let space = Arc::clone(&world.space);
        add(&move |odd| {
            odd.backing = Backing::Space {
                space: Arc::clone(&space),
                addr,
            };
        })
    };
    assert_eq!(odd_backing(range.start + 8), Err(SlotError::Misaligned));
    assert_eq!(
        odd_backing(page(range, 1)),
        Err(SlotError::NotMapped(range.end)),
        "too short by a page"
    );
    assert_eq!(odd_backing(USER_TOP), Err(SlotError::BadBacking));
    assert_eq!(
        odd_backing(VirtAddr::new(!(PAGE_SIZE - 1))),
        Err(SlotError::Wraps)
    );
    assert_eq!(world.memory.slots().len(), 0);
}

fn ranges_that_overlap_are_refused_and_neighbours_are_not<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, _) = request(&world, 4);
    let first = world.memory.add(good.clone()).expect("nothing is wrong with it");
    for by in [0, 1, 3] {
        for at in [AT + by * PAGE_SIZE, AT - by * PAGE_SIZE] {
            let again = world.memory.add(SlotRequest { at, ..good.clone() });
            assert_eq!(again, Err(SlotError::Overlaps(first)));
        }
    }
    for at in [AT + 4 * PAGE_SIZE, AT - 4 * PAGE_SIZE] {
        // The same memory, seen at several places.
        world
            .memory
            .add(SlotRequest { at, ..good.clone() })
            .expect("they only touch");
    }
    let around = SlotRequest {
        at: AT - PAGE_SIZE * 4,
        ..good
    };
    assert!(matches!(world.memory.add(around), Err(SlotError::Overlaps(_))));
    let starts: Vec<_> = world.memory.slots().iter().map(|slot| slot.range.start).collect();
    assert!(starts.is_sorted());
}

fn odd_backings_are_refused_by_name<F: SoftFormat>() {
    let world = World::<F>::new();
    let (_, range) = request(&world, 4);
    world.space.unmap(part(range, 2, 1)).expect("it is mapped");
    let hole = world.memory.add(slot_of(&world.space, range));
    assert_eq!(hole, Err(SlotError::NotMapped(page(range, 2))));
    let object = Object::new(&GUEST_MEMFD, 4 * PAGE_SIZE);
    let with = |offset, userfaults| SlotRequest {
        backing: Backing::Object {
            object: Arc::clone(&object),
            offset,
            userfaults,
        },
        ..slot_of_object(&object, None)
    };
    assert_eq!(
        world.memory.add(with(PAGE_SIZE, None)),
        Err(SlotError::BeyondObject)
    );
    assert_eq!(world.memory.add(with(12, None)), Err(SlotError::Misaligned));
    assert_eq!(
        world.memory.add(with(!(PAGE_SIZE - 1), None)),
        Err(SlotError::Wraps)
    );
    let short = Userfaults {
        bitmap: Arc::new(Bitmap::new(3).expect("memory is plenty")),
        delivery: Delivery::Exit,
    };
    assert_eq!(
        world.memory.add(with(0, Some(short))),
        Err(SlotError::ShortBitmap)
    );
    let huge = Object::new(&HUGETLB, 2 << 20);
    assert_eq!(
        world.memory.add(slot_of_object(&huge, None)),
        Err(SlotError::HugeObject)
    );
}

fn what_is_no_slot_cannot_be_changed<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, _) = request(&world, 1);
    let slot = world.memory.add(good.clone()).expect("nothing is wrong with it");
    assert_eq!(world.memory.take_dirty(slot), Ok(None), "nothing is logged");
    world.memory.remove(slot).expect("it is there");
    let none = SlotError::NoSuchSlot;
    assert_eq!(world.memory.remove(slot), Err(none));
    assert_eq!(world.memory.set_read_only(slot, true), Err(none));
    assert_eq!(world.memory.set_logging(slot, true), Err(none));
    assert_eq!(world.memory.take_dirty(slot), Err(none));
    let next = world.memory.add(good).expect("the place is free");
    assert_ne!(next, slot, "numbers are used once");
}

fn a_slot_that_was_refused_leaves_nothing_behind<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&GUEST_MEMFD, PAGE_SIZE);
    let good = slot_of_object(&object, None);
    world.memory.add(good.clone()).expect("nothing is wrong with it");
    for _ in 0..8 {
        assert!(world.memory.add(good.clone()).is_err());
    }
    assert_eq!(object.views(), 1);
}

fn slots_are_found_at_both_ends<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, range) = request(&world, 2);
    world.populate(range);
    world.memory.add(good).expect("nothing is wrong with it");
    let mut guest = world.guest();
    assert_eq!(guest.load(0), Ok(1));
    let last = soft::Op::Load((gpa(2) - 8).as_u64());
    assert_eq!(guest.execute(last), Ok(0));
    for outside in [gpa(2), AT - 8] {
        let op = soft::Op::Load(outside.as_u64());
        assert_eq!(guest.execute(op), Err(Outcome::Unbacked));
    }
}

fn a_read_only_slot_of_an_object_is_read_only<F: SoftFormat>() {
    let world = World::<F>::new();
    let object = Object::new(&GUEST_MEMFD, PAGE_SIZE);
    assert_eq!(object.write(0, &bytes(1)).1, Ok(()));
    let request = SlotRequest {
        read_only: true,
        ..slot_of_object(&object, None)
    };
    world.memory.add(request).expect("nothing is wrong with it");
    let mut guest = world.guest();
    assert_eq!(guest.load(0), Ok(common::word(1)));
    assert_eq!(guest.store(0, 1), Err(Outcome::ReadOnly));
    let refused = world.memory.write(gpa(0), &[1]).map_err(|error| error.why);
    assert_eq!(refused, Err(Outcome::ReadOnly));
}

fn a_removed_slot_lets_waiters_in_its_space_go<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, range) = request(&world, 2);
    let uffd = Uffd::new(&world.space, UffdFeatures::empty());
    uffd.register(range, Modes::MISSING)
        .expect("anonymous memory can");
    let slot = world.memory.add(good).expect("nothing is wrong with it");
    let vcpu = world.guest().spawn_load(1);
    until_it_waits(vcpu.task());
    assert!(uffd.try_read_event().is_ok());
    world.memory.remove(slot).expect("it is there");
    assert_eq!(returned(vcpu), Err(Outcome::Unbacked));
    assert_eq!(uffd.ctx().outstanding_faults().len(), 0);
}
