//! Forking an address space: what the two sides share, when they part, what is left of a fork that fails.

mod common;

use std::sync::Arc;

use common::kinds::map;
use common::{RW, World, anon_frames, object_world, page, part, populate, returned};
use kernel::arch::host::Config;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::FaultError;
use kernel::mm::frame::allocator;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Granule, MemType};
use kernel::mm::pt::{AttrFlags, Entry, Leaf, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{ForkError, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::mm::vma::VmaFlags;
use kernel::task::Task;
use kernel::task::spawn::spawn_returning;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Uffd};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();

fn fork(parent: &Arc<Space>) -> Arc<Space> {
    parent.fork().expect("RAM is plenty")
}

/// Loads the word at `addr` in a task of `space`.
fn load(space: &Arc<Space>, addr: VirtAddr) -> Result<u64, FaultError> {
    let task = spawn_returning("loader", Some(Arc::clone(space)), move || uaccess::load(addr));
    returned(task.expect("the host has threads")).map_err(|error| error.why)
}

/// Stores a word at `addr` in a task of `space`.
fn store(space: &Arc<Space>, addr: VirtAddr, value: u64) -> Result<(), FaultError> {
    let task = spawn_returning("storer", Some(Arc::clone(space)), move || {
        uaccess::store(addr, value)
    });
    returned(task.expect("the host has threads")).map_err(|error| error.why)
}

fn leaf(space: &Space, addr: VirtAddr) -> Leaf {
    match space.entry(addr).0 {
        Entry::Leaf(leaf) => leaf,
        entry => panic!("{addr:?} is mapped: {entry:?}"),
    }
}

fn is_forked(space: &Space, addr: VirtAddr) -> bool {
    let leaf = leaf(space, addr);
    let forked = leaf.attr.flags.contains(AttrFlags::FORKED);
    assert!(!(forked && leaf.prot.contains(Prot::WRITE)), "{leaf:?}");
    forked
}

#[test]
fn the_child_finds_the_parents_pages_and_neither_sees_what_the_other_stores_later() {
    let world = World::new();
    let range = world.map(4, RW);
    populate(&world, range);
    let child = fork(&world.space);
    assert_eq!(store(&child, page(range, 0), 100), Ok(()));
    assert_eq!(world.store(page(range, 1), 200), Ok(()));
    let seen = |space: &Arc<Space>| (0..4).map(|i| load(space, page(range, i))).collect::<Vec<_>>();
    assert_eq!(seen(&world.space), [Ok(1), Ok(200), Ok(3), Ok(4)]);
    assert_eq!(seen(&child), [Ok(100), Ok(2), Ok(3), Ok(4)]);
}

#[test]
fn pages_are_shared_until_one_side_stores_and_the_last_owner_keeps_its_own() {
    let world = World::new();
    let range = world.map(2, RW);
    populate(&world, range);
    let before = anon_frames();
    let child = fork(&world.space);
    assert_eq!(anon_frames(), before, "nothing is copied by the fork");
    assert_eq!(
        leaf(&world.space, range.start).frame,
        leaf(&child, range.start).frame
    );
    assert_eq!(store(&child, range.start, 9), Ok(()));
    assert_eq!(anon_frames(), before + 1);
    assert_eq!(world.store(range.start, 8), Ok(()));
    assert_eq!(
        anon_frames(),
        before + 1,
        "nobody else has the first page any more"
    );
    drop(child);
    assert_eq!(anon_frames(), before);
    assert_eq!(world.load(range.start), Ok(8));
}

#[test]
fn both_sides_lose_the_right_to_write_until_they_store() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    assert!(leaf(&world.space, range.start).prot.contains(Prot::WRITE));
    let child = fork(&world.space);
    assert!(is_forked(&world.space, range.start) && is_forked(&child, range.start));
    assert_eq!(store(&child, range.start, 5), Ok(()));
    assert!(!is_forked(&child, range.start), "the copy is the child's own");
    assert!(is_forked(&world.space, range.start));
    drop(child);
    assert_eq!(world.load(range.start), Ok(1));
    assert!(
        is_forked(&world.space, range.start),
        "neither the child's end nor a load changes that"
    );
    assert_eq!(world.store(range.start, 6), Ok(()));
    assert!(!is_forked(&world.space, range.start));
    assert!(leaf(&world.space, range.start).prot.contains(Prot::WRITE));
}

#[test]
fn no_cpu_of_the_parent_keeps_a_translation_that_writes_to_shared_pages() {
    let world = World::new();
    let range = world.map(2, RW);
    // A task on another CPU, with a writable translation of the second page in its cache.
    let (filled, forked) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let (tell, go) = (filled.0, forked.1);
    let other = world.spawn("parent's other thread", move || {
        uaccess::store(page(range, 1), 1)?;
        tell.send(()).expect("the test waits for it");
        go.recv().expect("the test goes on");
        uaccess::store(page(range, 1), 2)
    });
    filled.1.recv().expect("it stores first");
    let child = world.run(|| {
        assert_eq!(uaccess::store(range.start, 1), Ok(()));
        let child = fork(&world.space);
        assert_eq!(uaccess::store(range.start, 2), Ok(()));
        child
    });
    forked.0.send(()).expect("it waits");
    assert_eq!(returned(other), Ok(()));
    for i in 0..2 {
        assert_eq!(load(&child, page(range, i)), Ok(1));
        assert_eq!(world.load(page(range, i)), Ok(2));
    }
}

#[test]
fn areas_and_their_rights_come_along_and_what_is_mapped_later_does_not() {
    let world = World::new();
    let read_only = world.map(2, Prot::READ);
    let object = Object::new(&SHMEM, 2 * P);
    let shared = map(&world, Memory::shared(&object), None, 2 * P);
    let child = fork(&world.space);
    assert_eq!(child.areas(), world.space.areas());
    let later = world.map(1, RW);
    assert_eq!(child.query(later.start), None);
    child.unmap(shared).expect("mapped");
    assert!(world.space.query(shared.start).is_some());
    assert_eq!(store(&child, read_only.start, 1), Err(FaultError::Forbidden));
}

#[test]
fn the_page_of_zeros_is_copied_with_the_pages_around_it_and_not_counted() {
    let world = World::new();
    let range = world.map(2, RW);
    assert_eq!(
        (world.load(range.start), world.store(page(range, 1), 7)),
        (Ok(0), Ok(()))
    );
    let child = fork(&world.space);
    assert!(
        !is_forked(&child, range.start),
        "the page of zeros is nobody's, so it is not shared by the fork either"
    );
    assert_eq!((load(&child, range.start), anon_frames()), (Ok(0), 1));
}

#[test]
fn a_large_page_that_was_only_read_is_copied() {
    let world = World::with(Config { memory: 16 << 20 }, Privilege::Kernel);
    allocator().reserve_huge(1).expect("RAM is plenty");
    let range = map(&world, Memory::Own(&HUGETLB), None, Granule::Huge.size());
    assert_eq!(world.load(range.start), Ok(0));
    let child = fork(&world.space);
    assert!(is_forked(&child, range.start));
    assert_eq!(load(&child, range.start), Ok(0));
}

#[test]
fn guards_are_inherited_by_shared_mappings_too() {
    let world = World::new();
    let object = Object::new(&SHMEM, 2 * P);
    let range = map(&world, Memory::shared(&object), None, 2 * P);
    world
        .space
        .install_guards(part(range, 0, 1))
        .expect("it is mapped");
    let child = fork(&world.space);
    assert_eq!(load(&child, range.start), Err(FaultError::Guard));
    assert_eq!(load(&child, page(range, 1)), Ok(0));
}

#[test]
fn untouched_memory_is_zeros_on_both_sides_and_the_page_of_zeros_is_not_counted() {
    let world = World::new();
    let range = world.map(2, RW);
    assert_eq!(world.load(range.start), Ok(0));
    let before = anon_frames();
    let child = fork(&world.space);
    assert_eq!(
        child.entry(range.start).0,
        Entry::EMPTY,
        "an area without pages of its own is not copied"
    );
    assert_eq!(store(&child, range.start, 1), Ok(()));
    assert_eq!(load(&child, page(range, 1)), Ok(0));
    assert_eq!((world.load(range.start), anon_frames()), (Ok(0), before + 1));
}

#[test]
fn a_page_that_is_read_by_somebody_who_pins_it_is_no_longer_shared() {
    let world = World::new();
    let range = world.map(2, RW);
    populate(&world, range);
    let child = fork(&world.space);
    let mut bytes = [0; 8];
    world
        .space
        .read_pinned(range.start, &mut bytes)
        .expect("it is mapped");
    assert_eq!((u64::from_ne_bytes(bytes), anon_frames()), (1, 3));
    assert!(!is_forked(&world.space, range.start) && is_forked(&child, range.start));
    // The other side's is its own by then.
    child.read_pinned(range.start, &mut bytes).expect("it is mapped");
    assert_eq!(anon_frames(), 3);
    assert!(!is_forked(&child, range.start));
    assert!(is_forked(&child, page(range, 1)));
}

#[test]
fn a_page_of_an_object_stays_the_objects_when_it_is_pinned() {
    let world = World::new();
    let object = Object::new(&SHMEM, 2 * P);
    let range = map(&world, Memory::private(&object), None, 2 * P);
    assert_eq!(
        (world.store(range.start, 1), world.load(page(range, 1))),
        (Ok(()), Ok(0))
    );
    let before = anon_frames();
    let _child = fork(&world.space);
    let mut bytes = [0; 8];
    world
        .space
        .read_pinned(page(range, 1), &mut bytes)
        .expect("it is mapped");
    assert_eq!(anon_frames(), before);
}

#[test]
fn a_child_forks_too() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let child = fork(&world.space);
    let grandchild = fork(&child);
    assert_eq!(anon_frames(), 1);
    assert_eq!(store(&child, range.start, 2), Ok(()));
    assert_eq!(store(&grandchild, range.start, 3), Ok(()));
    assert_eq!(anon_frames(), 3);
    let seen = [&world.space, &child, &grandchild].map(|space| load(space, range.start));
    assert_eq!(seen, [Ok(1), Ok(2), Ok(3)]);
}

#[test]
fn a_child_outlives_its_parent() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let child = fork(&world.space);
    world.space.unmap(range).expect("mapped");
    assert_eq!(load(&child, range.start), Ok(1));
    assert_eq!(store(&child, range.start, 2), Ok(()));
    assert_eq!(anon_frames(), 1, "it was the last owner");
}

#[test]
fn rights_that_were_taken_away_come_back_without_writing_to_a_shared_page() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    world.space.protect(range, Prot::empty()).expect("mapped");
    let child = fork(&world.space);
    assert!(is_forked(&child, range.start), "also a leaf that lets nobody in");
    for space in [&world.space, &child] {
        space.protect(range, RW).expect("mapped");
    }
    assert_eq!(store(&child, range.start, 2), Ok(()));
    assert_eq!(
        (world.load(range.start), load(&child, range.start)),
        (Ok(1), Ok(2))
    );
}

#[test]
fn stores_to_a_shared_mapping_reach_both_sides_and_its_entries_are_not_copied() {
    let world = object_world();
    let object = Object::new(&SHMEM, 2 * P);
    let range = map(&world, Memory::shared(&object), None, 2 * P);
    assert_eq!(world.store(range.start, 1), Ok(()));
    let child = fork(&world.space);
    assert!(!child.entry(range.start).0.is_leaf());
    assert!(leaf(&world.space, range.start).prot.contains(Prot::WRITE));
    assert_eq!(store(&child, range.start, 2), Ok(()));
    assert_eq!(world.store(page(range, 1), 3), Ok(()));
    assert_eq!(
        (world.load(range.start), load(&child, page(range, 1))),
        (Ok(2), Ok(3))
    );
    assert!(!is_forked(&child, range.start));
}

#[test]
fn a_private_mapping_of_an_object_parts_like_anonymous_memory() {
    let world = object_world();
    let object = Object::new(&SHMEM, 2 * P);
    let range = map(&world, Memory::private(&object), None, 2 * P);
    // The first page is a copy of the mapping's own, the second the object's.
    assert_eq!(world.store(range.start, 1), Ok(()));
    assert_eq!(world.load(page(range, 1)), Ok(0));
    let child = fork(&world.space);
    assert_eq!(load(&child, range.start), Ok(1));
    for (i, value) in [(0, 10), (1, 20)] {
        assert_eq!(store(&child, page(range, i), value), Ok(()));
    }
    assert_eq!(
        (world.load(range.start), world.load(page(range, 1))),
        (Ok(1), Ok(0))
    );
    let alias = map(&world, Memory::shared(&object), None, 2 * P);
    assert_eq!(
        (world.load(alias.start), world.load(page(alias, 1))),
        (Ok(0), Ok(0))
    );
}

#[test]
fn huge_pages_of_a_private_mapping_are_copied_as_such() {
    const H: u64 = 2 << 20;
    let world = object_world();
    let object = Object::new(&HUGETLB, H);
    let range = map(&world, Memory::private(&object), None, H);
    assert_eq!(world.store(range.start + H - 8, 7), Ok(()));
    let free = allocator().huge_pages().free;
    let child = fork(&world.space);
    assert_eq!(allocator().huge_pages().free, free);
    assert_eq!(store(&child, range.start, 8), Ok(()));
    assert_eq!(allocator().huge_pages().free, free - 1);
    assert_eq!(load(&child, range.start + H - 8), Ok(7), "all of it was copied");
    assert_eq!(world.load(range.start), Ok(0));
    drop(child);
    assert_eq!(allocator().huge_pages().free, free);
}

/// One registered page of this type, poisoned.
fn poisoned(world: &World, ty: &'static MemType) -> (VirtRange, Uffd) {
    let memory = if core::ptr::eq(ty, &raw const ANON) {
        Memory::Own(&ANON)
    } else {
        Memory::shared(&Object::new(ty, P))
    };
    let range = map(world, memory, None, P);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::MISSING).expect("the type can");
    assert_eq!(uffd.poison(range, NOW), Outcome::Done);
    (range, uffd)
}

#[test]
fn poison_of_anonymous_memory_is_inherited() {
    let world = World::new();
    let (range, _uffd) = poisoned(&world, &ANON);
    let child = fork(&world.space);
    assert_eq!(load(&child, range.start), Err(FaultError::Poisoned));
    child.discard(range).expect("mapped");
    assert_eq!(load(&child, range.start), Ok(0));
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
}

#[test]
fn poison_of_a_shared_mapping_is_not_inherited() {
    let world = object_world();
    let (range, _uffd) = poisoned(&world, &SHMEM);
    let child = fork(&world.space);
    assert_eq!(load(&child, range.start), Ok(0));
    assert_eq!(world.load(range.start), Err(FaultError::Poisoned));
}

#[test]
fn guards_are_inherited() {
    let world = World::new();
    let range = world.map(2, RW);
    populate(&world, range);
    world.space.install_guards(part(range, 1, 1)).expect("mapped");
    let child = fork(&world.space);
    assert_eq!(load(&child, page(range, 1)), Err(FaultError::Guard));
    child.remove_guards(part(range, 1, 1)).expect("mapped");
    assert_eq!(load(&child, page(range, 1)), Ok(0));
    assert_eq!(world.load(page(range, 1)), Err(FaultError::Guard));
}

#[test]
fn what_is_to_be_left_out_is_not_there_in_the_child() {
    let world = World::new();
    let range = world.map(3, RW);
    populate(&world, range);
    world
        .space
        .set_left_out_of_forks(part(range, 1, 1), true)
        .expect("mapped");
    let before = anon_frames();
    let child = fork(&world.space);
    assert_eq!(load(&child, page(range, 1)), Err(FaultError::Unmapped));
    assert_eq!(
        (load(&child, range.start), load(&child, page(range, 2))),
        (Ok(1), Ok(3))
    );
    assert!(!is_forked(&world.space, page(range, 1)));
    assert_eq!(world.load(page(range, 1)), Ok(2));
    world.space.set_left_out_of_forks(range, false).expect("mapped");
    assert_eq!(load(&fork(&world.space), page(range, 1)), Ok(2));
    assert_eq!(anon_frames(), before);
}

#[test]
fn locks_on_memory_are_not_inherited() {
    let world = World::new();
    let range = world.map(2, RW);
    world.space.lock(part(range, 0, 1)).expect("mapped");
    let child = fork(&world.space);
    assert_eq!(world.space.areas().len(), 2);
    let areas: Vec<_> = child.areas().iter().map(|vma| (vma.range, vma.flags)).collect();
    let flags = VmaFlags::ACCOUNTED;
    // Alike, but a fork leaves areas as they are.
    assert_eq!(areas, [(part(range, 0, 1), flags), (part(range, 1, 1), flags)]);
}

/// A space with something of everything: two areas far apart, so that the tables have nodes in several places, poison,
/// a registration with a context of its own, and a private mapping of an object.
fn much(world: &World) -> (VirtRange, Uffd) {
    let range = world.map(4, RW);
    populate(world, range);
    let far = world.map_at(Some(VirtAddr::new(0x40_0000_0000)), 3, RW);
    populate(world, part(far, 0, 2));
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(far, Modes::MISSING).expect("anonymous memory can");
    assert_eq!(uffd.poison(part(far, 2, 1), NOW), Outcome::Done);
    let object = Object::new(&SHMEM, 2 * P);
    let private = map(world, Memory::private(&object), None, 2 * P);
    assert_eq!(world.store(private.start, 1), Ok(()));
    (range, uffd)
}

#[test]
fn a_fork_that_runs_out_of_memory_at_any_point_leaves_nothing_of_the_child() {
    let world = object_world();
    let (range, _uffd) = much(&world);
    let before = allocator().stats();
    let mut failures = 0;
    let child = loop {
        allocator().inject_failure(failures);
        let outcome = world.space.fork();
        allocator().stop_injection();
        match outcome {
            Ok(child) => break child,
            Err(error) => assert_eq!(error, ForkError::OutOfMemory),
        }
        failures += 1;
        assert_eq!(
            allocator().stats().in_use,
            before.in_use,
            "after failure {failures}"
        );
        assert_eq!(
            world.load(range.start),
            Ok(1),
            "the parent goes on as if nothing had been"
        );
        assert_eq!(world.store(range.start, 1), Ok(()));
        assert_eq!(allocator().stats().in_use, before.in_use, "the page is its own");
    };
    assert!(failures >= 7, "a root, and three nodes in two places: {failures}");
    assert_eq!(load(&child, range.start), Ok(1));
    drop(child);
    assert_eq!(allocator().stats().in_use, before.in_use);
}

#[test]
fn a_task_that_is_killed_gets_no_child() {
    let world = World::new();
    let range = world.map(1, RW);
    populate(&world, range);
    let before = allocator().stats();
    let outcome = Task::detached_in("forker", Arc::clone(&world.space)).run_as(|| {
        kernel::task::current_arc().kill();
        world.space.fork()
    });
    assert_eq!(outcome.err(), Some(ForkError::Killed));
    assert_eq!(allocator().stats().in_use, before.in_use);
}
