//! What becomes of protection and poison when memory is dropped, cut, forked and moved (section 4.6).

use guest_tests::attempt::{reading, writing};
use guest_tests::child::fork;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

const MARKER: &str = "0x420000000000003f";
const POISON: &str = "0x400000000000005f";

pub fn run() {
    anon_dropped();
    shmem_dropped();
    punched();
    truncated();
    forked();
    moved();
    closed();
    huge_dropped();
}

/// Two pages that are protected, the second one empty, and one that is poisoned.
fn prepare(uffd: &Uffd, area: &Region) {
    area.fill(0, 1, 0x11);
    uffd.watch(area, MISSING | WP);
    uffd.writeprotect(area.start, 2 * PAGE, PROTECT)
        .expect("it is registered");
    assert_eq!(
        uffd.poison(area.page(2), PAGE, 0).answer,
        Ok(0),
        "an empty entry can be poisoned"
    );
}

/// An anonymous and a shared region, prepared.
fn both_kinds() -> (Uffd, Region, Region) {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let area = Region::anon("area", 4);
    prepare(&uffd, &area);
    let shared = Region::shared("shared", memfd(4), 4);
    prepare(&uffd, &shared);
    (uffd, area, shared)
}

fn anon_dropped() {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let area = Region::anon("area", 4);
    prepare(&uffd, &area);
    check("4.6 anon, before: page", page(area.start), "present wp");
    check("4.6 anon, before: marker", page(area.page(1)), MARKER);
    check("4.6 anon, before: poison", page(area.page(2)), POISON);
    check(
        "4.6 anon, MADV_DONTNEED",
        ok(area.advise(libc::MADV_DONTNEED)),
        "ok",
    );
    check("4.6 anon, MADV_DONTNEED: page", page(area.start), "empty");
    check("4.6 anon, MADV_DONTNEED: marker", page(area.page(1)), "empty");
    check("4.6 anon, MADV_DONTNEED: poison", page(area.page(2)), "empty");
    check(
        "4.6 anon, MADV_DONTNEED: a write",
        writing(&uffd, area.start),
        "fault flags 1 at area",
    );
}

fn shmem_dropped() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let area = Region::shared("area", object, 4);
    prepare(&uffd, &area);
    check(
        "4.6 shmem, MADV_DONTNEED",
        ok(area.advise(libc::MADV_DONTNEED)),
        "ok",
    );
    check("4.6 shmem, MADV_DONTNEED: page", page(area.start), MARKER);
    check("4.6 shmem, MADV_DONTNEED: marker", page(area.page(1)), MARKER);
    check("4.6 shmem, MADV_DONTNEED: poison", page(area.page(2)), "empty");
    check(
        "4.6 shmem, MADV_DONTNEED: a read",
        reading(&uffd, area.start),
        "0x11",
    );
    check(
        "4.6 shmem, MADV_DONTNEED: a write",
        writing(&uffd, area.start),
        "fault flags 3 at area",
    );
}

fn punched() {
    for (name, by_advice) in [("MADV_REMOVE", true), ("punched hole", false)] {
        let uffd = Uffd::with(0);
        let object = memfd(4);
        let area = Region::shared("area", object, 4);
        prepare(&uffd, &area);
        let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
        let done = if by_advice {
            area.advise(libc::MADV_REMOVE)
        } else {
            call(libc::SYS_fallocate, &[object as usize, mode, 0, 4 * PAGE]).map(drop)
        };
        check(&format!("4.6 shmem, {name}"), ok(done), "ok");
        check(&format!("4.6 shmem, {name}: page"), page(area.start), MARKER);
        check(&format!("4.6 shmem, {name}: marker"), page(area.page(1)), MARKER);
        check(&format!("4.6 shmem, {name}: poison"), page(area.page(2)), POISON);
        check(
            &format!("4.6 shmem, {name}: a write"),
            writing(&uffd, area.start),
            "fault flags 1 at area",
        );
    }
}

fn truncated() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let area = Region::shared("area", object, 4);
    area.fill(0, 2, 0x11);
    uffd.watch(&area, WP);
    uffd.protect(&area);
    check("4.6 shmem, cut", ok(ftruncate(object, 0)), "ok");
    check("4.6 shmem, cut: page", page(area.start), MARKER);
    check(
        "4.6 shmem, cut: an access",
        peek(area.start),
        "SIGBUS code 2 at area",
    );
    check("4.6 shmem, grown again", ok(ftruncate(object, 4 * PAGE)), "ok");
    check(
        "4.6 shmem, grown again: a write",
        writing(&uffd, area.start),
        "fault flags 3 at area",
    );
    check(
        "4.6 shmem, grown again: a write to the page that was empty",
        writing(&uffd, area.page(3)),
        "fault flags 3 at area+0x3000",
    );
}

/// A child without EVENT_FORK.
fn forked() {
    let (uffd, area, shared) = both_kinds();
    let child = fork(|| {
        check("4.6 fork, child: anon page", page(area.start), "present");
        check("4.6 fork, child: anon marker", page(area.page(1)), "empty");
        check("4.6 fork, child: anon poison", page(area.page(2)), POISON);
        check(
            "4.6 fork, child: anon poison: an access",
            peek(area.page(2)),
            "SIGBUS code 2 at area+0x2000",
        );
        check(
            "4.6 fork, child: a write to the anon page",
            poke(area.start, 1),
            "written",
        );
        check(
            "4.6 fork, child: a write where the marker was",
            poke(area.page(1), 1),
            "written",
        );
        check("4.6 fork, child: a missing anon page", peek(area.page(3)), "0x00");
        check("4.6 fork, child: shmem marker", page(shared.page(1)), "empty");
        check("4.6 fork, child: shmem poison", page(shared.page(2)), "empty");
        check(
            "4.6 fork, child: shmem poison: an access",
            peek(shared.page(2)),
            "0x00",
        );
        check(
            "4.6 fork, child: a write to the shmem page",
            poke(shared.start, 0x22),
            "written",
        );
        0
    });
    check("4.6 fork, child: its end", child.wait(), "exit 0");
    check("4.6 fork, parent: anon page", page(area.start), "present wp");
    check("4.6 fork, parent: anon marker", page(area.page(1)), MARKER);
    check("4.6 fork, parent: anon poison", page(area.page(2)), POISON);
    check(
        "4.6 fork, parent: shmem page",
        page(shared.start),
        "present file wp",
    );
    check("4.6 fork, parent: shmem poison", page(shared.page(2)), POISON);
    check(
        "4.6 fork, parent: a write",
        writing(&uffd, area.start),
        "fault flags 3 at area",
    );
    check(
        "4.6 fork, parent: what the child wrote to shmem",
        peek(shared.start),
        "0x22",
    );
}

fn moved() {
    for (name, features) in [
        ("without EVENT_REMAP", 0),
        ("with EVENT_REMAP", feature::EVENT_REMAP),
    ] {
        let uffd = Uffd::with(feature::WP_UNPOPULATED | features);
        let area = Region::anon("area", 4);
        let to = Region::hole("to", 4 * PAGE);
        prepare(&uffd, &area);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let job =
            guest_tests::job::start(move || ok(mremap(area.start, area.len, area.len, flags, to.start)));
        if features != 0 {
            check(
                &format!("4.6 mremap {name}: the message"),
                uffd.told(),
                "remap area to to of 4p",
            );
        }
        check(&format!("4.6 mremap {name}"), job.finish(), "ok");
        let (wp, marker) = if features == 0 {
            ("present", "empty")
        } else {
            ("present wp", MARKER)
        };
        check(&format!("4.6 mremap {name}: page"), page(to.start), wp);
        check(&format!("4.6 mremap {name}: marker"), page(to.page(1)), marker);
        check(&format!("4.6 mremap {name}: poison"), page(to.page(2)), POISON);
        let write = if features == 0 {
            "written"
        } else {
            "fault flags 3 at to"
        };
        check(
            &format!("4.6 mremap {name}: a write"),
            writing(&uffd, to.start),
            write,
        );
        check(
            &format!("4.6 mremap {name}: the old place"),
            peek(area.start),
            "SIGSEGV code 1 at area",
        );
    }
}

fn closed() {
    let (uffd, area, shared) = both_kinds();
    drop(uffd);
    check("4.6 close: anon page", page(area.start), "present");
    check("4.6 close: anon marker", page(area.page(1)), "empty");
    check("4.6 close: anon poison", page(area.page(2)), POISON);
    check("4.6 close: shmem page", page(shared.start), "present file");
    check("4.6 close: shmem marker", page(shared.page(1)), "empty");
    check("4.6 close: shmem poison", page(shared.page(2)), POISON);
    check("4.6 close: a write", poke(area.start, 1), "written");
    check(
        "4.6 close: poison goes on",
        peek(area.page(2)),
        "SIGBUS code 2 at area+0x2000",
    );
}

fn huge_dropped() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(0);
    let object = huge_memfd(1).expect("huge pages are there");
    let area = Region::map("huge", HUGE, RW, libc::MAP_SHARED, object, 0).expect("it can be mapped");
    poke(area.start, 1);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, HUGE, PROTECT)
        .expect("it is registered");
    check("4.6 hugetlb, before", page(area.start), "present file wp");
    check(
        "4.6 hugetlb, MADV_DONTNEED",
        ok(area.advise(libc::MADV_DONTNEED)),
        "ok",
    );
    check(
        "4.6 hugetlb, MADV_DONTNEED: the entry",
        page(area.start),
        "0x200000000000000",
    );
    check(
        "4.6 hugetlb, MADV_DONTNEED: a write",
        writing(&uffd, area.start),
        "fault flags 3 at huge",
    );
}
