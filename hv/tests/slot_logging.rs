//! Which pages of a slot were stored to: by write protection, and by dirty bits.

mod common;

use common::{Guest, World, gpa, page, part, request, returned};
use hv::memslot::SlotRequest;
use hv::soft::{Soft, SoftFormat};
use hv::vendor::{Features, Vendor};
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;
use kernel::task::State;
use kernel::task::spawn::spawn_returning;

for_both! {
    stores_are_logged_by_write_protection
    stores_are_logged_by_dirty_bits
    a_store_that_the_host_makes_for_the_guest_is_logged
    a_page_that_is_taken_away_keeps_its_stores
    logging_starts_with_nothing_and_ends_with_nothing
    a_copy_that_follows_the_log_ends_equal
}

/// A guest whose stores are logged, and the slot's range.
fn logged<F: SoftFormat>(by_dirty_bit: bool) -> (World<F>, Guest<F>, VirtRange, hv::memslot::SlotId) {
    let features = Features {
        accessed_dirty: by_dirty_bit,
        ..Soft::<F>::enable().expect("it is there")
    };
    let world = World::<F>::with(&features);
    let (good, range) = request(&world, 130);
    world.populate(range);
    let slot = world
        .memory
        .add(SlotRequest {
            log_dirty: true,
            ..good
        })
        .expect("nothing is wrong with it");
    let mut guest = world.guest();
    guest.vcpu.notes_use = by_dirty_bit;
    (world, guest, range, slot)
}

#[track_caller]
fn assert_dirty<F: SoftFormat>(world: &World<F>, slot: hv::memslot::SlotId, pages: &[u64]) {
    let words = world
        .memory
        .take_dirty(slot)
        .expect("it is there")
        .expect("it is logged");
    let set = |page: &u64| words[(page / 64) as usize] >> (page % 64) & 1 != 0;
    let dirty: Vec<u64> = (0..130).filter(set).collect();
    assert_eq!(dirty, pages);
}

fn rounds_of_logging<F: SoftFormat>(by_dirty_bit: bool) {
    let (world, mut guest, _, slot) = logged::<F>(by_dirty_bit);
    assert_dirty(&world, slot, &[]);
    (0..130).for_each(|i| assert_eq!(guest.load(i), Ok(i + 1)));
    assert_dirty(&world, slot, &[]);
    for round in 0..3 {
        for i in [0, 63, 64, 129] {
            assert_eq!(guest.store(i, round), Ok(()));
            assert_eq!(guest.store(i, round + 1), Ok(()));
        }
        assert_dirty(&world, slot, &[0, 63, 64, 129]);
        assert_dirty(&world, slot, &[]);
        assert_eq!(guest.load(64), Ok(round + 1));
        assert_eq!(guest.store(64, 7), Ok(()));
        assert_dirty(&world, slot, &[64]);
    }
}

fn stores_are_logged_by_write_protection<F: SoftFormat>() {
    rounds_of_logging::<F>(false);
}

fn stores_are_logged_by_dirty_bits<F: SoftFormat>() {
    rounds_of_logging::<F>(true);
    let (world, mut guest, _, slot) = logged::<F>(true);
    assert_eq!(guest.store(5, 1), Ok(()));
    assert_dirty(&world, slot, &[5]);
    let before = guest.violations;
    assert_eq!(guest.store(5, 2), Ok(()));
    assert_eq!(guest.violations, before, "the CPU notes it by itself");
    assert_dirty(&world, slot, &[5]);
}

fn a_store_that_the_host_makes_for_the_guest_is_logged<F: SoftFormat>() {
    let (world, _, range, slot) = logged::<F>(false);
    world.memory.write(gpa(9) + 4090, &[1; 12]).expect("it is memory");
    assert_dirty(&world, slot, &[9, 10]);
    // What the host does by itself is its own business.
    world.run(|| assert_eq!(uaccess::store(page(range, 3), 1), Ok(())));
    assert_dirty(&world, slot, &[]);
}

fn a_page_that_is_taken_away_keeps_its_stores<F: SoftFormat>() {
    for by_dirty_bit in [false, true] {
        let (world, mut guest, range, slot) = logged::<F>(by_dirty_bit);
        assert_eq!(guest.store(2, 1), Ok(()));
        assert_dirty(&world, slot, &[2]);
        assert_eq!(guest.store(2, 2), Ok(()));
        world.space.discard(part(range, 2, 1)).expect("it is mapped");
        assert_dirty(&world, slot, &[2]);
    }
}

fn logging_starts_with_nothing_and_ends_with_nothing<F: SoftFormat>() {
    for by_dirty_bit in [false, true] {
        let (world, mut guest, _, slot) = logged::<F>(by_dirty_bit);
        assert_eq!(guest.store(1, 1), Ok(()));
        world.memory.set_logging(slot, false).expect("it is there");
        assert_eq!(world.memory.take_dirty(slot), Ok(None));
        assert_eq!(guest.store(2, 1), Ok(()));
        world.memory.set_logging(slot, true).expect("it is there");
        assert_dirty(&world, slot, &[]);
        assert_eq!(
            guest.store(2, 2),
            Ok(()),
            "writable before, and noted all the same"
        );
        assert_dirty(&world, slot, &[2]);
    }
}

/// What live migration does: pages are copied while the guest stores to them, and again whenever the log says so. No store
/// falls between two answers.
fn a_copy_that_follows_the_log_ends_equal<F: SoftFormat>() {
    for by_dirty_bit in [false, true] {
        let (world, mut guest, _, slot) = logged::<F>(by_dirty_bit);
        // The tables change under it.
        guest.vcpu.strict = false;
        let vcpu = spawn_returning("vcpu", None, move || {
            for round in 0..2000u64 {
                assert_eq!(guest.store(round * 7 % 130, round + 1000), Ok(()));
            }
        });
        let vcpu = vcpu.expect("the host has threads");
        let read = |page: u64| {
            let mut word = [0; 8];
            world.memory.read(gpa(page), &mut word).expect("it is memory");
            u64::from_ne_bytes(word)
        };
        let mut copy: Vec<u64> = (0..130).map(read).collect();
        let mut last = false;
        while !last {
            last = vcpu.task().state() == State::Ended;
            let words = world
                .memory
                .take_dirty(slot)
                .expect("memory is plenty")
                .expect("it is logged");
            for page in (0..130).filter(|page| words[(page / 64) as usize] >> (page % 64) & 1 != 0) {
                copy[page as usize] = read(page);
            }
        }
        returned(vcpu);
        assert_eq!(copy, (0..130).map(read).collect::<Vec<_>>());
    }
}
