//! Memory that runs out, and what the tables may lead to.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{AT, World, gpa, page, part, slot_of, slot_of_object};
use hv::memory::GuestMemory;
use hv::memslot::{Backing, SlotError, SlotRequest};
use hv::soft::{self, SoftFormat};
use hv::userfault::Outcome;
use hv::vendor::Features;
use kernel::mm::addr::{PAGE_SIZE, Pfn};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::pt::Entry;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess;

for_both! {
    memory_can_run_out_at_any_point_of_a_fault
    memory_can_run_out_at_any_point_of_a_new_slot
    every_leaf_lies_in_the_backing_of_a_slot
}

fn request<F: SoftFormat>(world: &World<F>, pages: u64) -> (SlotRequest, VirtRange) {
    let range = world.map(pages);
    (slot_of(&world.space, range), range)
}

/// Lets `attempt` fail for want of memory after 0, 1, 2, ... allocations, until it does not fail any more.
fn with_every_shortage(mut attempt: impl FnMut() -> bool) -> u64 {
    for successes in 0.. {
        assert!(successes < 100, "it never works");
        allocator().inject_failure(successes);
        let done = attempt();
        allocator().stop_injection();
        if done {
            return successes;
        }
    }
    unreachable!()
}

fn memory_can_run_out_at_any_point_of_a_fault<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, _) = request(&world, 2);
    world.memory.add(good).expect("nothing is wrong with it");
    let object = Object::new(&GUEST_MEMFD, 2 * PAGE_SIZE);
    let request = SlotRequest {
        at: AT + (1 << 30),
        ..slot_of_object(&object, None)
    };
    world.memory.add(request).expect("nothing is wrong with it");
    let mut guest = world.guest();
    let far = |i: u64| (AT + (1 << 30) + i * PAGE_SIZE).as_u64();
    let ops = [
        soft::Op::Load(gpa(0).as_u64()),
        soft::Op::Store(gpa(1).as_u64(), 3),
        soft::Op::Store(gpa(0).as_u64(), 2),
        soft::Op::Load(far(0)),
        soft::Op::Store(far(1), 4),
    ];
    let mut shortages = 0;
    for op in ops {
        shortages += with_every_shortage(|| match guest.execute(op) {
            Ok(_) => true,
            Err(outcome) => {
                assert_eq!(outcome, Outcome::Failed(FaultError::OutOfMemory));
                false
            }
        });
    }
    // Nodes of the space, its pages, nodes of stage 2, pages of the object.
    assert!(shortages >= 8, "{shortages} shortages");
    assert_eq!(guest.load(0), Ok(2));
    assert_eq!(guest.load(1), Ok(3));
    assert_eq!(guest.execute(soft::Op::Load(far(1))), Ok(4));
    assert_eq!(object.resident(), 2 * PAGE_SIZE);
}

fn memory_can_run_out_at_any_point_of_a_new_slot<F: SoftFormat>() {
    let world = World::<F>::new();
    let (good, range) = request(&world, 2);
    world.populate(range);
    let mut made = None;
    with_every_shortage(|| match world.memory.add(good.clone()) {
        Ok(slot) => made.replace(slot).is_none(),
        Err(error) => {
            assert_eq!(error, SlotError::OutOfMemory);
            assert_eq!(world.memory.slots().len(), 0);
            false
        }
    });
    assert_eq!(world.guest().load(1), Ok(2));
    let root = with_every_shortage(|| GuestMemory::<F>::new(&Features::default()).map(drop).is_ok());
    assert_eq!(root, 1, "the root");
}

/// All pages that a CPU reaches through the tables at `root`.
fn reachable<F: SoftFormat>(root: Pfn, from: u64, to: u64) -> BTreeSet<(u64, Pfn)> {
    (from..to)
        .step_by(PAGE_SIZE as usize)
        .filter_map(|at| Some((at, Pfn::containing(soft::walk::<F>(root, at)?.page))))
        .collect()
}

fn every_leaf_lies_in_the_backing_of_a_slot<F: SoftFormat>() {
    let world = World::<F>::new();
    let range = world.map(8);
    world.populate(range);
    let secret = world.map(8);
    world.populate(secret);
    // Only the middle of what is mapped.
    world.show(part(range, 2, 4));
    let object = Object::new(&GUEST_MEMFD, 6 * PAGE_SIZE);
    let request = SlotRequest {
        at: gpa(16),
        len: 2 * PAGE_SIZE,
        backing: Backing::Object {
            object: Arc::clone(&object),
            offset: 2 * PAGE_SIZE,
            userfaults: None,
        },
        ..slot_of_object(&object, None)
    };
    world.memory.add(request).expect("nothing is wrong with it");
    let mut guest = world.guest();
    for i in 0..32 {
        let answer = (guest.load(i), guest.store(i, 99));
        let backed = i < 4 || (16..18).contains(&i);
        assert_eq!(answer.0.is_ok() && answer.1.is_ok(), backed, "page {i}");
    }
    let mut backing: BTreeSet<(u64, Pfn)> = (0..4)
        .map(|i| match world.space.entry(page(range, 2 + i)).0 {
            Entry::Leaf(leaf) => (gpa(i).as_u64(), leaf.frame),
            entry => panic!("it was stored to: {entry:?}"),
        })
        .collect();
    for i in 0..2 {
        let kernel::mm::cache::Lookup::Present(folio) = object.lookup((2 + i) * PAGE_SIZE) else {
            panic!("it was stored to");
        };
        backing.insert((gpa(16 + i).as_u64(), folio.pfn()));
    }
    assert_eq!(reachable::<F>(world.memory.root(), 0, 4 << 20), backing);
    world.run(|| {
        for i in [0, 1, 6, 7] {
            assert_eq!(uaccess::load(page(range, i)), Ok(i + 1), "beside the slot");
        }
        (0..8).for_each(|i| assert_eq!(uaccess::load(page(secret, i)), Ok(i + 1)));
    });
    assert_eq!(object.resident(), 2 * PAGE_SIZE);
    world.memory.close();
    assert!(reachable::<F>(world.memory.root(), 0, 4 << 20).is_empty());
}
