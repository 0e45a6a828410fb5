//! What a memory type can make its own, shown with types that only these tests have: each is one table. And guest memory
//! that is filled by `write()`.

mod common;

use std::cell::RefCell;
use std::sync::Arc;

use common::kinds::{Seen, seen};
use common::{RW, World, missing, object_world, page, returned, source, until_it_waits, was_woken, word};
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{CacheError, Lookup, Object, Presence, Run, RunStart};
use kernel::mm::fault::FaultError;
use kernel::mm::frame::{Anon, Folio, Frame, Kind, allocator};
use kernel::mm::memtype::guest_memfd::{GUEST_MEMFD, GUEST_MEMFD_PRIVATE, GUEST_MEMFD_WRITTEN};
use kernel::mm::memtype::{
    AllocError, CacheOps, Class, Granule, MemType, Modes, OpSet, Privately, Supply, UffdOps, hugetlb,
};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory};
use kernel::uffd::{Event, Features, FillMode, Outcome, ReadError, Refusal, RegisterError, TrapKind, Uffd};

const P: u64 = PAGE_SIZE;
const H: u64 = Granule::Huge.size();
const NOW: FillMode = FillMode::empty();
const NOTHING: Result<Event, ReadError> = Err(ReadError::WouldBlock);

/// Shared memory that notes what is asked of it.
static NOTED: MemType = MemType {
    name: "noted",
    class: Class::File,
    privately: Privately::Caches,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::MINOR),
            ops: OpSet::COPY.union(OpSet::CONTINUE),
            granule: Granule::Base,
            filled_by_write: true,
            alloc: Supply::Pool(|| {
                note("alloc");
                Supply::Frames.take()
            }),
            cache: Some(CacheOps {
                lookup: |object, offset| {
                    note("lookup");
                    object.lookup(offset)
                },
                presence: |object, offset| {
                    note("presence");
                    object.presence(offset)
                },
                lookup_run: |object, offset, run| {
                    note("lookup");
                    object.lookup_run(offset, run)
                },
                insert: |object, offset, folio| {
                    note("insert");
                    object.insert(offset, folio)
                },
                remove: |object, offset, folio| {
                    note("remove");
                    object.remove(offset, folio)
                },
            }),
        }
        .checked(),
    ),
};

thread_local! {
    /// What was asked on this thread.
    static ASKED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

fn note(what: &'static str) {
    ASKED.with(|asked| asked.borrow_mut().push(what));
}

/// What was asked on this thread since the last call.
fn asked() -> Vec<&'static str> {
    ASKED.with(RefCell::take)
}

/// Memory in huge pages whose objects can be written to.
static HUGE_WRITTEN: MemType = MemType {
    name: "huge, written",
    class: Class::File,
    privately: Privately::Caches,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING,
            ops: OpSet::empty(),
            granule: Granule::Huge,
            filled_by_write: true,
            alloc: Supply::Pool(hugetlb::from_pool),
            cache: Some(CacheOps::PAGE_CACHE),
        }
        .checked(),
    ),
};

/// Memory that has every third page from the start: its cache makes them up when they are looked for.
static STRIPED: MemType = MemType {
    name: "striped",
    class: Class::File,
    privately: Privately::Never,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::MINOR),
            ops: OpSet::COPY.union(OpSet::CONTINUE),
            granule: Granule::Base,
            filled_by_write: false,
            alloc: Supply::Frames,
            cache: Some(CacheOps {
                lookup: striped_lookup,
                presence: striped_presence,
                lookup_run: striped_run,
                ..CacheOps::PAGE_CACHE
            }),
        }
        .checked(),
    ),
};

fn striped_lookup(object: &Object, offset: u64) -> Lookup {
    match object.lookup(offset) {
        Lookup::Absent if (offset / P).is_multiple_of(3) => match stripe(object, offset) {
            Ok(folio) => Lookup::Present(folio),
            Err(_) => Lookup::Absent,
        },
        found => found,
    }
}

fn striped_presence(object: &Object, offset: u64) -> Presence {
    match object.presence(offset) {
        Presence::Absent if (offset / P).is_multiple_of(3) => Presence::Present,
        found => found,
    }
}

/// Runs of one page.
fn striped_run(object: &Object, offset: u64, run: &mut Run) -> RunStart {
    match striped_lookup(object, offset) {
        Lookup::Absent => return RunStart::Absent,
        Lookup::BeyondEnd => return RunStart::BeyondEnd,
        Lookup::Present(folio) => run.push(folio),
    }
    RunStart::Found
}

fn stripe(object: &Object, offset: u64) -> Result<Folio, AllocError> {
    let mut frame = Frame::<Anon>::alloc()?;
    kernel::mm::phys::bytes_mut(&mut frame).fill(0x11);
    let folio = Folio::from(frame);
    match object.insert(offset, folio.clone()) {
        Ok(()) => Ok(folio),
        Err(CacheError::Exists(_)) => unreachable!("it was absent, and one task looks"),
        Err(_) => Err(AllocError::OutOfFrames),
    }
}

/// An object of a type, mapped shared, registered. The machine goes last.
struct Bed {
    object: Arc<Object>,
    uffd: Uffd,
    range: VirtRange,
    world: World,
}

impl Bed {
    fn new(ty: &'static MemType, pages: u64, modes: Modes) -> Self {
        let world = object_world();
        let object = Object::new(ty, pages * P);
        let range = world.map_memory(Memory::shared(&object), None, pages, RW);
        let uffd = Uffd::new(&world.space, Features::empty());
        uffd.register(range, modes).expect("the type can");
        Self {
            object,
            uffd,
            range,
            world,
        }
    }

    fn one(&self, index: u64) -> VirtRange {
        common::part(self.range, index, 1)
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(self.object.write(offset, bytes), (bytes.len() as u64, Ok(())));
    }
}

fn minor(bed: &Bed, index: u64) -> Result<Event, ReadError> {
    Ok(Event::Pagefault {
        kind: TrapKind::Minor,
        write: false,
        addr: page(bed.range, index),
        thread: None,
    })
}

// One table is a type.

#[test]
fn a_fill_asks_the_type_for_a_page_and_puts_it_into_its_cache() {
    let bed = Bed::new(&NOTED, 2, Modes::MISSING);
    asked();
    assert_eq!(
        bed.uffd.copy(bed.range.start, &source(5, 2), 2 * P, NOW),
        Outcome::Done
    );
    assert_eq!(asked(), ["alloc", "alloc", "insert", "insert"]);
    assert_eq!(bed.world.load(page(bed.range, 1)), Ok(word(6)));
}

#[test]
fn continuing_asks_the_type_where_the_page_is_and_for_nothing_else() {
    let bed = Bed::new(&NOTED, 2, Modes::MINOR);
    bed.write(0, &source(5, 2));
    asked();
    assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Done);
    assert_eq!(asked(), ["lookup"], "once for a run of pages");
    assert_eq!(bed.world.load(bed.range.start), Ok(word(5)));
}

/// As on Linux 6.18, whose `SEEK_DATA` passes over it meanwhile.
#[test]
fn a_page_allocated_ahead_that_a_minor_fault_waits_for_is_a_hole_until_it_is_mapped() {
    let bed = Bed::new(&NOTED, 1, Modes::MINOR);
    assert_eq!(bed.object.allocate(0, P, false), Ok(()));
    let task = bed.world.stuck_at(bed.range.start);
    assert_eq!(bed.object.data_from(0), None);
    assert_eq!(bed.uffd.cont(bed.range, NOW), Outcome::Done);
    assert_eq!(bed.object.data_from(0), Some(0));
    assert!(was_woken(&task));
}

#[test]
fn a_private_mapping_fills_itself_and_not_the_cache() {
    let bed = Bed::new(&NOTED, 1, Modes::MISSING);
    let private = bed.world.map_memory(Memory::private(&bed.object), None, 1, RW);
    bed.uffd.register(private, Modes::MISSING).expect("the type can");
    asked();
    assert_eq!(bed.uffd.copy(private.start, &source(5, 1), P, NOW), Outcome::Done);
    assert_eq!(asked(), ["alloc"]);
    assert_eq!(bed.object.resident(), 0);
}

#[test]
fn what_the_table_does_not_have_is_refused() {
    let bed = Bed::new(&NOTED, 1, Modes::MISSING | Modes::MINOR);
    let more = Modes::MISSING | Modes::WP;
    assert_eq!(
        bed.uffd.register(bed.range, more),
        Err(RegisterError::Unsupported)
    );
    let unsupported = Outcome::Refused(Refusal::Unsupported);
    assert_eq!(bed.uffd.zeropage(bed.range, NOW), unsupported);
    assert_eq!(bed.uffd.poison(bed.range, NOW), unsupported);
}

/// Each allocation in turn is the one that fails: the page, a node of the cache, the nodes of the page table.
#[test]
fn a_page_that_cannot_be_mapped_is_taken_out_of_the_cache_again() {
    let mut removed = 0;
    for successes in 0.. {
        let bed = Bed::new(&NOTED, 1, Modes::MISSING);
        asked();
        allocator().inject_failure(successes);
        let outcome = bed.uffd.copy(bed.range.start, &source(5, 1), P, NOW);
        allocator().stop_injection();
        let asked = asked();
        if outcome == Outcome::Done {
            assert!(!asked.contains(&"remove"));
            break;
        }
        assert_eq!(outcome, Outcome::Refused(Refusal::OutOfMemory));
        let put = asked.contains(&"insert");
        assert!(asked.contains(&"remove") <= put);
        removed += u64::from(asked.contains(&"remove"));
        assert_eq!(
            (bed.object.resident(), allocator().stats().of(Kind::Anon)),
            (0, 0),
            "{asked:?}"
        );
        assert_eq!(seen(&bed.world.space, bed.range.start), Seen::Empty);
        assert!(successes < 20, "it never succeeds");
    }
    assert!(removed > 0, "no failure came after the page was in the cache");
}

#[test]
fn a_type_whose_cache_makes_pages_up_has_minor_faults_on_them() {
    let bed = Bed::new(&STRIPED, 6, Modes::MISSING | Modes::MINOR);
    let waiters = [0, 1, 3].map(|i| bed.world.stuck_at(page(bed.range, i)));
    assert_eq!(bed.uffd.try_read_event(), minor(&bed, 0));
    assert_eq!(bed.uffd.try_read_event(), missing(page(bed.range, 1), false));
    assert_eq!(bed.uffd.try_read_event(), minor(&bed, 3));
    assert_eq!(bed.uffd.cont(bed.one(3), NOW), Outcome::Done);
    assert_eq!(waiters.map(|waiter| was_woken(&waiter)), [false, false, true]);
    assert_eq!(bed.world.load(page(bed.range, 3)), Ok(word(0x11)));
    assert_eq!(bed.uffd.cont(bed.one(1), NOW), Outcome::Refused(Refusal::NoPage));
}

#[test]
fn a_type_of_huge_pages_is_filled_by_writes_of_any_size() {
    let world = object_world();
    let object = Object::new(&HUGE_WRITTEN, 0);
    let text: Vec<u8> = (0..3 * P + 77).map(|i| ((i * 31) >> 3) as u8).collect();
    let at = H - P - 5;
    assert_eq!(object.write(at, &text), (text.len() as u64, Ok(())));
    assert_eq!(
        (object.resident(), object.size()),
        (2 * H, at + text.len() as u64)
    );
    let mut back = vec![0; text.len()];
    assert_eq!(object.read(at, &mut back), text.len());
    assert!(back == text);
    let range = world.map_memory(Memory::shared(&object), None, 1024, RW);
    assert_eq!(world.load(range.start), Ok(0));
    let first = text[5..13].try_into().expect("eight bytes");
    assert_eq!(world.load(range.start + (H - P)), Ok(u64::from_ne_bytes(first)));
    let uffd = Uffd::new(&world.space, Features::empty());
    assert_eq!(uffd.register(range, Modes::MISSING), Ok(OpSet::empty()));
}

// Guest memory.

#[test]
fn guest_memory_is_never_mapped_privately() {
    let world = World::new();
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_WRITTEN, &GUEST_MEMFD_PRIVATE] {
        let request = MapRequest {
            at: None,
            len: P,
            prot: RW,
            memory: Memory::private(&Object::new(ty, P)),
        };
        assert_eq!(world.space.map(request), Err(MapError::NotPrivately));
    }
}

#[test]
fn guest_memory_that_is_a_guests_alone_cannot_be_registered() {
    let world = World::new();
    let object = Object::new(&GUEST_MEMFD_PRIVATE, P);
    let range = world.map_memory(Memory::shared(&object), None, 1, RW);
    let uffd = Uffd::new(&world.space, Features::empty());
    for modes in [Modes::MISSING, Modes::MINOR, Modes::WP, Modes::all()] {
        assert_eq!(
            uffd.register(range, modes),
            Err(RegisterError::Unsupported),
            "{modes:?}"
        );
    }
}

#[test]
fn untrapped_guest_memory_that_is_shared_reads_as_zeros() {
    let world = World::new();
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_WRITTEN] {
        let object = Object::new(ty, 2 * P);
        let range = world.map_memory(Memory::shared(&object), None, 3, RW);
        assert_eq!(world.load(range.start), Ok(0));
        assert_eq!(world.store(page(range, 1), 4), Ok(()));
        assert_eq!(world.load(page(range, 2)), Err(FaultError::BeyondEnd));
        assert_eq!(object.resident(), 2 * P);
        world.space.unmap(range).expect("mapped");
    }
}

#[test]
fn guest_memory_that_is_filled_by_write_takes_no_copy() {
    let bed = Bed::new(&GUEST_MEMFD_WRITTEN, 1, Modes::MISSING | Modes::MINOR);
    let outcome = bed.uffd.copy(bed.range.start, &source(5, 1), P, NOW);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unsupported));
    assert_eq!(bed.object.resident(), 0);
}

#[test]
fn a_write_fills_the_cache_and_wakes_nobody_and_continuing_does_the_rest() {
    for ty in [&GUEST_MEMFD, &GUEST_MEMFD_WRITTEN] {
        let bed = Bed::new(ty, 2, Modes::MISSING | Modes::MINOR);
        let reader = bed.world.spawn_load(bed.range.start);
        until_it_waits(reader.task());
        assert_eq!(bed.uffd.try_read_event(), missing(bed.range.start, false));
        bed.write(0, &source(7, 1));
        assert!(reader.task().fault.is_waiting(), "a write wakes nobody");
        assert_eq!(seen(&bed.world.space, bed.range.start), Seen::Empty);
        assert_eq!(bed.uffd.cont(bed.one(0), NOW), Outcome::Done);
        assert_eq!(returned(reader), Ok(word(7)));
        assert_eq!(bed.uffd.try_read_event(), NOTHING, "no second fault");
    }
}

#[test]
fn a_waiter_that_is_woken_after_a_write_raises_a_minor_fault_if_that_is_trapped() {
    let bed = Bed::new(&GUEST_MEMFD_WRITTEN, 1, Modes::MISSING | Modes::MINOR);
    let reader = bed.world.spawn_load(bed.range.start);
    until_it_waits(reader.task());
    assert_eq!(bed.uffd.try_read_event(), missing(bed.range.start, false));
    bed.write(0, &source(7, 1));
    assert_eq!(bed.uffd.wake(bed.one(0)), Ok(()));
    common::eventually("the second fault is told", || {
        bed.uffd.try_read_event() == minor(&bed, 0)
    });
    assert_eq!(bed.uffd.cont(bed.one(0), NOW), Outcome::Done);
    assert_eq!(returned(reader), Ok(word(7)));
}

#[test]
fn a_waiter_that_is_woken_after_a_write_finds_the_page_if_only_missing_ones_are_trapped() {
    let bed = Bed::new(&GUEST_MEMFD_WRITTEN, 1, Modes::MISSING);
    let reader = bed.world.spawn_load(bed.range.start);
    until_it_waits(reader.task());
    assert_eq!(bed.uffd.try_read_event(), missing(bed.range.start, false));
    bed.write(0, &source(7, 1));
    assert_eq!(bed.uffd.wake(bed.one(0)), Ok(()));
    assert_eq!(returned(reader), Ok(word(7)));
    assert_eq!(bed.uffd.try_read_event(), NOTHING);
}

#[test]
fn what_a_write_has_filled_is_there_for_copy_and_missing_for_nobody() {
    let bed = Bed::new(&GUEST_MEMFD, 2, Modes::MISSING | Modes::MINOR);
    bed.write(0, &source(7, 1));
    let outcome = bed.uffd.copy(bed.range.start, &source(5, 1), P, NOW);
    assert_eq!(outcome, Outcome::Refused(Refusal::Exists));
    let _minor = bed.world.stuck_at(bed.range.start);
    let _missing = bed.world.stuck_at(page(bed.range, 1));
    assert_eq!(bed.uffd.try_read_event(), minor(&bed, 0));
    assert_eq!(bed.uffd.try_read_event(), missing(page(bed.range, 1), false));
}
