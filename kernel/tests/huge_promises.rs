//! Huge pages that mappings are promised: who is refused, who is served when nothing else is left, and that every promise comes
//! back.

mod common;

use std::sync::Arc;

use common::{RW, World, object_world, page, returned, until_it_waits};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::{AllocateError, Claim, NoPage, Object};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{HugePages, allocator};
use kernel::mm::memtype::{Granule, hugetlb::HUGETLB};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapOptions, MapRequest, Memory, RemapRequest, RemapTo};
use kernel::mm::vma::VmaFlags;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd};

const HUGE: u64 = Granule::Huge.size();
const PAGES: u64 = HUGE / PAGE_SIZE;

/// Total, free and promised pages of the pool.
fn pool() -> (u64, u64, u64) {
    let HugePages {
        total,
        free,
        promised,
    } = allocator().huge_pages();
    (total, free, promised)
}

fn try_map(world: &World, memory: Memory, pages: u64, flags: VmaFlags) -> Result<VirtRange, MapError> {
    let request = MapRequest {
        at: None,
        len: pages * HUGE,
        prot: RW,
        memory,
    };
    let options = MapOptions {
        flags,
        ..MapOptions::default()
    };
    world.space.map_with(request, options)
}

fn own(world: &World, pages: u64) -> VirtRange {
    try_map(world, Memory::Own(&HUGETLB), pages, VmaFlags::empty()).expect("there are so many")
}

fn at(range: VirtRange, index: u64) -> VirtAddr {
    range.start + index * HUGE
}

fn part(range: VirtRange, index: u64, pages: u64) -> VirtRange {
    VirtRange::new(at(range, index), at(range, index + pages))
}

#[test]
fn a_private_mapping_takes_its_promises_with_its_pages_and_gives_the_rest_back() {
    let world = object_world();
    let range = own(&world, 3);
    assert_eq!(pool(), (4, 4, 3));
    assert_eq!(world.store(at(range, 0), 1), Ok(()));
    assert_eq!(world.load(at(range, 1)), Ok(0));
    assert_eq!(pool(), (4, 2, 1));
    world.space.discard(part(range, 0, 1)).expect("it can");
    assert_eq!(pool(), (4, 3, 2), "promised again");
    world.space.unmap(part(range, 1, 2)).expect("it can");
    assert_eq!(pool(), (4, 4, 1));
    world.space.unmap(range).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
}

#[test]
fn who_wants_more_than_there_is_maps_nothing() {
    let world = object_world();
    let range = own(&world, 3);
    let object = Object::new(&HUGETLB, 4 * HUGE);
    let none = VmaFlags::empty();
    for memory in [
        Memory::Own(&HUGETLB),
        Memory::shared(&object),
        Memory::private(&object),
    ] {
        assert_eq!(try_map(&world, memory, 2, none), Err(MapError::NotPromised));
        assert_eq!(pool(), (4, 4, 3));
    }
    let loose = try_map(&world, Memory::Own(&HUGETLB), 2, VmaFlags::NO_RESERVE).expect("it does without");
    assert_eq!(world.store(at(loose, 0), 1), Ok(()), "one is nobody's");
    assert_eq!(world.store(at(loose, 1), 1), Err(FaultError::PoolEmpty));
    for index in 0..3 {
        assert_eq!(world.store(at(range, index), 1), Ok(()), "page {index}");
    }
    assert_eq!(pool(), (4, 0, 0));
}

#[test]
fn shared_mappings_share_what_is_promised_to_the_object() {
    let world = object_world();
    let object = Object::new(&HUGETLB, 4 * HUGE);
    let none = VmaFlags::empty();
    let first = try_map(&world, Memory::shared(&object), 2, none).expect("there are two");
    let second = try_map(&world, Memory::shared(&object), 3, none).expect("there is one more");
    assert_eq!(pool(), (4, 4, 3));
    assert_eq!(world.store(at(second, 0), 7), Ok(()));
    assert_eq!(world.load(at(first, 0)), Ok(7));
    assert_eq!(pool(), (4, 3, 2));
    world.space.unmap(first).expect("it can");
    world.space.unmap(second).expect("it can");
    assert_eq!(pool(), (4, 3, 2), "they stay the object's");
    assert_eq!(object.allocate(HUGE, HUGE, true), Ok(()));
    assert_eq!(pool(), (4, 2, 1));
    object.punch(0, HUGE).expect("it can");
    assert_eq!(pool(), (4, 3, 1), "a used one that goes was promised once");
    object.truncate(HUGE).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
    let again = try_map(&world, Memory::shared(&object), 2, none).expect("there are");
    drop(object);
    world.space.unmap(again).expect("it can");
    assert_eq!(pool(), (4, 4, 0), "the object is gone");
}

#[test]
fn what_is_allocated_ahead_of_use_needs_a_promise_or_a_spare_page() {
    let world = object_world();
    let _range = own(&world, 4);
    let object = Object::new(&HUGETLB, HUGE);
    let refused = Err(AllocateError::NoPage(NoPage::PoolEmpty));
    assert_eq!(object.allocate(0, HUGE, true), refused);
    assert_eq!(pool(), (4, 4, 4));
}

#[test]
fn a_forks_child_was_promised_nothing() {
    let world = object_world();
    let range = own(&world, 2);
    assert_eq!(world.store(at(range, 0), 5), Ok(()));
    let rest = own(&world, 2);
    let child = world.space.fork().expect("there is memory");
    assert_eq!(pool(), (4, 3, 3));
    let none = kernel::mm::fault::Origin::Kernel;
    let refused = child.write_bytes(at(range, 1), &[1; 8], none);
    assert_eq!(refused.map_err(|error| error.why), Err(FaultError::PoolEmpty));
    assert_eq!(pool(), (4, 3, 3));
    child.unmap(rest).expect("it can");
    assert_eq!(pool(), (4, 3, 3), "nothing of the parent's");
    drop(child);
    assert_eq!(world.store(at(range, 1), 5), Ok(()));
    assert_eq!(world.load(at(range, 0)), Ok(5));
    assert_eq!(pool(), (4, 2, 2));
}

#[test]
fn promises_move_with_their_mapping() {
    let world = object_world();
    let range = own(&world, 3);
    assert_eq!(world.store(at(range, 0), 5), Ok(()));
    let to = VirtRange::new(range.start - 64 * HUGE, range.end - 64 * HUGE);
    let moved = world.space.remap(RemapRequest {
        old: range,
        len: range.len(),
        to: RemapTo::At(to.start),
        leave_mapped: false,
    });
    assert_eq!(moved, Ok(to));
    assert_eq!(pool(), (4, 3, 2));
    assert_eq!(world.store(at(to, 1), 5), Ok(()));
    assert_eq!(pool(), (4, 2, 1));
    world.space.unmap(to).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
}

#[test]
fn a_copy_uses_the_promise_and_one_that_fails_leaves_it() {
    let world = object_world();
    let range = own(&world, 2);
    let rest = own(&world, 2);
    let loose = try_map(&world, Memory::Own(&HUGETLB), 1, VmaFlags::NO_RESERVE).expect("it does without");
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("it can");
    uffd.register(loose, Modes::MISSING).expect("it can");
    let now = FillMode::empty();
    let source = vec![9; HUGE as usize];
    assert_eq!(
        uffd.copy(loose.start, &source, HUGE, now),
        Outcome::Refused(Refusal::PoolEmpty)
    );
    assert_eq!(
        uffd.copy(range.start, &source[..PAGE_SIZE as usize], HUGE, now),
        Outcome::Refused(Refusal::BadSource)
    );
    assert_eq!(pool(), (4, 4, 4));
    assert_eq!(uffd.copy(range.start, &source, HUGE, now), Outcome::Done);
    assert_eq!(
        uffd.copy(range.start, &source, HUGE, now),
        Outcome::Refused(Refusal::Exists)
    );
    assert_eq!(pool(), (4, 3, 3));
    assert_eq!(world.load(page(range, PAGES - 1)), Ok(u64::from_ne_bytes([9; 8])));
    world.space.unmap(rest).expect("it can");
    assert_eq!(uffd.copy(loose.start, &source, HUGE, now), Outcome::Done);
    assert_eq!(pool(), (4, 2, 1));
}

#[test]
fn what_a_space_was_promised_comes_back_at_its_end() {
    let world = object_world();
    let range = own(&world, 3);
    assert_eq!(world.store(at(range, 1), 5), Ok(()));
    world.space.retire();
    assert_eq!(pool(), (4, 4, 0));
}

/// The right to the first page that is promised to the object.
fn claim_first(object: &Object) -> Claim {
    let promise = object.promised().expect("the type has a pool");
    Claim::to(promise, 0).expect("it is promised and nobody's yet")
}

#[test]
fn a_page_that_somebody_has_claimed_is_not_promised_twice() {
    let world = object_world();
    let object = Object::new(&HUGETLB, 2 * HUGE);
    let none = VmaFlags::empty();
    let first = try_map(&world, Memory::shared(&object), 1, none).expect("there is one");
    let claim = claim_first(&object);
    let promise = object.promised().expect("the type has a pool");
    assert!(Claim::to(promise, 0).is_none(), "it is one claim's only");
    let second = try_map(&world, Memory::shared(&object), 2, none).expect("there is one more");
    assert_eq!(pool(), (4, 4, 2));
    drop(claim);
    assert_eq!(pool(), (4, 4, 2));
    assert_eq!(world.store(at(second, 0), 7), Ok(()));
    assert_eq!(pool(), (4, 3, 1), "what was given up can be claimed again");
    world.space.unmap(first).expect("it can");
    world.space.unmap(second).expect("it can");
    drop(object);
    assert_eq!(pool(), (4, 4, 0));
}

#[test]
fn a_claim_that_is_given_up_after_the_object_was_cut_short_promises_nothing() {
    let world = object_world();
    let object = Object::new(&HUGETLB, HUGE);
    let none = VmaFlags::empty();
    let range = try_map(&world, Memory::shared(&object), 1, none).expect("there is one");
    let claim = claim_first(&object);
    let page = claim.alloc().expect("it was promised");
    object.truncate(0).expect("it can");
    drop(page);
    drop(claim);
    assert_eq!(pool(), (4, 4, 0));
    object.truncate(HUGE).expect("it can");
    let again = try_map(&world, Memory::shared(&object), 1, none).expect("there is one");
    let old = claim_first(&object);
    object.truncate(0).expect("it can");
    object.truncate(HUGE).expect("it can");
    let third = try_map(&world, Memory::shared(&object), 1, none).expect("there is one");
    let new = claim_first(&object);
    assert_eq!(pool(), (4, 4, 2), "one for each claim");
    drop(old);
    assert_eq!(pool(), (4, 4, 1), "the new promise is not the old claim's");
    drop(new);
    assert_eq!(pool(), (4, 4, 1));
    for mapped in [range, again, third] {
        world.space.unmap(mapped).expect("it can");
    }
    drop(object);
    assert_eq!(pool(), (4, 4, 0));
}

#[test]
fn a_claim_that_is_given_up_after_somebody_else_has_filled_the_hole_promises_nothing() {
    let world = object_world();
    let object = Object::new(&HUGETLB, HUGE);
    let range = try_map(&world, Memory::shared(&object), 1, VmaFlags::empty()).expect("there is one");
    let claim = claim_first(&object);
    assert_eq!(
        world.store(at(range, 0), 7),
        Ok(()),
        "with a page that is nobody's"
    );
    assert_eq!(pool(), (4, 3, 1));
    drop(claim);
    assert_eq!(pool(), (4, 3, 0));
    object.punch(0, HUGE).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
    let again = try_map(&world, Memory::shared(&object), 1, VmaFlags::empty()).expect("there is one");
    let claim = claim_first(&object);
    assert_eq!(world.store(at(range, 0), 7), Ok(()));
    object.punch(0, HUGE).expect("it can");
    drop(claim);
    assert_eq!(pool(), (4, 4, 1), "the hole is back, and so is the promise");
    world.space.unmap(again).expect("it can");
}

#[test]
fn a_page_that_is_discarded_and_touched_at_the_same_time_is_counted_once() {
    let world = object_world();
    let range = own(&world, 1);
    let space = Arc::clone(&world.space);
    let discards = world.spawn("discards", move || {
        for _ in 0..2000 {
            space.discard(range).expect("it can");
        }
    });
    for _ in 0..2000 {
        assert_eq!(world.store(at(range, 0), 1), Ok(()), "there are spare ones");
    }
    returned(discards);
    world.space.discard(range).expect("it can");
    assert_eq!(pool(), (4, 4, 1));
    world.space.unmap(range).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
}

#[test]
fn what_fills_a_page_before_a_copy_that_waits_leaves_one_promise_when_it_goes() {
    let world = object_world();
    let range = own(&world, 1);
    let from = world.map(PAGES, RW);
    let uffd = Arc::new(Uffd::new(&world.space, Features::empty()));
    uffd.register(range, Modes::MISSING).expect("it can");
    let served = Uffd::new(&world.space, Features::empty());
    served.register(from, Modes::MISSING).expect("it can");
    let now = FillMode::empty();
    let copier = Arc::clone(&uffd);
    let waits = world.spawn("copier", move || {
        copier.copy_from_task(range.start, from.start, HUGE, now)
    });
    until_it_waits(waits.task());
    let contents = vec![9; HUGE as usize];
    assert_eq!(uffd.copy(range.start, &contents, HUGE, now), Outcome::Done);
    assert_eq!(served.copy(from.start, &contents, HUGE, now), Outcome::Done);
    assert_eq!(returned(waits), Outcome::Refused(Refusal::Exists));
    assert_eq!(pool(), (4, 3, 1));
    world.space.discard(range).expect("it can");
    assert_eq!(pool(), (4, 4, 1), "it was promised already");
    world.space.unmap(range).expect("it can");
    assert_eq!(pool(), (4, 4, 0));
}
