//! MOVE, row by row as Linux has it (checked there on 6.18). Each test is named after what it claims.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{
    RW, World, answer, eventually, missing, object_world, page, part, populate, registered_with, returned,
    source, until_it_waits, was_woken, word, write_protected,
};
use kernel::arch::host::{Mode, SoftMachine};
use kernel::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::fault::{Access, FaultError};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::memtype::{Granule, MemType};
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{Immovable, MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess;
use kernel::uffd::{
    Event, Features, FillMode, Modes, MoveMode, OpSet, Outcome, RangeError, ReadError, Refusal, Uffd,
};

const P: u64 = PAGE_SIZE;
const NOW: MoveMode = MoveMode::empty();
const HOLES: MoveMode = MoveMode::ALLOW_SRC_HOLES;
const BOTH: Modes = Modes::MISSING.union(Modes::WP);
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// A registered destination with nothing in it, and a source that is not registered, far away from it.
struct Bed {
    dst: VirtRange,
    src: VirtRange,
    uffd: Uffd,
    world: World,
}

impl Bed {
    fn new(pages: u64) -> Self {
        Self::with(pages, Modes::MISSING)
    }

    fn with(pages: u64, modes: Modes) -> Self {
        let world = World::new();
        let dst = world.map_at(Some(VirtAddr::new(0x5000_0000_0000)), pages, RW);
        let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), pages, RW);
        let uffd = Uffd::new(&world.space, Features::WP_UNPOPULATED);
        uffd.register(dst, modes).expect("anonymous memory can");
        Self {
            dst,
            src,
            uffd,
            world,
        }
    }

    /// The same, with words 1, 2, ... in the pages of the source.
    fn full(pages: u64) -> Self {
        let bed = Self::new(pages);
        populate(&bed.world, bed.src);
        bed
    }

    /// Moves `pages` pages from page `from` of the source to page `to` of the destination.
    fn move_pages(&self, to: u64, from: u64, pages: u64, mode: MoveMode) -> Outcome {
        self.move_at(page(self.dst, to), page(self.src, from), pages * P, mode)
    }

    fn move_at(&self, dst: VirtAddr, src: VirtAddr, len: u64, mode: MoveMode) -> Outcome {
        self.uffd.move_pages(&self.world.space, dst, src, len, mode)
    }

    fn entry(&self, addr: VirtAddr) -> Entry {
        self.world.space.entry(addr).0
    }

    /// Moves a page there and back, which tells whether pages move between the two.
    fn assert_movable(&self) {
        self.world
            .run(|| uaccess::store(self.src.start, 5).expect("mapped"));
        assert_eq!(self.move_pages(0, 0, 1, NOW), Outcome::Done);
        assert_eq!(self.world.load(self.dst.start), Ok(5));
    }

    #[track_caller]
    fn assert_immovable(&self, why: Immovable) {
        let outcome = self.move_pages(0, 0, 1, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Immovable(why)), (Some(22), Some(-22)))
        );
    }
}

fn anon_frames() -> u64 {
    allocator().stats().of(Kind::Anon)
}

fn map_type(world: &World, ty: &'static MemType, len: u64) -> VirtRange {
    map_memory(world, Memory::Own(ty), len)
}

fn map_memory(world: &World, memory: Memory, len: u64) -> VirtRange {
    let request = MapRequest {
        at: None,
        len,
        prot: RW,
        memory,
    };
    world.space.map(request).expect("there is room")
}

#[test]
fn a_missing_page_is_resolved_by_moving_one_there() {
    let bed = Bed::full(2);
    let task = bed.world.spawn_load(page(bed.dst, 1) + 8);
    until_it_waits(task.task());
    assert_eq!(bed.uffd.try_read_event(), missing(page(bed.dst, 1), false));
    bed.world
        .run(|| uaccess::store(page(bed.src, 1) + 8, 77).expect("mapped"));
    assert_eq!(bed.move_pages(1, 1, 1, NOW), Outcome::Done);
    assert_eq!(returned(task), Ok(77));
    assert_eq!(bed.world.load(page(bed.dst, 1)), Ok(2));
}

#[test]
fn what_is_left_behind_is_empty_and_reads_as_zeros() {
    let bed = Bed::full(2);
    let frame = bed.entry(bed.src.start);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY);
    let (Entry::Leaf(old), Entry::Leaf(new)) = (frame, bed.entry(bed.dst.start)) else {
        panic!("{frame:?} moved");
    };
    assert_eq!(old.frame, new.frame, "the very page");
    assert_eq!(anon_frames(), 2, "no copy");
    assert_eq!(bed.world.load(bed.src.start), Ok(0));
    assert_eq!(bed.world.load(page(bed.src, 1)), Ok(2), "its neighbour stays");
}

#[test]
fn a_registered_source_faults_as_missing_afterwards() {
    let bed = Bed::full(1);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let waiter = bed.world.stuck_at(bed.src.start);
    assert_eq!(bed.uffd.try_read_event(), missing(bed.src.start, false));
    assert_eq!(bed.uffd.wake(bed.src), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn a_page_that_arrived_is_written_without_a_fault() {
    let bed = Bed::full(1);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let faults = bed.world.space.fault_count();
    assert_eq!(bed.world.store(bed.dst.start, 8), Ok(()));
    assert_eq!(bed.world.space.fault_count(), faults);
}

// The order of the checks.

#[test]
fn a_caller_from_another_space_is_einval_before_everything_else_and_leaves_the_field_untouched() {
    let bed = Bed::full(1);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    for (len, mode) in [(P, NOW), (5, NOW), (P, MoveMode::from_bits_retain(4))] {
        let outcome = bed
            .uffd
            .move_pages(&other, bed.dst.start, bed.src.start, len, mode);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::ForeignSpace), (Some(22), None))
        );
    }
    assert_eq!(bed.world.load(bed.src.start), Ok(1));
}

#[test]
fn an_outstanding_event_is_eagain_even_before_the_caller_is_looked_at() {
    let world = World::new();
    let (dst, src) = (world.map(2, RW), world.map(2, RW));
    let uffd = Uffd::new(&world.space, Features::EVENT_UNMAP);
    uffd.register(dst, Modes::MISSING).expect("anonymous memory can");
    populate(&world, src);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let space = Arc::clone(&world.space);
    let unmapper = world.spawn("unmapper", move || space.unmap(part(dst, 1, 1)));
    eventually("it waits for its event to be read", || {
        unmapper.task().event.is_queued()
    });
    for (caller, len) in [(&world.space, P), (&other, P), (&world.space, 7)] {
        let outcome = uffd.move_pages(caller, dst.start, src.start, len, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::Changing), (Some(11), Some(-11)))
        );
    }
    assert_eq!(
        uffd.try_read_event(),
        Ok(Event::Unmap {
            range: part(dst, 1, 1)
        })
    );
    assert_eq!(returned(unmapper), Ok(()));
    let outcome = uffd.move_pages(&world.space, dst.start, src.start, P, NOW);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn a_target_that_is_gone_is_einval_because_whoever_asks_lives_elsewhere() {
    let Bed {
        dst,
        src,
        uffd,
        world,
    } = Bed::new(1);
    let World { space, machine } = world;
    drop(space);
    let other = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let outcome = uffd.move_pages(&other, dst.start, src.start, P, NOW);
    assert_eq!(
        (outcome, answer(outcome, P)),
        (Outcome::Refused(Refusal::ForeignSpace), (Some(22), None))
    );
    drop((other, machine));
}

#[test]
fn bad_ranges_then_a_bad_mode_are_einval_and_leave_the_field_untouched() {
    let bed = Bed::full(2);
    let (dst, src) = (bed.dst.start, bed.src.start);
    let odd = MoveMode::from_bits_retain(4);
    let into = |why| Refusal::Range(why);
    let from = |why| Refusal::SourceRange(why);
    let rows = [
        (dst + 1, src + 1, P, odd, into(RangeError::Unaligned)),
        (dst, src + 1, 0, odd, into(RangeError::Empty)),
        (dst, src, P + 1, odd, into(RangeError::Unaligned)),
        (USER_TOP, src + 1, P, odd, into(RangeError::BeyondTop)),
        (dst, src, u64::MAX - P + 1, odd, into(RangeError::BeyondTop)),
        (dst, src + 1, P, odd, from(RangeError::Unaligned)),
        (dst, USER_TOP, P, odd, from(RangeError::BeyondTop)),
        (dst, USER_TOP - P, 2 * P, odd, from(RangeError::BeyondTop)),
        (dst, src, P, odd, Refusal::UnknownMode),
        (dst, src, P, MoveMode::from_bits_retain(7), Refusal::UnknownMode),
    ];
    for (dst, src, len, mode, why) in rows {
        let outcome = bed.move_at(dst, src, len, mode);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(why), (Some(22), None)),
            "{len:#x} bytes from {src:?} to {dst:?}, {mode:?}"
        );
    }
}

#[test]
fn a_destination_or_a_source_whose_start_is_not_mapped_is_enoent() {
    let bed = Bed::full(2);
    let hole = bed.world.map(2, RW);
    bed.world.space.unmap(hole).expect("mapped");
    let read_only = bed.world.map(1, Prot::READ).start;
    for (dst, src) in [
        (hole.start, bed.src.start),
        (bed.dst.start, hole.start),
        (hole.start, hole.start),
        // Before anything about the areas is asked.
        (hole.start, read_only),
        (read_only, hole.start),
        (bed.dst.start, USER_TOP - 10 * P),
    ] {
        let outcome = bed.move_at(dst, src, P, HOLES);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::NotMapped), (Some(2), Some(-2)))
        );
    }
}

#[test]
fn a_range_that_leaves_its_area_is_einval_even_if_the_next_area_could_take_it() {
    let bed = Bed::full(4);
    // The same memory, but another area: one is locked.
    assert_eq!(bed.world.space.lock(part(bed.src, 3, 1)), Ok(()));
    let past = |outcome| {
        let refused = Outcome::Refused(Refusal::Immovable(Immovable::PastEnd));
        assert_eq!((outcome, answer(outcome, P)), (refused, (Some(22), Some(-22))));
    };
    past(bed.move_pages(0, 2, 2, NOW));
    past(bed.move_pages(0, 0, 4, NOW));
    past(bed.move_pages(2, 0, 3, NOW));
    past(bed.move_at(page(bed.dst, 3), bed.src.start, 2 * P, NOW));
    assert_eq!(bed.move_pages(0, 0, 3, NOW), Outcome::Done, "what fits moves");
}

#[test]
fn areas_with_different_rights_are_einval() {
    let bed = Bed::full(1);
    for prot in [Prot::READ, RW | Prot::EXEC, Prot::empty()] {
        bed.world.space.protect(bed.src, prot).expect("mapped");
        bed.assert_immovable(Immovable::Rights);
    }
    bed.world.space.protect(bed.src, RW).expect("mapped");
    bed.assert_movable();
}

#[test]
fn areas_that_are_executable_too_are_fine_if_both_are() {
    let bed = Bed::full(1);
    for range in [bed.src, bed.dst] {
        bed.world.space.protect(range, RW | Prot::EXEC).expect("mapped");
    }
    bed.assert_movable();
}

#[test]
fn areas_that_cannot_be_written_are_einval() {
    let bed = Bed::full(1);
    for prot in [Prot::READ, Prot::READ | Prot::EXEC, Prot::empty()] {
        for range in [bed.src, bed.dst] {
            bed.world.space.protect(range, prot).expect("mapped");
        }
        bed.assert_immovable(Immovable::ReadOnly);
    }
}

#[test]
fn one_locked_area_is_einval_and_two_are_fine() {
    let bed = Bed::full(1);
    for locked in [bed.src, bed.dst] {
        assert_eq!(bed.world.space.lock(locked), Ok(()));
        bed.assert_immovable(Immovable::Locking);
        assert_eq!(bed.world.space.unlock(locked), Ok(()));
    }
    for range in [bed.src, bed.dst] {
        assert_eq!(bed.world.space.lock(range), Ok(()));
    }
    bed.assert_movable();
}

#[test]
fn a_destination_that_is_not_registered_with_this_very_context_is_einval() {
    let bed = Bed::full(2);
    let other = Uffd::new(&bed.world.space, Features::empty());
    bed.uffd.unregister(bed.dst).expect("registered");
    bed.assert_immovable(Immovable::NotOurs);
    other.register(bed.dst, BOTH).expect("anonymous memory can");
    bed.assert_immovable(Immovable::NotOurs);
    let outcome = other.move_pages(&bed.world.space, bed.dst.start, bed.src.start, P, NOW);
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn the_source_may_be_registered_with_anybody() {
    let bed = Bed::full(1);
    let other = Uffd::new(&bed.world.space, Features::empty());
    other
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
}

#[test]
fn shared_memory_is_einval_on_either_side_although_registering_it_says_otherwise_on_linux() {
    let world = object_world();
    let object = Object::new(&SHMEM, 4 * P);
    let shared = map_memory(&world, Memory::shared(&object), P);
    let private = map_memory(&world, Memory::private(&object), P);
    let plain = world.map(1, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    for range in [shared, private] {
        let ops = uffd.register(range, Modes::MISSING).expect("shared memory can");
        assert!(!ops.contains(OpSet::MOVE), "the typed interface tells the truth");
        assert_eq!(world.store(plain.start, 1), Ok(()));
    }
    assert!(
        uffd.register(plain, Modes::MISSING)
            .is_ok_and(|ops| ops.contains(OpSet::MOVE))
    );
    for (object, why) in [(shared, Immovable::Shared), (private, Immovable::Type)] {
        for (dst, src) in [(object, plain), (plain, object)] {
            let outcome = uffd.move_pages(&world.space, dst.start, src.start, P, HOLES);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::Immovable(why)), (Some(22), Some(-22)))
            );
        }
    }
}

#[test]
fn huge_pages_are_einval() {
    let world = object_world();
    let len = Granule::Huge.size();
    let (dst, src) = (map_type(&world, &HUGETLB, len), map_type(&world, &HUGETLB, len));
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(dst, Modes::MISSING).expect("huge memory can");
    for mode in [NOW, HOLES] {
        let outcome = uffd.move_pages(&world.space, dst.start, src.start, len, mode);
        assert_eq!(outcome, Outcome::Refused(Refusal::Immovable(Immovable::Type)));
    }
}

#[test]
fn a_destination_registered_for_write_protection_only_is_fine() {
    let bed = Bed::with(2, Modes::WP);
    populate(&bed.world, bed.src);
    assert_eq!(bed.move_pages(0, 0, 2, NOW), Outcome::Done);
    assert_eq!(
        bed.world.store(bed.dst.start, 9),
        Ok(()),
        "it arrives unprotected"
    );
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
    assert_eq!(bed.uffd.write_protect(bed.dst), Ok(()));
    let waiter = bed.world.stuck_storing_at(page(bed.dst, 1));
    assert_eq!(bed.uffd.try_read_event(), write_protected(page(bed.dst, 1)));
    bed.uffd.close();
    assert!(was_woken(&waiter));
}

#[test]
fn source_and_destination_may_be_one_area() {
    let (world, uffd, range) = registered_with(8, BOTH, Features::empty());
    assert_eq!(
        uffd.copy(range.start, &source(1, 2), 2 * P, FillMode::empty()),
        Outcome::Done
    );
    let outcome = uffd.move_pages(&world.space, page(range, 6), range.start, 2 * P, NOW);
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(world.load(page(range, 7)), Ok(word(2)));
    let waiter = world.stuck_at(range.start);
    assert_eq!(uffd.try_read_event(), missing(range.start, false));
    uffd.close();
    assert!(was_woken(&waiter));
}

// What a page can be like.

#[test]
fn a_populated_destination_is_eexist_and_nothing_moves() {
    let bed = Bed::full(3);
    assert_eq!(
        bed.uffd.zeropage(part(bed.dst, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(
        bed.uffd
            .copy(page(bed.dst, 1), &source(9, 1), P, FillMode::empty()),
        Outcome::Done
    );
    for to in 0..2 {
        for mode in [NOW, HOLES] {
            let outcome = bed.move_pages(to, 2, 1, mode);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::Exists), (Some(17), Some(-17)))
            );
        }
    }
    assert_eq!(bed.world.load(page(bed.src, 2)), Ok(3));
    assert_eq!(
        (bed.world.load(bed.dst.start), bed.world.load(page(bed.dst, 1))),
        (Ok(0), Ok(word(9)))
    );
}

#[test]
fn a_marker_at_the_destination_is_eexist_and_stays() {
    let bed = Bed::with(2, BOTH);
    populate(&bed.world, bed.src);
    assert_eq!(bed.uffd.write_protect(part(bed.dst, 0, 1)), Ok(()));
    assert_eq!(
        bed.uffd.poison(part(bed.dst, 1, 1), FillMode::empty()),
        Outcome::Done
    );
    for (to, marker) in [(0, Marker::UffdWp), (1, Marker::Poison)] {
        for mode in [NOW, HOLES] {
            assert_eq!(bed.move_pages(to, 0, 1, mode), Outcome::Refused(Refusal::Exists));
        }
        assert_eq!(bed.entry(page(bed.dst, to)), Entry::Absent(marker));
    }
    assert_eq!(bed.world.load(bed.src.start), Ok(1));
}

#[test]
fn an_empty_source_is_enoent() {
    let bed = Bed::new(2);
    for tables in [false, true] {
        if tables {
            assert_eq!(bed.world.store(page(bed.src, 1), 1), Ok(()));
        }
        let outcome = bed.move_pages(0, 0, 1, NOW);
        assert_eq!(
            (outcome, answer(outcome, P)),
            (Outcome::Refused(Refusal::SourceHole), (Some(2), Some(-2)))
        );
    }
}

#[test]
fn an_empty_source_is_skipped_and_counted_where_holes_are_allowed() {
    let bed = Bed::new(4);
    let moved = bed.move_pages(0, 0, 4, HOLES);
    assert_eq!(
        (moved, answer(moved, 4 * P)),
        (Outcome::Done, (None, Some(4 * P as i64)))
    );
    assert_eq!(bed.world.store(page(bed.src, 2), 3), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 4, HOLES), Outcome::Done);
    assert_eq!(bed.world.load(page(bed.dst, 2)), Ok(3));
    for hole in [0, 1, 3] {
        assert_eq!(bed.entry(page(bed.dst, hole)), Entry::EMPTY);
    }
}

#[test]
fn a_populated_destination_is_found_before_an_empty_source_unless_the_source_never_had_a_table() {
    let bed = Bed::new(2);
    assert_eq!(bed.uffd.zeropage(bed.dst, FillMode::empty()), Outcome::Done);
    assert_eq!(
        bed.move_pages(0, 0, 1, NOW),
        Outcome::Refused(Refusal::SourceHole)
    );
    assert_eq!(bed.move_pages(0, 0, 1, HOLES), Outcome::Refused(Refusal::Exists));
    assert_eq!(bed.world.store(page(bed.src, 1), 1), Ok(()));
    for mode in [NOW, HOLES] {
        assert_eq!(bed.move_pages(0, 0, 1, mode), Outcome::Refused(Refusal::Exists));
    }
}

#[test]
fn the_page_of_zeros_moves_and_is_copied_by_the_next_store() {
    let bed = Bed::new(1);
    assert_eq!(bed.world.load(bed.src.start), Ok(0));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY);
    let Entry::Leaf(leaf) = bed.entry(bed.dst.start) else {
        panic!("it is there");
    };
    assert!(leaf.attr.is_borrowed() && !leaf.prot.contains(Prot::WRITE));
    assert_eq!((bed.world.load(bed.dst.start), anon_frames()), (Ok(0), 0));
    assert_eq!(bed.world.store(bed.dst.start, 5), Ok(()));
    let other = bed.world.map(1, RW);
    assert_eq!(
        bed.world.load(other.start),
        Ok(0),
        "the shared page is still zero"
    );
}

#[test]
fn a_marker_at_the_source_is_efault_even_where_holes_are_allowed() {
    let bed = Bed::new(2);
    bed.uffd.register(bed.src, BOTH).expect("anonymous memory can");
    assert_eq!(
        bed.uffd.poison(part(bed.src, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(bed.uffd.write_protect(part(bed.src, 1, 1)), Ok(()));
    for (from, marker) in [(0, Marker::Poison), (1, Marker::UffdWp)] {
        for mode in [NOW, HOLES] {
            let outcome = bed.move_pages(0, from, 1, mode);
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::BadSource), (Some(14), Some(-14)))
            );
        }
        assert_eq!(bed.entry(page(bed.src, from)), Entry::Absent(marker));
    }
    assert_eq!(
        bed.uffd.zeropage(part(bed.dst, 0, 1), FillMode::empty()),
        Outcome::Done
    );
    assert_eq!(
        bed.move_pages(0, 0, 1, NOW),
        Outcome::Refused(Refusal::Exists),
        "seen first"
    );
}

#[test]
fn a_write_protected_page_leaves_its_protection_behind() {
    let bed = Bed::full(1);
    bed.uffd.register(bed.src, BOTH).expect("anonymous memory can");
    bed.uffd.register(bed.dst, BOTH).expect("anonymous memory can");
    assert_eq!(bed.uffd.write_protect(bed.src), Ok(()));
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    let Entry::Leaf(leaf) = bed.entry(bed.dst.start) else {
        panic!("it is there");
    };
    assert!(!leaf.attr.flags.contains(AttrFlags::UFFD_WP) && leaf.prot.contains(Prot::WRITE));
    assert_eq!(bed.entry(bed.src.start), Entry::EMPTY, "no marker stays either");
    assert_eq!(bed.world.store(bed.dst.start, 3), Ok(()));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}

// Progress and wake-ups.

#[test]
fn partial_progress_is_eagain_with_the_bytes_and_the_reason_shows_on_the_rest() {
    for (obstacle, why, errno) in [
        (4, Refusal::SourceHole, 2),
        (100, Refusal::SourceHole, 2),
        (69, Refusal::Exists, 17),
    ] {
        let bed = Bed::full(130);
        match why {
            Refusal::Exists => {
                let there = part(bed.dst, obstacle, 1);
                assert_eq!(bed.uffd.zeropage(there, FillMode::empty()), Outcome::Done);
            }
            _ => bed
                .world
                .space
                .discard(part(bed.src, obstacle, 1))
                .expect("mapped"),
        }
        let outcome = bed.move_pages(0, 0, 130, NOW);
        let bytes = obstacle * P;
        assert_eq!(outcome, Outcome::Partial { bytes, why });
        assert_eq!(answer(outcome, 130 * P), (Some(11), Some(bytes as i64)));
        let rest = bed.move_pages(obstacle, obstacle, 130 - obstacle, NOW);
        assert_eq!(
            (rest, answer(rest, P)),
            (Outcome::Refused(why), (Some(errno), Some(-errno)))
        );
        for i in 0..130 {
            let moved = i < obstacle;
            assert_eq!(
                matches!(bed.entry(page(bed.dst, i)), Entry::Leaf(_)),
                moved || (i, why) == (obstacle, Refusal::Exists)
            );
            if i != obstacle {
                let place = if moved { bed.dst } else { bed.src };
                bed.world
                    .run(|| assert_eq!(uaccess::load(page(place, i)), Ok(i + 1)));
            }
        }
    }
}

#[test]
fn only_the_waiters_of_what_was_moved_are_woken() {
    let bed = Bed::full(4);
    bed.world.space.discard(part(bed.src, 2, 1)).expect("mapped");
    let waiters: Vec<_> = (0..4)
        .map(|i| bed.world.stuck_at(page(bed.dst, i) + 100))
        .collect();
    let outcome = bed.move_pages(0, 0, 4, NOW);
    assert!(matches!(outcome, Outcome::Partial { bytes, .. } if bytes == 2 * P));
    let woken: Vec<_> = waiters.iter().map(|waiter| was_woken(waiter)).collect();
    assert_eq!(woken, [true, true, false, false]);
    bed.uffd.close();
}

#[test]
fn nobody_is_woken_where_nothing_was_done() {
    let bed = Bed::full(2);
    let waiter = bed.world.stuck_at(bed.dst.start);
    assert_eq!(
        bed.uffd.copy(bed.dst.start, &source(1, 1), P, FillMode::DONTWAKE),
        Outcome::Done
    );
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Refused(Refusal::Exists));
    assert!(!was_woken(&waiter));
    assert_eq!(bed.uffd.wake(bed.dst), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn waiters_of_a_hole_that_counts_as_moved_are_woken_and_may_ask_again() {
    let bed = Bed::new(1);
    let task = bed.world.spawn_load(bed.dst.start);
    until_it_waits(task.task());
    assert_eq!(bed.uffd.try_read_event(), missing(bed.dst.start, false));
    assert_eq!(bed.move_pages(0, 0, 1, HOLES), Outcome::Done);
    let again = bed.uffd.read_event();
    assert_eq!(again, missing(bed.dst.start, false));
    assert_eq!(bed.uffd.zeropage(bed.dst, FillMode::empty()), Outcome::Done);
    assert_eq!(returned(task), Ok(0));
}

#[test]
fn dontwake_moves_and_leaves_the_waiters_asleep() {
    let bed = Bed::full(1);
    let waiter = bed.world.stuck_at(bed.dst.start);
    assert_eq!(bed.move_pages(0, 0, 1, MoveMode::DONTWAKE), Outcome::Done);
    assert!(!was_woken(&waiter));
    assert_eq!(bed.world.load(bed.dst.start), Ok(1));
    assert_eq!(bed.uffd.wake(bed.dst), Ok(()));
    assert!(was_woken(&waiter));
}

#[test]
fn waiters_at_the_source_and_at_other_contexts_sleep_on() {
    let bed = Bed::full(2);
    let other = Uffd::new(&bed.world.space, Features::empty());
    other.register(bed.src, Modes::WP).expect("anonymous memory can");
    assert_eq!(other.write_protect(bed.src), Ok(()));
    let waiter = bed.world.stuck_storing_at(bed.src.start);
    assert_eq!(bed.move_pages(0, 0, 1, NOW), Outcome::Done);
    assert!(!was_woken(&waiter));
    other.close();
    assert!(was_woken(&waiter));
}

// Ranges that overlap: as if the pages were moved one after the other.

#[test]
fn a_page_does_not_move_onto_itself() {
    let (world, uffd, range) = registered_with(2, BOTH, Features::empty());
    assert_eq!(
        uffd.copy(range.start, &source(1, 1), P, FillMode::empty()),
        Outcome::Done
    );
    let onto_itself = |number, mode| {
        let at = page(range, number);
        uffd.move_pages(&world.space, at, at, P, mode)
    };
    assert_eq!(onto_itself(0, NOW), Outcome::Refused(Refusal::Exists));
    assert_eq!(onto_itself(1, NOW), Outcome::Refused(Refusal::SourceHole));
    assert_eq!(onto_itself(1, HOLES), Outcome::Done);
    assert_eq!(world.load(range.start), Ok(word(1)));
}

#[test]
fn ranges_that_overlap_move_as_page_by_page_in_ascending_order() {
    // Pages that are there, from, to, how many, mode; what comes of it, and where the pages are then.
    type Row = (
        &'static [u64],
        (u64, u64, u64),
        MoveMode,
        Outcome,
        &'static [(u64, u64)],
    );
    let partial = |pages, why| Outcome::Partial {
        bytes: pages * P,
        why,
    };
    let rows: &[Row] = &[
        (&[4, 5], (4, 3, 2), NOW, Outcome::Done, &[(3, 4), (4, 5)]),
        (
            &[1, 2, 3],
            (1, 2, 3),
            NOW,
            Outcome::Refused(Refusal::Exists),
            &[(1, 1), (2, 2), (3, 3)],
        ),
        // One page travels to the end.
        (&[4], (4, 5, 3), HOLES, Outcome::Done, &[(7, 4)]),
        (&[2], (2, 4, 2), NOW, partial(1, Refusal::SourceHole), &[(4, 2)]),
        (&[2, 3], (2, 4, 4), NOW, Outcome::Done, &[(6, 2), (7, 3)]),
        (
            &[2, 3, 5],
            (2, 4, 4),
            NOW,
            partial(1, Refusal::Exists),
            &[(3, 3), (4, 2), (5, 5)],
        ),
    ];
    for (there, (from, to, pages), mode, expected, after) in rows {
        let (world, uffd, range) = registered_with(8, BOTH, Features::empty());
        for i in *there {
            let copied = uffd.copy(page(range, *i), &source(*i as u8, 1), P, FillMode::empty());
            assert_eq!(copied, Outcome::Done);
        }
        let (dst, src) = (page(range, *to), page(range, *from));
        let outcome = uffd.move_pages(&world.space, dst, src, pages * P, *mode);
        assert_eq!(outcome, *expected, "{there:?}: {pages} from {from} to {to}");
        let is_there = |i: &u64| matches!(world.space.entry(page(range, *i)).0, Entry::Leaf(_));
        let now: Vec<_> = (0..8).filter(is_there).collect();
        assert_eq!(now, after.iter().map(|(place, _)| *place).collect::<Vec<_>>());
        for (place, content) in *after {
            assert_eq!(world.load(page(range, *place)), Ok(word(*content as u8)));
        }
    }
}

// Many pages.

#[test]
fn runs_of_every_length_arrive_whole_across_tables_and_chunks() {
    const ALL: u64 = 1300;
    // Both ranges cross borders of 2 MiB, at different pages.
    for (pages, skew) in [(1, 0), (63, 500), (64, 511), (65, 448), (129, 400), (ALL - 7, 7)] {
        let (world, uffd, dst) = registered_with(ALL, Modes::MISSING, Features::empty());
        let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), ALL, RW);
        populate(&world, src);
        let before = anon_frames();
        let outcome = uffd.move_pages(&world.space, page(dst, skew / 2), page(src, skew), pages * P, NOW);
        assert_eq!(outcome, Outcome::Done, "{pages} pages");
        assert_eq!(anon_frames(), before, "no frame more, no frame less");
        world.run(|| {
            for i in 0..pages {
                assert_eq!(uaccess::load(page(dst, skew / 2 + i)), Ok(skew + i + 1));
            }
        });
        let left = |i: u64| i < skew || i >= skew + pages;
        for i in 0..ALL {
            let there = matches!(world.space.entry(page(src, i)).0, Entry::Leaf(_));
            assert_eq!(there, left(i), "page {i} of the source");
        }
    }
}

#[test]
fn no_store_is_lost_while_its_page_moves_to_and_fro() {
    let (world, uffd, range) = registered_with(2, Modes::MISSING, Features::empty());
    let uffd = Arc::new(uffd);
    let (home, away) = (range.start, page(range, 1));
    assert_eq!(uffd.zeropage(part(range, 0, 1), FillMode::empty()), Outcome::Done);
    assert_eq!(world.store(home, 0), Ok(()));
    let space = Arc::clone(&world.space);
    let serving = Arc::clone(&uffd);
    // Takes the page away, looks that nobody writes to it there, and brings it back; for as long as somebody asks.
    let mover = world.spawn("mover", move || {
        let (mut moves, mut asked) = (0u64, 0u64);
        loop {
            let taken = serving.move_pages(&space, away, home, P, NOW);
            assert!(
                taken == Outcome::Done || taken == Outcome::Refused(Refusal::Immovable(Immovable::NotOurs)),
                "{taken:?}"
            );
            if taken != Outcome::Done {
                return (moves, asked);
            }
            let seen = uaccess::load(away);
            for _ in 0..50 {
                assert_eq!(uaccess::load(away), seen, "written through its old address");
            }
            // Until somebody misses it, or for a while.
            for _ in 0..200 {
                if serving.try_read_event().is_ok() {
                    asked += 1;
                    break;
                }
                std::thread::yield_now();
            }
            assert_eq!(serving.move_pages(&space, home, away, P, NOW), Outcome::Done);
            moves += 1;
        }
    });
    let writer = world.spawn("writer", move || {
        for i in 0..3000u64 {
            assert_eq!(uaccess::load(home), Ok(i));
            assert_eq!(uaccess::store(home, i + 1), Ok(()));
        }
    });
    returned(writer);
    // The mover finds its destination unregistered, with the page at home.
    assert_eq!(uffd.unregister(part(range, 1, 1)), Ok(()));
    let (moves, asked) = returned(mover);
    assert!(moves > 0, "{asked} asked");
    assert_eq!(world.load(home), Ok(3000));
}

/// The machine complains at the end about a page that was reached at one address while a CPU had it cached for the other.
#[test]
fn no_cpu_stores_to_a_page_at_its_old_address_once_another_reaches_it_at_the_new_one() {
    const PAGES: u64 = 64;
    let bed = Bed::full(PAGES);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    let stop = Arc::new(AtomicBool::new(false));
    let stored = Arc::new([const { AtomicU64::new(0) }; 3]);
    let places = [bed.src, bed.dst];
    // They store wherever the pages are at the moment, and ask nobody where they are not.
    let storers = [0, 1, 2].map(|n| {
        let (stop, stored) = (Arc::clone(&stop), Arc::clone(&stored));
        bed.world.spawn("storer", move || {
            while !stop.load(Ordering::Relaxed) {
                for place in places {
                    // The first page to arrive, one in the middle, and the last to be taken.
                    let at = page(place, [0, PAGES / 2, PAGES - 1][n]);
                    let machine = SoftMachine::current();
                    if machine.probe(at, Access::Write, Mode::Supervisor).is_ok() {
                        stored[n].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    });
    let to_and_fro = [(bed.dst, bed.src), (bed.src, bed.dst)];
    eventually("all of them stored while the pages moved", || {
        for (dst, src) in to_and_fro.into_iter().cycle().take(200) {
            assert_eq!(bed.move_at(dst.start, src.start, PAGES * P, NOW), Outcome::Done);
        }
        stored.iter().all(|count| count.load(Ordering::Relaxed) > 100)
    });
    stop.store(true, Ordering::Relaxed);
    storers.into_iter().for_each(returned);
    bed.world
        .run(|| (0..PAGES).for_each(|i| assert_eq!(uaccess::load(page(bed.src, i)), Ok(i + 1))));
}

// Memory that runs out.

#[test]
fn no_frame_for_the_tables_is_enomem_and_leaves_every_page_where_it_was() {
    // A destination in a part of the space that has nothing yet needs three nodes.
    for successes in 0..4 {
        let bed = Bed::full(3);
        let waiter = bed.world.stuck_at(bed.dst.start);
        let before = anon_frames();
        allocator().inject_failure(successes);
        let outcome = bed.move_pages(0, 0, 3, NOW);
        allocator().stop_injection();
        if successes < 3 {
            assert_eq!(
                (outcome, answer(outcome, P)),
                (Outcome::Refused(Refusal::OutOfMemory), (Some(12), Some(-12)))
            );
            assert!(!was_woken(&waiter));
            bed.world
                .run(|| (0..3).for_each(|i| assert_eq!(uaccess::load(page(bed.src, i)), Ok(i + 1))));
            assert_eq!(bed.entry(bed.dst.start), Entry::EMPTY);
            assert_eq!(
                bed.move_pages(0, 0, 3, NOW),
                Outcome::Done,
                "with memory it works"
            );
        } else {
            assert_eq!(outcome, Outcome::Done);
        }
        assert!(was_woken(&waiter));
        assert_eq!(anon_frames(), before);
    }
}

#[test]
fn no_frame_for_the_second_table_is_eagain_with_what_fitted_into_the_first() {
    let (world, uffd, dst) = registered_with(1024, Modes::MISSING, Features::empty());
    let src = world.map_at(Some(VirtAddr::new(0x1000_0000)), 1024, RW);
    populate(&world, src);
    let in_first = 512 - (dst.start.as_u64() / P) % 512;
    allocator().inject_failure(3);
    let outcome = uffd.move_pages(&world.space, dst.start, src.start, 1024 * P, NOW);
    allocator().stop_injection();
    let bytes = in_first * P;
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes,
            why: Refusal::OutOfMemory
        }
    );
    assert_eq!(anon_frames(), 1024);
    let rest = (page(dst, in_first), page(src, in_first), (1024 - in_first) * P);
    assert_eq!(
        uffd.move_pages(&world.space, rest.0, rest.1, rest.2, NOW),
        Outcome::Done
    );
    world.run(|| (0..1024).for_each(|i| assert_eq!(uaccess::load(page(dst, i)), Ok(i + 1))));
}

#[test]
fn holes_take_no_tables() {
    let bed = Bed::new(64);
    let before = allocator().stats().of(Kind::Table);
    allocator().inject_failure(0);
    assert_eq!(bed.move_pages(0, 0, 64, HOLES), Outcome::Done);
    allocator().stop_injection();
    assert_eq!(allocator().stats().of(Kind::Table), before);
}

#[test]
fn poison_that_follows_the_last_page_is_not_carried_along() {
    let bed = Bed::full(2);
    bed.uffd
        .register(bed.src, Modes::MISSING)
        .expect("anonymous memory can");
    bed.world.space.discard(part(bed.src, 1, 1)).expect("mapped");
    assert_eq!(
        bed.uffd.poison(part(bed.src, 1, 1), FillMode::empty()),
        Outcome::Done
    );
    let outcome = bed.move_pages(0, 0, 2, NOW);
    assert_eq!(
        outcome,
        Outcome::Partial {
            bytes: P,
            why: Refusal::BadSource
        }
    );
    assert_eq!(bed.world.load(page(bed.src, 1)), Err(FaultError::Poisoned));
}
