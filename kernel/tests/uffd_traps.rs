//! Which touch is trapped, and as what, on real mappings of every memory type: the table that Linux follows (checked on
//! 6.18), a cell at a time.

mod common;

use std::sync::Arc;

use common::{RW, World, object_world};
use kernel::mm::addr::VirtAddr;
use kernel::mm::cache::Object;
use kernel::mm::fault::{Access, FaultError, FaultInfo, Origin, Verdict};
use kernel::mm::memtype::MemType;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::memtype::guest_memfd::GUEST_MEMFD;
use kernel::mm::memtype::hugetlb::HUGETLB;
use kernel::mm::memtype::shmem::SHMEM;
use kernel::mm::pt::{AttrFlags, Entry, Marker};
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapRequest, Memory};
use kernel::mm::uaccess;
use kernel::task::Task;
use kernel::uffd::{Event, Features, FillMode, Modes, Outcome, ReadError, TrapKind, Uffd};

/// How memory is mapped.
#[derive(Clone, Copy, Debug)]
struct Kind {
    ty: &'static MemType,
    /// Behind an object; and if so, shared.
    shared: Option<bool>,
}

const ANONYMOUS: Kind = Kind {
    ty: &ANON,
    shared: None,
};
const SHMEM_SHARED: Kind = Kind {
    ty: &SHMEM,
    shared: Some(true),
};
const SHMEM_PRIVATE: Kind = Kind {
    ty: &SHMEM,
    shared: Some(false),
};
const HUGE_SHARED: Kind = Kind {
    ty: &HUGETLB,
    shared: Some(true),
};
const HUGE_PRIVATE: Kind = Kind {
    ty: &HUGETLB,
    shared: Some(false),
};
const GUEST: Kind = Kind {
    ty: &GUEST_MEMFD,
    shared: Some(true),
};

const WITH_CACHE: [Kind; 4] = [SHMEM_SHARED, SHMEM_PRIVATE, HUGE_SHARED, HUGE_PRIVATE];

/// One granule of a kind, and another mapping of the same page, if an object is behind it. Fields are dropped in this
/// order: the machine last, which counts frames.
struct Bed {
    range: VirtRange,
    alias: Option<VirtRange>,
    kind: Kind,
    _object: Option<Arc<Object>>,
    uffd: Uffd,
    world: World,
}

impl Bed {
    fn new(kind: Kind, features: Features) -> Self {
        let world = object_world();
        let granule = kind.ty.granule().size();
        let object = kind.shared.map(|_| Object::new(kind.ty, granule));
        let map = |memory| {
            let request = MapRequest {
                at: None,
                len: granule,
                prot: RW,
                memory,
            };
            world.space.map(request).expect("there is room")
        };
        let range = map(match (&object, kind.shared) {
            (Some(object), Some(true)) => Memory::shared(object),
            (Some(object), _) => Memory::private(object),
            (None, _) => Memory::Own(kind.ty),
        });
        let alias = object.as_ref().map(|object| map(Memory::shared(object)));
        let uffd = Uffd::new(&world.space, features);
        Self {
            world,
            uffd,
            range,
            alias,
            kind,
            _object: object,
        }
    }

    fn register(&self, modes: Modes) {
        self.uffd.register(self.range, modes).expect("the type can");
    }

    /// Puts a page with this word into the cache, through the other mapping.
    fn cache(&self, word: u64) {
        let alias = self.alias.expect("an object").start;
        self.world
            .run(|| uaccess::store(alias, word))
            .expect("nothing traps it");
    }

    /// How one look at a touch ends: the flag word of Linux's message (write 1, wp 2, minor 4), or "none", or the failure.
    fn look(&self, access: Access) -> Result<Option<u8>, FaultError> {
        let addr = self.range.start + 0x318;
        let task = Task::detached_in("toucher", Arc::clone(&self.world.space));
        let info = FaultInfo {
            addr,
            access,
            origin: Origin::Task,
        };
        let mut verdict = self.world.space.step(&info, &task);
        if matches!(verdict, Verdict::Retry) {
            // What was protected without a page has one now.
            verdict = self.world.space.step(&info, &task);
        }
        match verdict {
            Verdict::Resolved | Verdict::Retry => {
                assert_eq!(self.uffd.try_read_event(), Err(ReadError::WouldBlock));
                Ok(None)
            }
            Verdict::Failed(error) => {
                assert_eq!(self.uffd.try_read_event(), Err(ReadError::WouldBlock));
                Err(error)
            }
            Verdict::Delegated => {
                let event = self.uffd.try_read_event();
                let Ok(Event::Pagefault {
                    kind, write, addr, ..
                }) = event
                else {
                    panic!("a fault was queued, and this is read: {event:?}");
                };
                assert_eq!(addr, self.range.start, "the address is masked to the granule");
                let kind = match kind {
                    TrapKind::Missing => 0,
                    TrapKind::WriteProtect => 2,
                    TrapKind::Minor => 4,
                };
                self.uffd.wake(self.range).expect("a range");
                assert!(!task.fault.is_waiting());
                assert!(task.take_token());
                Ok(Some(kind + u8::from(write)))
            }
        }
    }

    fn load(&self) -> u64 {
        self.world
            .run(|| uaccess::load(self.range.start))
            .expect("nothing stops it")
    }

    fn store(&self, word: u64) {
        self.world
            .run(|| uaccess::store(self.range.start, word))
            .expect("nothing stops it");
    }

    fn entry(&self) -> Entry {
        self.world.space.entry(self.range.start).0
    }
}

/// Checks a row: the state that `prepare` makes, a read and a write in it, for each of the modes that are given.
#[track_caller]
fn row(kind: Kind, state: &str, prepare: impl Fn(&Bed, Modes), rows: &[(u8, Option<u8>, Option<u8>)]) {
    for &(modes, read, write) in rows {
        for (access, expected) in [(Access::Read, read), (Access::Write, write)] {
            let bed = Bed::new(kind, Features::WP_UNPOPULATED);
            let modes = Modes::from_bits_truncate(modes);
            prepare(&bed, modes);
            assert_eq!(
                bed.look(access),
                Ok(expected),
                "{} (shared: {:?}), {state}, {modes:?}, {access:?}",
                bed.kind.ty.name,
                bed.kind.shared
            );
        }
    }
}

const N: Option<u8> = None;

#[test]
fn empty_and_nothing_in_the_cache_is_missing_if_registered_and_filled_otherwise() {
    row(
        ANONYMOUS,
        "empty",
        |bed, modes| bed.register(modes),
        &[(1, Some(0), Some(1)), (2, N, N), (3, Some(0), Some(1))],
    );
    for kind in WITH_CACHE {
        row(
            kind,
            "empty, no page in the cache",
            |bed, modes| bed.register(modes),
            &[
                (1, Some(0), Some(1)),
                (2, N, N),
                (3, Some(0), Some(1)),
                (4, N, N),
                (5, Some(0), Some(1)),
                (6, N, N),
                (7, Some(0), Some(1)),
            ],
        );
    }
    row(
        GUEST,
        "empty, no page in the cache",
        |bed, modes| bed.register(modes),
        &[(1, Some(0), Some(1)), (4, N, N), (5, Some(0), Some(1))],
    );
}

#[test]
fn empty_with_a_page_in_the_cache_is_minor_if_registered_and_mapped_silently_otherwise() {
    for kind in WITH_CACHE {
        row(
            kind,
            "empty, page in the cache",
            |bed, modes| {
                bed.cache(7);
                bed.register(modes);
            },
            &[
                (1, N, N),
                (2, N, N),
                (3, N, N),
                (4, Some(4), Some(5)),
                (5, Some(4), Some(5)),
                (6, Some(4), Some(5)),
                (7, Some(4), Some(5)),
            ],
        );
    }
    row(
        GUEST,
        "empty, page in the cache",
        |bed, modes| {
            bed.cache(7);
            bed.register(modes);
        },
        &[(1, N, N), (4, Some(4), Some(5)), (5, Some(4), Some(5))],
    );
}

#[test]
fn a_wp_marker_is_missing_or_minor_first_and_wp_for_a_write_otherwise() {
    let arm = |bed: &Bed, modes| {
        bed.register(modes);
        bed.uffd.write_protect(bed.range).expect("registered for it");
        assert_eq!(bed.entry(), Entry::Absent(Marker::UffdWp));
    };
    row(
        ANONYMOUS,
        "marker",
        arm,
        &[(2, N, Some(3)), (3, Some(0), Some(1))],
    );
    for kind in WITH_CACHE {
        row(
            kind,
            "marker, hole",
            arm,
            &[
                (2, N, Some(3)),
                (3, Some(0), Some(1)),
                (6, N, Some(3)),
                (7, Some(0), Some(1)),
            ],
        );
        row(
            kind,
            "marker, in the cache",
            |bed, modes| {
                bed.cache(7);
                arm(bed, modes);
            },
            &[
                (2, N, Some(3)),
                (3, N, Some(3)),
                (6, Some(4), Some(5)),
                (7, Some(4), Some(5)),
            ],
        );
    }
}

#[test]
fn a_present_protected_page_is_wp_for_a_write_and_nothing_for_a_read() {
    for kind in [ANONYMOUS, SHMEM_SHARED, SHMEM_PRIVATE, HUGE_SHARED, HUGE_PRIVATE] {
        let modes: &[u8] = if kind.shared.is_some() {
            &[2, 3, 6, 7]
        } else {
            &[2, 3]
        };
        let rows: Vec<_> = modes.iter().map(|&modes| (modes, N, Some(3))).collect();
        for stored in [false, true] {
            row(
                kind,
                "present and protected",
                |bed, modes| {
                    if stored {
                        bed.store(5);
                    } else {
                        bed.load();
                    }
                    bed.register(modes);
                    bed.uffd.write_protect(bed.range).expect("registered for it");
                },
                &rows,
            );
        }
    }
}

#[test]
fn a_poisoned_page_is_a_bus_error_in_every_mode() {
    for kind in [
        ANONYMOUS,
        SHMEM_SHARED,
        SHMEM_PRIVATE,
        HUGE_SHARED,
        HUGE_PRIVATE,
        GUEST,
    ] {
        for access in [Access::Read, Access::Write] {
            let bed = Bed::new(kind, Features::empty());
            bed.register(Modes::MISSING);
            assert_eq!(bed.uffd.poison(bed.range, FillMode::empty()), Outcome::Done);
            assert_eq!(bed.look(access), Err(FaultError::Poisoned), "{}", kind.ty.name);
        }
    }
}

#[test]
fn an_access_beyond_the_end_of_the_object_is_a_bus_error_without_a_message() {
    for kind in [SHMEM_SHARED, SHMEM_PRIVATE, HUGE_SHARED, HUGE_PRIVATE, GUEST] {
        let world = object_world();
        let granule = kind.ty.granule().size();
        let object = Object::new(kind.ty, granule);
        let memory = match kind.shared {
            Some(true) => Memory::shared(&object),
            _ => Memory::private(&object),
        };
        let request = MapRequest {
            at: None,
            len: 2 * granule,
            prot: RW,
            memory,
        };
        let range = world.space.map(request).expect("longer than the object is fine");
        let uffd = Uffd::new(&world.space, Features::empty());
        uffd.register(range, Modes::MISSING).expect("the type can");
        let task = Task::detached_in("toucher", Arc::clone(&world.space));
        let info = FaultInfo {
            addr: VirtAddr::new(range.start.as_u64() + granule),
            access: Access::Read,
            origin: Origin::Task,
        };
        let verdict = world.space.step(&info, &task);
        assert!(
            matches!(verdict, Verdict::Failed(FaultError::BeyondEnd)),
            "{verdict:?}"
        );
        assert_eq!(uffd.try_read_event(), Err(ReadError::WouldBlock));
    }
}

#[test]
fn a_load_through_a_marker_that_nobody_traps_maps_a_page_and_keeps_the_protection() {
    for kind in [ANONYMOUS, SHMEM_SHARED, SHMEM_PRIVATE, HUGE_SHARED, HUGE_PRIVATE] {
        let bed = Bed::new(kind, Features::WP_UNPOPULATED);
        bed.register(Modes::WP);
        bed.uffd.write_protect(bed.range).expect("registered for it");
        assert_eq!(bed.load(), 0);
        let Entry::Leaf(leaf) = bed.entry() else {
            panic!("the load mapped something");
        };
        assert!(leaf.attr.flags.contains(AttrFlags::UFFD_WP), "{}", kind.ty.name);
        assert_eq!(bed.look(Access::Write), Ok(Some(3)));
    }
}

#[test]
fn copy_on_write_of_a_private_mapping_sends_no_message_and_leaves_the_object_alone() {
    for kind in [SHMEM_PRIVATE, HUGE_PRIVATE] {
        let bed = Bed::new(kind, Features::empty());
        bed.cache(7);
        bed.register(Modes::MISSING | Modes::MINOR | Modes::WP);
        assert_eq!(bed.uffd.cont(bed.range, FillMode::empty()), Outcome::Done);
        assert_eq!(bed.load(), 7);
        bed.store(8);
        assert_eq!(bed.load(), 8);
        let alias = bed.alias.expect("an object").start;
        assert_eq!(bed.world.run(|| uaccess::load(alias)), Ok(7));
        assert_eq!(bed.uffd.try_read_event(), Err(ReadError::WouldBlock));
    }
}

#[test]
fn stores_to_a_shared_mapping_are_seen_through_every_other() {
    for kind in [SHMEM_SHARED, HUGE_SHARED, GUEST] {
        let bed = Bed::new(kind, Features::empty());
        assert_eq!(bed.load(), 0);
        bed.store(11);
        let alias = bed.alias.expect("an object").start;
        assert_eq!(bed.world.run(|| uaccess::load(alias)), Ok(11));
        bed.cache(12);
        assert_eq!(bed.load(), 12);
    }
}

#[test]
fn with_two_modes_the_missing_message_comes_first_and_copy_with_wp_raises_a_second_one() {
    for kind in [ANONYMOUS, SHMEM_SHARED, SHMEM_PRIVATE, HUGE_SHARED, HUGE_PRIVATE] {
        let bed = Bed::new(kind, Features::empty());
        bed.register(Modes::MISSING | Modes::WP);
        assert_eq!(bed.look(Access::Write), Ok(Some(1)));
        let bytes = vec![3; bed.range.len() as usize];
        let outcome = bed
            .uffd
            .copy(bed.range.start, &bytes, bed.range.len(), FillMode::WP);
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(bed.look(Access::Read), Ok(N));
        assert_eq!(bed.look(Access::Write), Ok(Some(3)));
    }
}
