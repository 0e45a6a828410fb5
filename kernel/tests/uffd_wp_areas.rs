//! Write protection of anonymous memory across areas and contexts, row by row as Linux has it (checked there on
//! 6.18): where it is registered, what it covers, and pages that are not there. Each test is named after what it claims.

mod common;

use common::{
    Giver, RW, World, missing, object_world, page, part, populate, registered_with, returned, source,
    until_it_waits, was_woken, word, write_protected,
};
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::Granule;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{PageRun, ScanRequest};
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, OpSet, Outcome, ReadError, Refusal, RegisterError, Uffd,
    WriteProtectError, linux,
};

const P: u64 = PAGE_SIZE;
const NOW: FillMode = FillMode::empty();
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);
const NOENT: Result<(), WriteProtectError> = Err(WriteProtectError::NotRegistered);

/// A world with so many protected pages that are not there.
fn marked(pages: u64, modes: Modes) -> (World, Uffd, VirtRange) {
    let (world, uffd, range) = registered_with(pages, modes, Features::WP_UNPOPULATED);
    assert_eq!(uffd.write_protect(range), Ok(()));
    (world, uffd, range)
}

// What registering does.

#[test]
fn write_protection_is_offered_where_it_is_registered_and_poison_everywhere() {
    let world = World::new();
    let rows = [(Modes::MISSING, false), (Modes::WP, true), (BOTH, true)];
    for (modes, offered) in rows {
        for prot in [RW, Prot::READ, Prot::empty()] {
            let range = world.map(1, prot);
            let uffd = Uffd::new(&world.space, Features::empty());
            let ops = uffd.register(range, modes).expect("anonymous memory can");
            assert_eq!(ops.contains(OpSet::WRITEPROTECT), offered, "{modes:?} {prot:?}");
            assert!(ops.contains(OpSet::COPY | OpSet::ZEROPAGE | OpSet::POISON));
            assert!(!ops.contains(OpSet::CONTINUE));
        }
    }
}

#[test]
fn minor_beside_write_protection_is_einval_on_anonymous_memory() {
    let world = World::new();
    let range = world.map(1, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    for modes in [Modes::MINOR | Modes::WP, Modes::all()] {
        assert_eq!(uffd.register(range, modes), Err(RegisterError::Unsupported));
    }
    assert_eq!(world.modes_at(range.start), None);
}

#[test]
fn registering_protects_nothing_and_absent_pages_are_zero_filled_without_a_message() {
    let world = World::new();
    let range = world.map(3, RW);
    populate(&world, part(range, 0, 1));
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(range, Modes::WP).expect("anonymous memory can");
    assert_eq!(world.store(range.start, 5), Ok(()));
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(world.store(page(range, 1), 5), Ok(()));
    assert_eq!(world.store(page(range, 2), 5), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

// Pages that are not there.

#[test]
fn absent_pages_are_not_protected_unless_that_was_asked_for() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::empty());
    assert_eq!(uffd.write_protect(range), Ok(()));
    assert_eq!(world.store(range.start, 5), Ok(()));
    assert_eq!(world.load(page(range, 1)), Ok(0));
    assert_eq!(world.store(page(range, 1), 5), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_store_to_a_protected_absent_page_is_a_write_protect_fault_without_missing() {
    let (world, uffd, range) = marked(2, Modes::WP);
    let task = world.spawn_store(page(range, 1), 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), write_protected(page(range, 1)));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
    assert_eq!(world.store(range.start, 8), Ok(()), "the marker is gone");
}

#[test]
fn a_load_of_a_protected_absent_page_maps_zeros_that_stay_protected() {
    let (world, uffd, range) = marked(1, Modes::WP);
    assert_eq!(world.load(range.start), Ok(0));
    assert_eq!(uffd.try_read_event(), NOTHING);
    let task = world.spawn_store(range.start, 7);
    until_it_waits(task.task());
    assert_eq!(uffd.try_read_event(), write_protected(range.start));
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert_eq!(returned(task), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn a_protected_absent_page_is_missing_first_where_both_are_registered() {
    let (world, uffd, range) = marked(2, BOTH);
    let tasks = [
        world.spawn("storer", move || uaccess::store(range.start, 7)),
        world.spawn("loader", move || uaccess::load(page(range, 1)).map(drop)),
    ];
    tasks.iter().for_each(|task| until_it_waits(task.task()));
    let mut seen = [uffd.try_read_event(), uffd.try_read_event()];
    seen.sort_by_key(|event| *event != missing(range.start, true));
    assert_eq!(seen, [missing(range.start, true), missing(page(range, 1), false)]);
    // Filling without the flag drops the protection.
    assert_eq!(uffd.copy(range.start, &source(5, 2), 2 * P, NOW), Outcome::Done);
    for task in tasks {
        assert_eq!(returned(task), Ok(()));
    }
    assert_eq!(world.store(page(range, 1), 7), Ok(()));
    assert_eq!(uffd.try_read_event(), NOTHING);
}

#[test]
fn copy_goes_over_write_protect_markers_and_keeps_protection_only_when_asked() {
    for (mode, clean) in [(NOW, true), (FillMode::WP, false)] {
        let (world, uffd, range) = marked(20, Modes::WP);
        assert_eq!(
            uffd.copy(range.start, &source(1, 20), 20 * P, mode),
            Outcome::Done
        );
        assert_eq!(world.load(page(range, 19)), Ok(word(20)));
        if clean {
            assert_eq!(world.store(page(range, 19), 1), Ok(()));
        } else {
            let _waiter = world.stuck_storing_at(page(range, 19));
            uffd.close();
        }
    }
}

#[test]
fn zeropage_over_a_write_protect_marker_is_eexist() {
    let (world, uffd, range) = marked(2, Modes::WP);
    assert_eq!(
        uffd.zeropage(part(range, 0, 1), NOW),
        Outcome::Refused(Refusal::Exists)
    );
    assert_eq!(uffd.zeropage(range, NOW), Outcome::Refused(Refusal::Exists));
    let _waiter = world.stuck_storing_at(range.start);
    uffd.close();
}

#[test]
fn no_frame_for_markers_is_enomem_and_what_is_there_is_protected_all_the_same() {
    // A fresh space needs three nodes for its first page.
    for successes in 0..3 {
        let (world, uffd, range) = registered_with(2, Modes::WP, Features::WP_UNPOPULATED);
        let tables = allocator().stats().of(Kind::Table);
        allocator().inject_failure(successes);
        let result = uffd.write_protect(range);
        allocator().stop_injection();
        assert_eq!(result, Err(WriteProtectError::OutOfMemory), "after {successes}");
        assert_eq!(linux::write_protect(WriteProtectError::OutOfMemory).number(), 12);
        assert!(allocator().stats().of(Kind::Table) <= tables + successes);
        assert_eq!(world.store(range.start, 1), Ok(()), "nothing was marked");
        assert_eq!(uffd.write_protect(range), Ok(()));
        let _waiters = [
            world.stuck_storing_at(range.start),
            world.stuck_storing_at(page(range, 1)),
        ];
        assert_eq!(allocator().stats().of(Kind::Anon), 2, "a page each");
        uffd.close();
    }
    // The second node of entries is the one that fails.
    let (world, uffd, range) = registered_with(1024, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 1));
    allocator().inject_failure(0);
    let result = uffd.write_protect(range);
    allocator().stop_injection();
    assert_eq!(result, Err(WriteProtectError::OutOfMemory));
    let _waiter = world.stuck_storing_at(range.start);
    assert_eq!(uffd.write_protect(range), Ok(()));
    let _waiter = world.stuck_storing_at(page(range, 1023));
    uffd.close();
}

#[test]
fn removing_protection_takes_no_frame() {
    let (world, uffd, range) = marked(2, Modes::WP);
    let plain = world.map(1024, RW);
    uffd.register(plain, Modes::WP).expect("anonymous memory can");
    allocator().inject_failure(0);
    let results = [range, plain].map(|range| uffd.remove_write_protection(range, NOW));
    allocator().stop_injection();
    assert_eq!(results, [Ok(()), Ok(())]);
    assert_eq!(world.store(range.start, 1), Ok(()));
}

// Areas, holes and contexts.

#[test]
fn nothing_mapped_is_enoent_for_both() {
    let (world, uffd, range) = registered_with(2, Modes::WP, Features::empty());
    world.space.unmap(range).expect("mapped");
    assert_eq!(uffd.write_protect(range), NOENT);
    assert_eq!(uffd.remove_write_protection(range, NOW), NOENT);
    assert_eq!(linux::write_protect(WriteProtectError::NotRegistered).number(), 2);
}

#[test]
fn memory_that_is_not_registered_or_only_for_missing_pages_is_enoent() {
    let (world, uffd, _) = registered_with(1, Modes::WP, Features::empty());
    let plain = world.map(1, Prot::READ);
    let only_missing = world.map(1, RW);
    uffd.register(only_missing, Modes::MISSING)
        .expect("anonymous memory can");
    for range in [plain, only_missing] {
        assert_eq!(uffd.write_protect(range), NOENT);
        assert_eq!(uffd.remove_write_protection(range, NOW), NOENT);
    }
}

#[test]
fn areas_before_the_one_that_fails_are_protected_and_those_behind_are_not() {
    let (world, uffd, range) = registered_with(6, Modes::WP, Features::empty());
    populate(&world, range);
    uffd.unregister(part(range, 2, 2)).expect("ours");
    assert_eq!(uffd.write_protect(range), NOENT);
    let waiter = world.stuck_storing_at(page(range, 1));
    assert_eq!(world.store(page(range, 2), 9), Ok(()));
    assert_eq!(world.store(page(range, 4), 9), Ok(()));
    assert_eq!(uffd.write_protect(part(range, 4, 2)), Ok(()));
    assert_eq!(uffd.remove_write_protection(range, NOW), NOENT);
    assert_eq!(
        world.store(range.start, 9),
        Ok(()),
        "the first area is free again"
    );
    let last = world.stuck_storing_at(page(range, 5));
    assert!(!was_woken(&waiter), "a removal that fails wakes nobody");
    uffd.close();
    assert!(was_woken(&waiter) && was_woken(&last));
}

#[test]
fn holes_between_areas_and_before_them_are_skipped() {
    let (world, uffd, range) = registered_with(6, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, range);
    world.space.unmap(part(range, 0, 1)).expect("mapped");
    world.space.unmap(part(range, 2, 2)).expect("mapped");
    assert_eq!(uffd.write_protect(range), Ok(()));
    let waiters = [1, 4, 5].map(|i| world.stuck_storing_at(page(range, i)));
    assert_eq!(world.store(page(range, 2), 1), Err(FaultError::Unmapped));
    let again = world.map_at(Some(page(range, 2)), 2, RW);
    assert_eq!(
        world.store(again.start, 1),
        Ok(()),
        "no marker was left in the hole"
    );
    world.space.unmap(again).expect("mapped");
    assert_eq!(uffd.remove_write_protection(range, NOW), Ok(()));
    assert!(waiters.iter().all(|waiter| was_woken(waiter)));
}

#[test]
fn only_the_pages_of_the_range_are_protected() {
    let (world, uffd, range) = registered_with(5, Modes::WP, Features::WP_UNPOPULATED);
    populate(&world, part(range, 0, 3));
    assert_eq!(uffd.write_protect(part(range, 1, 3)), Ok(()));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(world.store(page(range, 4), 9), Ok(()));
    assert_eq!(uffd.remove_write_protection(part(range, 2, 1), NOW), Ok(()));
    assert_eq!(world.store(page(range, 2), 9), Ok(()));
    let _waiters = [1, 3].map(|i| world.stuck_storing_at(page(range, i)));
    uffd.close();
}

#[test]
fn another_context_of_the_space_may_protect_but_faults_and_wakes_are_the_owners() {
    let (world, owner, range) = registered_with(1, Modes::WP, Features::empty());
    populate(&world, range);
    let other = Uffd::new(&world.space, Features::empty());
    assert_eq!(other.write_protect(range), Ok(()));
    let waiter = world.stuck_storing_at(range.start);
    assert_eq!(other.try_read_event(), NOTHING);
    assert_eq!(owner.try_read_event(), write_protected(range.start));
    assert_eq!(other.remove_write_protection(range, NOW), Ok(()));
    assert!(!was_woken(&waiter));
    assert_eq!(world.store(range.start, 9), Ok(()));
    assert_eq!(owner.wake(range), Ok(()));
    assert!(was_woken(&waiter));
}

// Not run on Linux; so its sources say (userfaultfd_wp_unpopulated looks at the area's context).
#[test]
fn whether_absent_pages_are_covered_is_the_choice_of_the_context_that_owns_them() {
    let choices = [Features::empty(), Features::WP_UNPOPULATED];
    for (own, others) in [(choices[0], choices[1]), (choices[1], choices[0])] {
        let (world, owner, range) = registered_with(1, Modes::WP, own);
        let other = Uffd::new(&world.space, others);
        assert_eq!(other.write_protect(range), Ok(()));
        if own.is_empty() {
            assert_eq!(world.store(range.start, 9), Ok(()));
        } else {
            let _waiter = world.stuck_storing_at(range.start);
            owner.close();
        }
    }
}

/// The start and the length of the whole range count, not those of the part in huge pages.
#[test]
fn a_range_that_ends_in_huge_pages_must_begin_at_a_multiple_of_their_size() {
    let world = object_world();
    let size = Granule::Huge.size();
    let start = VirtAddr::new(1 << 30);
    let small = world.map_at(Some(start), size / P, RW);
    let huge = world.map_type(&HUGETLB, Some(small.end), size / P, RW);
    assert_eq!(huge.start, small.end);
    for addr in [small.start, page(small, 1), page(small, 511), huge.start] {
        assert_eq!(world.store(addr, 1), Ok(()));
    }
    let uffd = Uffd::new(&world.space, Features::empty());
    for range in [small, huge] {
        uffd.register(range, Modes::WP).expect("both can");
    }
    let protected = |addr| match world.space.entry(addr).0 {
        Entry::Leaf(leaf) => leaf.attr.flags.contains(AttrFlags::UFFD_WP),
        entry => panic!("{entry:?}"),
    };
    let seen = || [small.start, page(small, 1), page(small, 511), huge.start].map(protected);
    // What lies before the huge pages changes; they do not.
    let cut = VirtRange::new(page(small, 1), huge.end);
    assert_eq!(uffd.write_protect(cut), Err(WriteProtectError::Misaligned));
    assert_eq!(seen(), [false, true, true, false]);
    assert_eq!(
        uffd.remove_write_protection(cut, NOW),
        Err(WriteProtectError::Misaligned)
    );
    assert_eq!(seen(), [false; 4]);
    let whole = VirtRange::new(small.start, huge.end);
    assert_eq!(uffd.write_protect(whole), Ok(()));
    assert_eq!(seen(), [true; 4]);
}

/// The nodes for what absent pages remember are made with memory that somebody gives back, wherever they are missing.
#[test]
fn markers_for_absent_pages_ask_for_memory_back_and_go_on_where_it_ended() {
    let tracked = Features::WP_UNPOPULATED | Features::WP_ASYNC;
    type Marks = fn(&World, &Uffd, VirtRange) -> bool;
    let operations: [(&str, Marks); 3] = [
        ("write protection", |_, uffd, range| {
            uffd.write_protect(range).is_ok()
        }),
        ("guards", |world, _, range| {
            world.space.install_guards(range).is_ok()
        }),
        ("scan", |world, _, range| {
            let mut out = [PageRun::EMPTY; 2];
            let done = world.space.scan(&ScanRequest::collect_written(range), &mut out);
            done.is_ok_and(|scanned| scanned.runs == 1 && scanned.end == range.end && out[0].range == range)
        }),
    ];
    for (name, operation) in operations {
        for failing in 0..5 {
            // Three nodes of pages, and the way to them.
            let (world, uffd, range) = registered_with(1200, Modes::WP, tracked);
            allocator().inject_failure(failing);
            assert!(!operation(&world, &uffd, range), "{name}: nobody gives any");
            allocator().stop_injection();
            drop((uffd, world));
            let (world, uffd, range) = registered_with(1200, Modes::WP, tracked);
            let giver = Giver::register();
            allocator().inject_failure(failing);
            assert!(operation(&world, &uffd, range), "{name}, {failing}");
            allocator().stop_injection();
            assert_eq!(giver.asked(), 1, "{name}, {failing}");
            for i in 0..range.pages() {
                let entry = world.space.entry(page(range, i)).0;
                assert!(
                    matches!(entry, Entry::Absent(marker) if marker != Marker::None),
                    "{name}: page {i}"
                );
            }
        }
    }
}
