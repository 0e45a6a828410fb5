//! What needs a look behind the space's locks: markers, shared pages, and one step of a fault at a time.
//!
//! The tests in `small` also run under Miri (the command is at the top of the frame allocator's tests).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{MapRequest, Memory, PageRun, Privilege, ScanRequest, Space};
use crate::arch::host::{Config, Running, SoftMachine};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use crate::mm::frame::{Folio, Kind, allocator};
use crate::mm::memtype::anon::ANON;
use crate::mm::phys;
use crate::mm::pt::{Attr, AttrFlags, Entry, Flush, Leaf, Level, Marker, Prot};
use crate::mm::range::VirtRange;
use crate::mm::uaccess;
use crate::task::Task;
use crate::uffd::{Features, FillMode, Modes, MoveMode, Outcome, Refusal, Uffd, linux};

/// A space with `pages` of readable and writable memory. The machine is dropped last.
struct World {
    space: Arc<Space>,
    range: VirtRange,
    _machine: Running,
}

fn world(pages: u64) -> World {
    let machine = SoftMachine::start(Config { memory: 256 << 10 });
    let space = Space::new(Privilege::Kernel).expect("RAM is plenty");
    let request = MapRequest {
        at: None,
        len: pages * PAGE_SIZE,
        prot: Prot::READ | Prot::WRITE,
        memory: Memory::Own(&ANON),
    };
    let range = space.map(request).expect("there is room");
    World {
        space,
        range,
        _machine: machine,
    }
}

impl World {
    fn page(&self, number: u64) -> VirtAddr {
        self.range.start + number * PAGE_SIZE
    }

    fn mark(&self, number: u64, marker: Marker) {
        let mut table = self.space.table.lock();
        let mut cursor = table.cursor(VirtRange::page(self.page(number)));
        assert_eq!(cursor.mark(Level::PAGE, marker), Ok(Some(Marker::None)));
    }

    fn share(&self, number: u64) -> Option<Folio> {
        self.space
            .table
            .lock()
            .cursor(VirtRange::page(self.page(number)))
            .share()
    }

    /// COPY of a page of this byte.
    fn fill(&self, uffd: &Uffd, number: u64, byte: u8) -> Outcome {
        uffd.copy(self.page(number), &[byte; 4096], PAGE_SIZE, FillMode::empty())
    }

    /// Leaves the page as a fork whose other side has ended would.
    fn fork_and_end(&self, number: u64) {
        let leaf = self.leaf(number);
        let attr = Attr::flags(leaf.attr.flags | AttrFlags::FORKED);
        let mut flush = Flush::new();
        let mut table = self.space.table.lock();
        assert!(
            table
                .cursor_at(self.page(number))
                .rewrite(leaf.prot - Prot::WRITE, attr, &mut flush)
        );
        drop(table);
        flush.spend(&*self.space);
    }

    fn leaf(&self, number: u64) -> Leaf {
        match self.space.entry(self.page(number)).0 {
            Entry::Leaf(leaf) => leaf,
            entry => panic!("page {number} is mapped: {entry:?}"),
        }
    }

    fn task(&self) -> Arc<Task> {
        Task::detached_in("test", Arc::clone(&self.space))
    }

    fn step(&self, number: u64, access: Access) -> Verdict {
        self.space.step(
            &FaultInfo {
                addr: self.page(number),
                access,
                origin: Origin::Task,
            },
            &self.task(),
        )
    }

    fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        self.task().run_as(|| {
            self.space.activate();
            let result = f();
            self.space.unload_here();
            result
        })
    }

    fn registered(&self) -> Uffd {
        let uffd = Uffd::new(&self.space, Features::empty());
        uffd.register(self.range, Modes::MISSING)
            .expect("anonymous memory can");
        uffd
    }
}

#[test]
fn poisoned_and_guarded_pages_fail_without_a_message_whoever_registered_them() {
    for (marker, why) in [
        (Marker::Poison, FaultError::Poisoned),
        (Marker::Guard, FaultError::Guard),
    ] {
        let world = world(2);
        world.mark(0, marker);
        for access in [Access::Read, Access::Write, Access::Execute] {
            let expected = if access == Access::Execute {
                FaultError::Forbidden
            } else {
                why
            };
            assert!(
                matches!(world.step(0, access), Verdict::Failed(error) if error == expected),
                "rights first"
            );
        }
        let uffd = world.registered();
        assert!(matches!(world.step(0, Access::Write), Verdict::Failed(error) if error == why));
        assert!(uffd.try_read_event().is_err());
        assert!(
            matches!(world.step(1, Access::Write), Verdict::Delegated),
            "its neighbour is just missing"
        );
        assert_eq!(
            uffd.zeropage(VirtRange::page(world.page(1)), FillMode::empty()),
            Outcome::Done
        );
    }
}

#[test]
fn copy_goes_over_a_write_protect_or_poison_marker() {
    for marker in [Marker::UffdWp, Marker::Poison] {
        let world = world(1);
        let uffd = world.registered();
        world.mark(0, marker);
        assert_eq!(world.fill(&uffd, 0, 6), Outcome::Done, "{marker:?}");
        world.run(|| assert_eq!(uaccess::load(world.page(0)), Ok(0x0606_0606_0606_0606)));
    }
}

#[test]
fn zeropage_takes_a_marker_for_a_page_that_exists() {
    for marker in [Marker::UffdWp, Marker::Poison, Marker::Guard] {
        let world = world(1);
        let uffd = world.registered();
        world.mark(0, marker);
        let outcome = uffd.zeropage(world.range, FillMode::empty());
        assert_eq!(outcome, Outcome::Refused(Refusal::Exists), "{marker:?}");
        assert_eq!(
            world.space.entry(world.page(0)).0,
            Entry::Absent(marker),
            "and leaves it"
        );
    }
}

#[test]
fn a_missing_page_with_a_write_protect_marker_is_a_missing_fault() {
    let world = world(1);
    let uffd = world.registered();
    world.mark(0, Marker::UffdWp);
    assert!(matches!(world.step(0, Access::Read), Verdict::Delegated));
    assert_eq!(uffd.wake(world.range), Ok(()));
}

#[test]
fn discarding_anonymous_memory_drops_every_marker_but_a_guard() {
    let world = world(3);
    for (page, marker) in [(0, Marker::UffdWp), (1, Marker::Poison), (2, Marker::Guard)] {
        world.mark(page, marker);
    }
    world.space.discard(world.range).expect("mapped");
    world.run(|| (0..2).for_each(|page| assert_eq!(uaccess::store(world.page(page), 1), Ok(()))));
    assert_eq!(world.space.entry(world.page(2)).0, Entry::Absent(Marker::Guard));
}

#[test]
fn one_step_of_a_fault_ends_in_one_verdict() {
    let world = world(1);
    assert!(matches!(
        world.step(0, Access::Execute),
        Verdict::Failed(FaultError::Forbidden)
    ));
    assert!(matches!(
        world.step(1, Access::Read),
        Verdict::Failed(FaultError::Unmapped)
    ));
    assert!(matches!(world.step(0, Access::Read), Verdict::Resolved));
    assert!(
        matches!(world.step(0, Access::Read), Verdict::Retry),
        "somebody was faster"
    );
    assert!(matches!(world.step(0, Access::Write), Verdict::Resolved));
    assert!(matches!(world.step(0, Access::Write), Verdict::Retry));
    assert_eq!(world.space.fault_count(), 6);
}

#[test]
fn copying_a_shared_page_without_a_free_frame_changes_nothing() {
    let world = world(1);
    world.run(|| {
        assert_eq!(uaccess::store(world.page(0), 1), Ok(()));
        let other = world.share(0).expect("a page of its own");
        world.space.protect(world.range, Prot::READ).expect("mapped");
        world
            .space
            .protect(world.range, Prot::READ | Prot::WRITE)
            .expect("mapped");
        allocator().inject_failure(0);
        assert!(matches!(
            world.step(0, Access::Write),
            Verdict::Failed(FaultError::OutOfMemory)
        ));
        allocator().stop_injection();
        assert_eq!((uaccess::load(world.page(0)), other.owners()), (Ok(1), 2));
    });
}

#[test]
fn a_forked_page_that_nobody_shares_any_more_is_the_spaces_own_with_the_next_store() {
    let world = world(1);
    world.run(|| {
        assert_eq!(uaccess::store(world.page(0), 1), Ok(()));
        world.fork_and_end(0);
        assert_eq!(uaccess::load(world.page(0)), Ok(1));
        assert!(
            world.leaf(0).attr.flags.contains(AttrFlags::FORKED),
            "a load changes nothing"
        );
        assert_eq!(uaccess::store(world.page(0), 2), Ok(()));
        assert!(!world.leaf(0).attr.flags.contains(AttrFlags::FORKED));
        assert_eq!(allocator().stats().of(Kind::Anon), 1, "no copy");
    });
}

#[test]
fn ending_the_protection_of_a_forked_page_does_not_make_it_the_spaces_own() {
    let world = world(1);
    let uffd = Uffd::new(&world.space, Features::empty());
    uffd.register(world.range, Modes::WP)
        .expect("anonymous memory can");
    world.run(|| {
        assert_eq!(uaccess::store(world.page(0), 1), Ok(()));
        world.fork_and_end(0);
        assert_eq!(uffd.write_protect(world.range), Ok(()));
        assert_eq!(
            uffd.remove_write_protection(world.range, FillMode::empty()),
            Ok(())
        );
        let leaf = world.leaf(0);
        assert!(leaf.attr.flags.contains(AttrFlags::FORKED) && !leaf.prot.contains(Prot::WRITE));
        assert_eq!(uaccess::store(world.page(0), 2), Ok(()));
        assert!(!world.leaf(0).attr.flags.contains(AttrFlags::FORKED));
    });
}

#[test]
fn a_page_that_was_forked_and_not_written_since_does_not_move_even_if_nobody_else_is_left() {
    let world = world(3);
    let uffd = world.registered();
    let to_page_1 = |from| {
        let (dst, src) = (world.page(1), world.page(from));
        uffd.move_pages(&world.space, dst, src, PAGE_SIZE, MoveMode::empty())
    };
    assert_eq!(world.fill(&uffd, 0, 1), Outcome::Done);
    world.fork_and_end(0);
    let busy = Outcome::Refused(Refusal::Busy);
    assert_eq!(to_page_1(0), busy);
    assert_eq!(linux::fill(busy, PAGE_SIZE).field, Some(-16));
    world.run(|| assert_eq!(uaccess::store(world.page(0), 2), Ok(())));
    assert_eq!(to_page_1(0), Outcome::Done, "it was written");
    world.run(|| assert_eq!(uaccess::load(world.page(1)), Ok(2)));
}

#[test]
fn a_page_that_somebody_else_owns_too_does_not_move() {
    let world = world(2);
    let uffd = world.registered();
    assert_eq!(world.fill(&uffd, 0, 1), Outcome::Done);
    let other = world.share(0).expect("a page of its own");
    let move_it = || {
        let (dst, src) = (world.page(1), world.page(0));
        uffd.move_pages(&world.space, dst, src, PAGE_SIZE, MoveMode::empty())
    };
    assert_eq!(move_it(), Outcome::Refused(Refusal::Busy));
    drop(other);
    assert_eq!(move_it(), Outcome::Done);
}

mod small {
    use super::*;

    #[test]
    fn a_page_that_somebody_else_owns_too_is_copied_before_it_is_written() {
        let world = world(1);
        world.run(|| {
            assert_eq!(uaccess::write(world.page(0), b"shared text"), Ok(()));
            let other = world.share(0).expect("a page of its own");
            world.space.protect(world.range, Prot::READ).expect("mapped");
            world
                .space
                .protect(world.range, Prot::READ | Prot::WRITE)
                .expect("mapped");
            assert_eq!(uaccess::write(world.page(0), b"SHARED"), Ok(()));
            let (mut own, mut others) = ([0; 11], [0; 11]);
            assert_eq!(uaccess::read(world.page(0), &mut own), Ok(()));
            phys::peek(&other, 0, &mut others);
            assert_eq!((&own, &others), (b"SHARED text", b"shared text"));
            assert_eq!((other.owners(), allocator().stats().of(Kind::Anon)), (1, 2));
        });
    }

    #[test]
    fn words_and_bytes_go_through_the_mmu() {
        let world = world(2);
        world.run(|| {
            assert_eq!(uaccess::load(world.page(1)), Ok(0));
            assert_eq!(uaccess::store(world.page(1), 0x0102_0304_0506_0708), Ok(()));
            let mut bytes = [0xff; 12];
            assert_eq!(uaccess::read(world.page(1) - 4, &mut bytes), Ok(()));
            assert_eq!(bytes, [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
            assert!(uaccess::read(world.page(2) - 4, &mut bytes).is_err());
            assert_eq!(bytes[..4], [0; 4], "what came before the hole was copied");
        });
    }

    #[test]
    fn a_filled_page_is_read_and_unmapped() {
        let world = world(1);
        let uffd = world.registered();
        assert_eq!(world.fill(&uffd, 0, 3), Outcome::Done);
        world.run(|| assert_eq!(uaccess::load(world.page(0)), Ok(0x0303_0303_0303_0303)));
        world.space.unmap(world.range).expect("mapped");
        assert_eq!(allocator().stats().of(Kind::Anon), 0);
    }
}

#[test]
fn sparse_memory_is_gone_through_in_short_turns_that_pass_over_what_is_not_there() {
    let world = world(3 << 28);
    let last = world.range.pages() - 1;
    let marked = [0, 511, 1 << 18, (1 << 27) + 5, last];
    for number in marked {
        world.mark(number, Marker::UffdWp);
    }
    let turns: Vec<_> = world.space.turns(world.range).collect();
    assert!(turns.len() < 64 * 5 + 5, "{} turns", turns.len());
    assert!(turns.iter().all(|turn| turn.len() <= 16 << 20));
    assert!(turns.is_sorted_by(|a, b| a.end <= b.start));
    for number in marked {
        let page = world.page(number);
        let with = turns.iter().filter(|turn| turn.start <= page && page < turn.end);
        assert_eq!(with.count(), 1, "page {number}");
    }
    let part = VirtRange::new(world.page(3), world.page(12_000));
    let mut at = part.start;
    for turn in Space::turns_everywhere(part) {
        assert!(turn.start == at && turn.len() <= 16 << 20, "{turn:?}");
        at = turn.end;
    }
    assert_eq!(at, part.end);
    // All of it changes, however far apart it is.
    world.space.discard(world.range).expect("it is mapped");
    for number in marked {
        assert_eq!(world.space.entry(world.page(number)).0, Entry::EMPTY);
    }
}

#[test]
fn what_somebody_else_has_not_flushed_yet_is_flushed_by_who_finds_nothing_to_change() {
    let world = world(2);
    let (space, range) = (&world.space, world.range);
    let uffd = Uffd::new(space, Features::WP_ASYNC | Features::WP_UNPOPULATED);
    uffd.register(range, Modes::WP).expect("anonymous memory can");
    let scan = || {
        let done = space.scan(&ScanRequest::collect_written(range), &mut [PageRun::EMPTY]);
        assert_eq!(done.map(|scanned| scanned.end), Ok(range.end));
    };
    let changes: [(&str, &dyn Fn()); 6] = [
        ("write protection", &|| {
            assert_eq!(uffd.write_protect(range), Ok(()))
        }),
        ("scan", &scan),
        ("discard", &|| assert_eq!(space.discard(range), Ok(()))),
        ("lazy discard", &|| {
            assert_eq!(space.discard_lazily(range), Ok(()))
        }),
        ("guards", &|| assert_eq!(space.install_guards(range), Ok(()))),
        ("no guards", &|| assert_eq!(space.remove_guards(range), Ok(()))),
    ];
    space.activate();
    let flushes = || SoftMachine::current().take_flushes().len();
    for (name, change) in changes {
        change();
        flushes();
        change();
        assert_eq!(flushes(), 0, "{name}: nothing changed");
        space.unflushed.fetch_add(1, Ordering::Relaxed);
        change();
        assert_eq!(flushes(), 2, "{name}: both pages");
        space.unflushed.fetch_sub(1, Ordering::Relaxed);
    }
    assert_eq!(
        space.unflushed.load(Ordering::Relaxed),
        0,
        "who counts stops counting"
    );
    space.unload_here();
}
