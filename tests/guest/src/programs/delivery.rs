//! Which fault is raised when (section 4.1): every type of memory, mode, state of the entry and access.

use guest_tests::attempt::{outcome, read, write, writing};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

/// A type of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Anon,
    ShmemShared,
    ShmemPrivate,
    HugeShared,
    HugePrivate,
}

use Type::*;

impl Type {
    fn name(self) -> &'static str {
        match self {
            Anon => "anon",
            ShmemShared => "shmem shared",
            ShmemPrivate => "shmem private",
            HugeShared => "hugetlb shared",
            HugePrivate => "hugetlb private",
        }
    }

    fn is_huge(self) -> bool {
        matches!(self, HugeShared | HugePrivate)
    }

    fn flags(self) -> i32 {
        match self {
            ShmemShared | HugeShared => libc::MAP_SHARED,
            // Private huge pages are not to be promised twice.
            _ => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        }
    }
}

/// What is at the address before the access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Hole,
    Cached,
    MarkerInHole,
    MarkerOverCache,
    PresentProtected,
    Poisoned,
}

use State::*;

impl State {
    fn name(self) -> &'static str {
        match self {
            Hole => "empty, nothing cached",
            Cached => "empty, cached",
            MarkerInHole => "WP marker, nothing cached",
            MarkerOverCache => "WP marker, cached",
            PresentProtected => "present, protected",
            Poisoned => "poison",
        }
    }
}

pub fn run() {
    for kind in [Anon, ShmemShared, ShmemPrivate, HugeShared, HugePrivate] {
        if kind.is_huge() && !want_huge_pages(2) {
            continue;
        }
        for mode in 1..8 {
            if kind == Anon && mode & MINOR != 0 {
                continue;
            }
            for state in [
                Hole,
                Cached,
                MarkerInHole,
                MarkerOverCache,
                PresentProtected,
                Poisoned,
            ] {
                let needs_wp = matches!(state, MarkerInHole | MarkerOverCache | PresentProtected);
                let needs_cache = matches!(state, Cached | MarkerOverCache);
                if needs_wp && mode & WP == 0 || needs_cache && kind == Anon {
                    continue;
                }
                for is_write in [false, true] {
                    row(kind, mode, state, is_write);
                }
            }
        }
    }
    rights();
    behind_the_end();
    small_pages_of_huge_areas();
    protection_changes();
}

/// Tries one access.
fn row(kind: Type, mode: u64, state: State, is_write: bool) {
    let unit = if kind.is_huge() { HUGE } else { PAGE };
    let object = match kind {
        Anon => -1,
        ShmemShared | ShmemPrivate => memfd(1),
        HugeShared | HugePrivate => huge_memfd(1).expect("huge pages are there"),
    };
    let flags = kind.flags() | if kind == Anon { libc::MAP_ANONYMOUS } else { 0 };
    let area = Region::map("area", unit, RW, flags, object, 0).expect("memory can be mapped");
    if matches!(state, Cached | MarkerOverCache) {
        let alias = Region::map("alias", unit, RW, libc::MAP_SHARED, object, 0).expect("it can be mapped");
        poke(alias.start, 0xca);
        alias.unmap().expect("it is mapped");
    }
    if state == PresentProtected {
        poke(area.start, 0xca);
    }
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    uffd.watch(&area, mode);
    if matches!(state, MarkerInHole | MarkerOverCache | PresentProtected) {
        uffd.writeprotect(area.start, unit, PROTECT)
            .expect("it is registered");
    }
    if state == Poisoned {
        assert_eq!(
            uffd.poison(area.start, unit, 0).answer,
            Ok(0),
            "an empty entry can be poisoned"
        );
    }
    let access = if is_write { "write" } else { "read" };
    let job = if is_write {
        write(area.start, 1)
    } else {
        read(area.start)
    };
    let name = format!("4.1 {}, mode {mode}: {}: {access}", kind.name(), state.name());
    check(&name, outcome(&uffd, &job), want(mode, state, is_write));
    // What a silent read leaves: the protection stays where there was a marker.
    if !is_write && matches!(state, MarkerInHole | MarkerOverCache) && job.done() && !kind.is_huge() {
        let wp = page(area.start);
        check(&format!("{name}: protected still"), wp.ends_with(" wp"), true);
    }
    drop(uffd);
    job.finish();
    area.unmap().expect("it is mapped");
    let _ = sys::close(object);
}

/// What the table says.
fn want(mode: u64, state: State, is_write: bool) -> String {
    let write = u64::from(is_write);
    let trap = match state {
        Hole if mode & MISSING != 0 => Some(write),
        Cached if mode & MINOR != 0 => Some(4 | write),
        MarkerInHole if mode & MISSING != 0 => Some(write),
        MarkerOverCache if mode & MINOR != 0 => Some(4 | write),
        MarkerInHole | MarkerOverCache | PresentProtected if is_write => Some(3),
        Poisoned => return "SIGBUS code 2 at area".into(),
        _ => None,
    };
    match (trap, state) {
        (Some(flags), _) => format!("fault flags {flags} at area"),
        (None, _) if is_write => "written".into(),
        (None, Hole | MarkerInHole) => "0x00".into(),
        (None, _) => "0xca".into(),
    }
}

/// The rights of the area come first.
fn rights() {
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 4);
    uffd.watch(&area, MISSING);
    mprotect(area.start, PAGE, libc::PROT_READ).expect("mprotect works");
    mprotect(area.page(1), PAGE, libc::PROT_NONE).expect("mprotect works");
    check(
        "4.1 PROT_READ, missing: write",
        writing(&uffd, area.start),
        "SIGSEGV code 2 at area",
    );
    check(
        "4.1 PROT_READ, missing: read",
        outcome(&uffd, &read(area.start)),
        "fault flags 0 at area",
    );
    check(
        "4.1 PROT_NONE, missing: read",
        outcome(&uffd, &read(area.page(1))),
        "SIGSEGV code 2 at area+0x1000",
    );
    check(
        "4.1 PROT_NONE, missing: write",
        writing(&uffd, area.page(1)),
        "SIGSEGV code 2 at area+0x1000",
    );
}

fn behind_the_end() {
    for (name, flags) in [("shared", libc::MAP_SHARED), ("private", libc::MAP_PRIVATE)] {
        let uffd = Uffd::with(0);
        let object = memfd(1);
        let area = Region::map("area", 2 * PAGE, RW, flags, object, 0).expect("it can be mapped");
        uffd.watch(&area, MISSING);
        let job = read(area.page(1));
        check(
            &format!("4.1 shmem {name}, behind the end of the file: read"),
            outcome(&uffd, &job),
            "SIGBUS code 2 at area+0x1000",
        );
        let job = write(area.page(1), 1);
        check(
            &format!("4.1 shmem {name}, behind the end of the file: write"),
            outcome(&uffd, &job),
            "SIGBUS code 2 at area+0x1000",
        );
    }
}

/// Where huge pages could be had, faults are of small pages.
fn small_pages_of_huge_areas() {
    let uffd = Uffd::with(0);
    let area = Region::map("area", 2 * HUGE, RW, ANON, -1, 0).expect("memory can be mapped");
    let source = Region::filled("source", 1, 0x5c);
    check("4.1 MADV_HUGEPAGE", ok(area.advise(libc::MADV_HUGEPAGE)), "ok");
    uffd.watch(&area, MISSING);
    let waiter = write(area.page(3), 1);
    check(
        "4.1 THP: a write",
        outcome(&uffd, &waiter),
        "fault flags 1 at area+0x3000",
    );
    check(
        "4.1 THP: one small page",
        uffd.copy(area.page(3), source.start, PAGE, 0),
        "ok 1p",
    );
    check("4.1 THP: the writer", waiter.finish(), "written");
    check(
        "4.1 THP: the page beside it",
        outcome(&uffd, &read(area.page(4))),
        "fault flags 0 at area+0x4000",
    );
}

/// The protection of the channel survives mprotect.
fn protection_changes() {
    let uffd = Uffd::with(0);
    let area = Region::filled("area", 1, 0x11);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    check(
        "4.1 mprotect to read",
        ok(mprotect(area.start, PAGE, libc::PROT_READ)),
        "ok",
    );
    check(
        "4.1 mprotect to read and write",
        ok(mprotect(area.start, PAGE, RW)),
        "ok",
    );
    check("4.1 the bit after mprotect", page(area.start), "present wp");
    check(
        "4.1 a write after mprotect",
        writing(&uffd, area.start),
        "fault flags 3 at area",
    );
    let zeros = Region::anon("zeros", 1);
    uffd.watch(&zeros, MISSING);
    uffd.zeropage(zeros.start, PAGE, 0);
    check(
        "4.1 a write after ZEROPAGE",
        writing(&uffd, zeros.start),
        "written",
    );
    check("4.1 its byte", peek(zeros.start), "0x77");
}
