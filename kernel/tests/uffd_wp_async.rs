//! Stores that are noted instead of reported (`UFFD_FEATURE_WP_ASYNC`), row by row as Linux has it (checked there on 6.18).
//! Each test is named after what it claims.

mod common;

use common::kinds::FILE;
use common::{
    RW, World, answer, eventually, missing, object_world, page, part, populate, registered_with, returned,
    source, until_it_waits, was_woken, word, write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{FaultError, Origin};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_WRITTEN};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Class, MemType};
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::Memory;
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, OpSet, Outcome, ReadError, Refusal, RegisterError, Uffd,
    UnregisterError, linux,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// Like Linux's droppable memory, vdso and vvar.
static SPECIAL: MemType = MemType {
    name: "special",
    class: Class::Special,
    ..FILE
};

fn registered(pages: u64, modes: Modes) -> (World, Uffd, VirtRange) {
    registered_with(pages, modes, Features::WP_ASYNC)
}

/// A world with so many pages that are there and protected.
fn protected(pages: u64) -> (World, Uffd, VirtRange) {
    let (world, uffd, range) = registered(pages, Modes::WP);
    populate(&world, range);
    assert_eq!(uffd.write_protect(range), Ok(()));
    (world, uffd, range)
}

/// Whether a store to the page would be noted.
fn is_protected(world: &World, addr: VirtAddr) -> bool {
    match world.space.entry(addr).0 {
        Entry::Leaf(leaf) => leaf.attr.flags.contains(AttrFlags::UFFD_WP),
        Entry::Absent(marker) => marker == Marker::UffdWp,
        Entry::Table(_) => false,
    }
}

fn protected_pages(world: &World, range: VirtRange) -> Vec<bool> {
    (0..range.pages())
        .map(|i| is_protected(world, page(range, i)))
        .collect()
}

#[test]
fn a_store_ends_the_protection_of_its_page_and_goes_on_without_a_message() {
    let (world, uffd, range) = protected(3);
    assert_eq!(world.store(page(range, 1) + 8, 7), Ok(()));
    assert_eq!(
        (world.load(page(range, 1)), world.load(page(range, 1) + 8)),
        (Ok(2), Ok(7))
    );
    assert_eq!(protected_pages(&world, range), [true, false, true]);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_load_leaves_the_protection() {
    let (world, uffd, range) = protected(2);
    assert_eq!(world.load(range.start), Ok(1));
    assert_eq!(protected_pages(&world, range), [true, true]);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn an_unshared_page_is_written_in_place_with_one_fault() {
    let (world, _uffd, range) = protected(1);
    let faults = world.space.fault_count();
    for value in [7, 8] {
        assert_eq!(world.store(range.start, value), Ok(()));
    }
    assert_eq!(world.space.fault_count(), faults + 1);
    assert_eq!(allocator().stats().of(Kind::Anon), 1, "no copy");
}

#[test]
fn a_store_through_a_translation_cache_is_noted_after_protecting_again() {
    let (world, uffd, range) = registered(1, Modes::WP);
    let task = world.spawn("storer", move || {
        let mut stored = 0u64;
        while uaccess::load(range.start + 8).is_ok_and(|stop| stop == 0) {
            stored += 1;
            uaccess::store(range.start, stored).expect("mapped");
        }
    });
    for _ in 0..20 {
        eventually("it stores", || {
            let entry = world.space.entry(range.start).0;
            entry.is_leaf() && !is_protected(&world, range.start)
        });
        assert_eq!(uffd.write_protect(range), Ok(()));
    }
    eventually("it stores", || !is_protected(&world, range.start));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(world.store(range.start + 8, 1), Ok(()));
    returned(task);
}

#[test]
fn empty_pages_get_markers_although_wp_unpopulated_was_not_asked_for() {
    let (world, uffd, range) = registered(3, Modes::WP);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(protected_pages(&world, range), [true; 3]);
    assert_eq!(world.store(page(range, 1), 5), Ok(()));
    assert_eq!(protected_pages(&world, range), [true, false, true]);
    assert_eq!(world.load(page(range, 1)), Ok(5));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_load_of_a_marker_maps_zeros_that_stay_protected_until_a_store_copies_them() {
    let (world, uffd, range) = registered(1, Modes::WP);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(
        (
            is_protected(&world, range.start),
            allocator().stats().of(Kind::Anon)
        ),
        (true, 0)
    );
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(
        (
            is_protected(&world, range.start),
            allocator().stats().of(Kind::Anon)
        ),
        (false, 1)
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn it_applies_to_every_area_of_the_context_and_to_no_other_context() {
    let (world, uffd, range) = protected(1);
    let second = world.map(1, RW);
    assert!(uffd.register(second, Modes::WP).is_ok());
    assert_eq!(uffd.write_protect(second), Ok(()));
    assert_eq!(world.store(second.start, 3), Ok(()));

    let other = Uffd::new(&world.space, Features::empty());
    let third = world.map(1, RW);
    assert!(other.register(third, Modes::WP).is_ok());
    assert_eq!(world.store(third.start, 1), Ok(()));
    // Who protects does not matter: the context that the area belongs to decides.
    assert_eq!(uffd.write_protect(third), Ok(()));
    assert_eq!(other.write_protect(range), Ok(()));
    let task = world.spawn_store(third.start, 4);
    until_it_waits(task.task());
    assert_eq!(other.try_read_event(), write_protected(third.start));
    assert_eq!(world.store(range.start, 5), Ok(()));
    assert_eq!(other.remove_write_protection(third, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn missing_pages_of_the_same_context_are_still_messages() {
    let (world, uffd, range) = registered(2, BOTH);
    let task = world.spawn_store(range.start, 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    assert_eq!(
        uffd.copy(range.start, &source(5, 1), P, FillMode::WP),
        Outcome::Done
    );
    assert_eq!(returned(task), Ok(()), "the protection raises no second message");
    assert_eq!(
        (world.load(range.start), is_protected(&world, range.start)),
        (Ok(7), false)
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn with_both_modes_a_store_to_a_marker_is_a_missing_message() {
    let (world, uffd, range) = registered(1, BOTH);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let waiter = world.stuck_storing_at(range.start);
    assert_eq!(uffd.try_read_event(), missing(range.start, true));
    assert_eq!(uffd.copy(range.start, &source(5, 1), P, NOW), Outcome::Done);
    assert!(was_woken(&waiter));
    assert_eq!(world.load(range.start), Ok(word(5)));
    assert!(
        !is_protected(&world, range.start),
        "a fill without the mode drops it"
    );
}

#[test]
fn a_forbidden_store_is_not_noted() {
    let (world, uffd, range) = protected(1);
    world.space.protect(range, Prot::READ).expect("mapped");
    assert_eq!(world.store(range.start, 9), Err(FaultError::Forbidden));
    assert!(is_protected(&world, range.start));
    world.space.protect(range, RW).expect("mapped");
    assert!(is_protected(&world, range.start));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert!(!is_protected(&world, range.start));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn an_access_by_the_kernel_is_noted_like_a_tasks_own() {
    let (world, uffd, range) = protected(2);
    world.run(|| {
        uaccess::on_behalf(|| uaccess::write(range.start, &[1; 16])).expect("mapped");
        uaccess::without_waiting(|| uaccess::write(page(range, 1), &[1; 16])).expect("mapped");
    });
    assert_eq!(protected_pages(&world, range), [false, false]);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn unregistering_and_closing_drop_the_protection() {
    for close in [false, true] {
        let (world, uffd, range) = registered(4, Modes::WP);
        populate(&world, part(range, 0, 2));
        assert_eq!(uffd.write_protect(range), Ok(()));
        if close {
            drop(uffd);
        } else {
            assert_eq!(uffd.unregister(range), Ok(()));
        }
        assert_eq!(protected_pages(&world, range), [false; 4]);
        assert_eq!(
            (world.load(range.start), world.load(page(range, 1))),
            (Ok(1), Ok(2))
        );
    }
}

#[test]
fn memory_that_cannot_be_registered_otherwise_can_be_for_wp_alone() {
    let world = World::new();
    let file = world.map_type(&FILE, None, 2, RW);
    let anon = world.map_at(Some(file.start - P), 1, RW);
    let all = VirtRange::new(anon.start, file.end);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    for modes in (1..8).filter(|modes| *modes != 2).map(Modes::from_bits_truncate) {
        assert_eq!(
            uffd.register(file, modes),
            Err(RegisterError::Unsupported),
            "{modes:?}"
        );
    }
    assert_eq!(uffd.register(file, Modes::WP), Ok(OpSet::WRITEPROTECT));
    assert_eq!(uffd.register(all, Modes::WP), Ok(OpSet::WRITEPROTECT));
    assert!(uffd.register(anon, BOTH).is_ok());
    assert_eq!(linux::register(RegisterError::Unsupported).number(), 22);
}

#[test]
fn without_the_feature_such_memory_cannot_be_registered_at_all() {
    let world = World::new();
    let file = world.map_type(&FILE, None, 1, RW);
    for features in [Features::empty(), Features::all() - Features::WP_ASYNC] {
        let uffd = Uffd::new(&world.space, features);
        assert_eq!(uffd.register(file, Modes::WP), Err(RegisterError::Unsupported));
    }
}

#[test]
fn special_mappings_cannot_be_registered_in_any_mode() {
    let world = World::new();
    let special = world.map_type(&SPECIAL, None, 1, RW);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    for modes in (1..8).map(Modes::from_bits_truncate) {
        assert_eq!(
            uffd.register(special, modes),
            Err(RegisterError::Unsupported),
            "{modes:?}"
        );
    }
}

#[test]
fn such_memory_is_protected_and_tracked_and_every_fill_of_it_is_einval() {
    let world = World::new();
    let file = world.map_type(&FILE, None, 3, RW);
    populate(&world, part(file, 0, 2));
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(file, Modes::WP).is_ok());
    assert_eq!(uffd.write_protect(file), Ok(()));
    assert_eq!(protected_pages(&world, file), [true; 3], "markers, too");
    assert_eq!(world.store(file.start, 9), Ok(()));
    assert_eq!(world.store(page(file, 2), 9), Ok(()));
    assert_eq!(protected_pages(&world, file), [false, true, false]);
    let outcomes = [
        uffd.copy(file.start, &source(1, 1), P, NOW),
        uffd.zeropage(part(file, 0, 1), NOW),
        uffd.poison(part(file, 0, 1), NOW),
    ];
    for outcome in outcomes {
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Unsupported), (Some(22), Some(-22)))
        );
    }
    assert_eq!(uffd.remove_write_protection(file, NOW), Ok(()));
    assert_eq!(protected_pages(&world, file), [false; 3]);
}

#[test]
fn such_memory_can_be_unregistered_once() {
    let world = World::new();
    let file = world.map_type(&FILE, None, 1, RW);
    populate(&world, file);
    let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
    assert!(uffd.register(file, Modes::WP).is_ok());
    assert_eq!(uffd.write_protect(file), Ok(()));
    assert_eq!(uffd.unregister(file), Ok(()));
    assert!(!is_protected(&world, file.start));
    assert_eq!(uffd.unregister(file), Err(UnregisterError::Unsupported));
}

#[test]
fn stores_to_objects_are_noted_for_the_mapping_that_makes_them() {
    for ty in [&SHMEM, &HUGETLB] {
        let world = object_world();
        let pages = ty.granule().size() / P;
        let object = Object::new(ty, pages * P);
        let [range, alias] = [(); 2].map(|()| world.map_memory(Memory::shared(&object), None, pages, RW));
        let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
        assert!(uffd.register(range, Modes::WP).is_ok());
        assert_eq!(uffd.write_protect(range), Ok(()));
        assert!(is_protected(&world, range.start), "a marker");
        assert_eq!(world.store(alias.start, 5), Ok(()));
        assert_eq!(world.load(range.start), Ok(5));
        assert!(is_protected(&world, range.start), "still, now a page");
        assert_eq!(world.store(range.start, 6), Ok(()));
        assert!(!is_protected(&world, range.start));
        assert_eq!(world.load(alias.start), Ok(6));
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn a_store_to_a_marker_of_an_object_takes_one_fault() {
    for sharing in [Memory::shared, Memory::private] {
        let world = object_world();
        let object = Object::new(&SHMEM, P);
        let range = world.map_memory(sharing(&object), None, 1, RW);
        let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
        assert!(uffd.register(range, Modes::WP).is_ok());
        assert_eq!(uffd.write_protect(range), Ok(()));
        let faults = world.space.fault_count();
        assert_eq!(world.store(range.start, 5), Ok(()));
        assert_eq!(world.space.fault_count(), faults + 1);
        assert!(!is_protected(&world, range.start));
        assert_eq!(uffd.try_read_event(), NOTHING);
    }
}

#[test]
fn guest_memory_can_be_registered_for_wp_alone_too() {
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_WRITTEN] {
        let world = object_world();
        let object = Object::new(ty, P);
        let range = world.map_memory(Memory::shared(&object), None, 1, RW);
        let plain = Uffd::new(&world.space, Features::empty());
        assert_eq!(plain.register(range, Modes::WP), Err(RegisterError::Unsupported));
        let uffd = Uffd::new(&world.space, Features::WP_ASYNC);
        assert_eq!(uffd.register(range, Modes::WP), Ok(OpSet::WRITEPROTECT));
        assert_eq!(uffd.write_protect(range), Ok(()));
        assert_eq!(world.store(range.start, 1), Ok(()));
        assert!(!is_protected(&world, range.start));
    }
}

#[test]
fn a_store_to_a_page_that_a_fork_shares_is_noted_and_copied() {
    let (world, uffd, range) = registered(1, Modes::WP);
    populate(&world, range);
    let child = world.space.fork().expect("RAM is plenty");
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert!(!is_protected(&world, range.start));
    let mut childs = [0; 8];
    assert_eq!(child.read_bytes(range.start, &mut childs, Origin::Kernel), Ok(()));
    assert_eq!(u64::from_ne_bytes(childs), 1);
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn protection_that_a_registration_left_behind_stays_and_stops_nobody() {
    let (world, uffd, range) = registered_with(1, Modes::WP, Features::empty());
    populate(&world, range);
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert!(
        uffd.register(range, Modes::MISSING).is_ok(),
        "replaces the mode and leaves the bits"
    );
    assert!(is_protected(&world, range.start));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert!(is_protected(&world, range.start));
    assert!(uffd.register(range, Modes::WP).is_ok());
    assert_eq!(
        world.store(range.start, 10),
        Ok(()),
        "the page may be written by now"
    );
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let storer = world.stuck_storing_at(range.start);
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    storer.kill();
}

#[test]
fn protection_that_a_registration_left_behind_goes_when_its_page_is_copied() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::empty());
    // The shared page of zeros, and a page that a fork shares.
    assert_eq!(world.load(page(range, 0)), Ok(0));
    assert_eq!(world.store(page(range, 1), 1), Ok(()));
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert!(uffd.register(range, Modes::MISSING).is_ok());
    let child = world.space.fork().expect("RAM is plenty");
    for at in [page(range, 0), page(range, 1)] {
        assert!(is_protected(&world, at));
        assert_eq!(world.store(at, 9), Ok(()));
        assert!(!is_protected(&world, at));
    }
    drop(child);
}
