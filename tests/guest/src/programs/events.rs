//! Events: who waits, and what has happened to the memory meanwhile (section 4.8).

use guest_tests::attempt::{outcome, read, reading, write};
use guest_tests::job::{self, Job, until};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

const DONTNEED_LOCKED: i32 = 24;
const GUARD_INSTALL: i32 = 102;
const ALL_EVENTS: u64 = feature::EVENT_REMAP | feature::EVENT_REMOVE | feature::EVENT_UNMAP;

pub fn run() {
    advice();
    shared_advice();
    two_areas();
    huge_advice();
    unmap();
    map_over();
    remap();
    silent();
    held_signals();
    close();
    without_features();
}

/// A region with its pages present, registered MISSING.
fn watched(uffd: &Uffd, name: &str, pages: usize) -> Region {
    let region = Region::anon(name, pages);
    region.fill(0, pages, 0x11);
    uffd.watch(&region, MISSING);
    region
}

/// Starts a call that is to be told about.
fn begin(work: impl FnOnce() -> String + Send + 'static) -> Job {
    job::start(work)
}

fn advice() {
    for (name, advice, after) in [
        ("MADV_DONTNEED", libc::MADV_DONTNEED, "empty"),
        ("MADV_DONTNEED_LOCKED", DONTNEED_LOCKED, "empty"),
        ("MADV_FREE", libc::MADV_FREE, "present"),
    ] {
        let uffd = Uffd::with(ALL_EVENTS);
        let area = watched(&uffd, "area", 4);
        let caller = begin(move || ok(madvise(area.page(1), 2 * PAGE, advice)));
        check(&format!("4.8 {name}: the caller"), caller.settle(), "blocked (D)");
        check(
            &format!("4.8 {name}: the pages meanwhile"),
            peek(area.page(1)),
            "0x11",
        );
        check(
            &format!("4.8 {name}: the message"),
            uffd.told(),
            "remove area+0x1000 to area+0x3000",
        );
        check(&format!("4.8 {name}: the call"), caller.finish(), "ok");
        check(
            &format!("4.8 {name}: the page afterwards"),
            page(area.page(1)),
            after,
        );
        check(&format!("4.8 {name}: its neighbour"), page(area.start), "present");
    }
    let uffd = Uffd::with(ALL_EVENTS);
    let area = watched(&uffd, "area", 1);
    check(
        "4.8 MADV_REMOVE of anon",
        ok(area.advise(libc::MADV_REMOVE)),
        "EINVAL",
    );
    check("4.8 MADV_REMOVE of anon: no event", uffd.now(), "EAGAIN");
}

fn shared_advice() {
    let stage = || {
        let uffd = Uffd::with(ALL_EVENTS);
        let object = memfd(2);
        let area = Region::shared("area", object, 2);
        area.fill(0, 2, 0x11);
        uffd.watch(&area, MISSING);
        (uffd, area)
    };
    for (name, advice, call, after) in [
        ("MADV_REMOVE of shmem", libc::MADV_REMOVE, "ok", "empty"),
        ("MADV_DONTNEED of shmem", libc::MADV_DONTNEED, "ok", "empty"),
        ("MADV_FREE of shmem", libc::MADV_FREE, "EINVAL", "present file"),
    ] {
        let (uffd, area) = stage();
        let caller = begin(move || ok(area.advise(advice)));
        check(&format!("4.8 {name}: the caller"), caller.settle(), "blocked (D)");
        check(
            &format!("4.8 {name}: the pages meanwhile"),
            peek(area.start),
            "0x11",
        );
        check(
            &format!("4.8 {name}: the message"),
            uffd.told(),
            "remove area to area+0x2000",
        );
        check(&format!("4.8 {name}: the call"), caller.finish(), call);
        check(
            &format!("4.8 {name}: the page afterwards"),
            page(area.start),
            after,
        );
    }
}

/// One event for each area, clipped to it.
fn two_areas() {
    let uffd = Uffd::with(ALL_EVENTS);
    let area = watched(&uffd, "area", 6);
    mprotect(area.page(3), 3 * PAGE, libc::PROT_READ).expect("mprotect works");
    let caller = begin(move || ok(madvise(area.page(1), 4 * PAGE, libc::MADV_DONTNEED)));
    check(
        "4.8 two areas: the first message",
        uffd.told(),
        "remove area+0x1000 to area+0x3000",
    );
    check(
        "4.8 two areas: the second",
        uffd.told(),
        "remove area+0x3000 to area+0x5000",
    );
    check("4.8 two areas: the call", caller.finish(), "ok");
    let both = Region::filled("both", 2, 1);
    let first = Uffd::with(ALL_EVENTS);
    let second = Uffd::with(ALL_EVENTS);
    first.register(both.start, PAGE, MISSING).expect("it is free");
    second.register(both.page(1), PAGE, MISSING).expect("it is free");
    let caller = begin(move || ok(both.advise(libc::MADV_DONTNEED)));
    check(
        "4.8 two descriptors: the first",
        first.told(),
        "remove both to both+0x1000",
    );
    check(
        "4.8 two descriptors: the second",
        second.told(),
        "remove both+0x1000 to both+0x2000",
    );
    check("4.8 two descriptors: the call", caller.finish(), "ok");
}

fn huge_advice() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(ALL_EVENTS);
    let area = Region::huge("huge", 2);
    poke(area.start, 1);
    poke(area.start + HUGE, 1);
    uffd.watch(&area, MISSING);
    let caller = begin(move || ok(madvise(area.start, HUGE + PAGE, libc::MADV_DONTNEED)));
    check(
        "4.8 hugetlb, MADV_DONTNEED of one and a bit",
        uffd.told(),
        "remove huge to huge+0x200000",
    );
    check("4.8 hugetlb, the call", caller.finish(), "ok");
    check("4.8 hugetlb, the first", page(area.start), "empty");
    check("4.8 hugetlb, the second", page(area.start + HUGE), "present");
}

fn unmap() {
    let uffd = Uffd::with(ALL_EVENTS);
    let area = Region::filled("area", 6, 0x11);
    uffd.register(area.page(2), PAGE, MISSING).expect("it is free");
    uffd.register(area.page(4), PAGE, MISSING).expect("it is free");
    let caller = begin(move || ok(area.unmap()));
    check("4.8 munmap: the caller", caller.settle(), "blocked (D)");
    check(
        "4.8 munmap: meanwhile",
        peek(area.page(2)),
        "SIGSEGV code 1 at area+0x2000",
    );
    check(
        "4.8 munmap: one message, the whole range",
        uffd.told(),
        "unmap area to area+0x6000",
    );
    check("4.8 munmap: the call", caller.finish(), "ok");
    check("4.8 munmap: no second message", uffd.now(), "EAGAIN");
    let both = Region::anon("both", 2);
    let second = Uffd::with(ALL_EVENTS);
    uffd.register(both.start, PAGE, MISSING).expect("it is free");
    second.register(both.page(1), PAGE, MISSING).expect("it is free");
    let caller = begin(move || ok(both.unmap()));
    check("4.8 munmap of two: the caller", caller.settle(), "blocked (D)");
    check(
        "4.8 munmap of two: the first",
        uffd.told(),
        "unmap both to both+0x2000",
    );
    check(
        "4.8 munmap of two: the second",
        second.told(),
        "unmap both to both+0x2000",
    );
    check("4.8 munmap of two: the call", caller.finish(), "ok");
}

fn map_over() {
    let uffd = Uffd::with(ALL_EVENTS);
    let area = watched(&uffd, "area", 4);
    let caller = begin(move || ok(mmap(area.page(1), 2 * PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)));
    check("4.8 MAP_FIXED: the caller", caller.settle(), "blocked (D)");
    check(
        "4.8 MAP_FIXED: the new mapping is there",
        peek(area.page(1)),
        "0x00",
    );
    check(
        "4.8 MAP_FIXED: the message",
        uffd.told(),
        "unmap area+0x1000 to area+0x3000",
    );
    check("4.8 MAP_FIXED: the call", caller.finish(), "ok");
}

fn remap() {
    let uffd = Uffd::with(ALL_EVENTS);
    let area = watched(&uffd, "area", 4);
    let caller = begin(move || ok(mremap(area.start, 4 * PAGE, 2 * PAGE, 0, 0)));
    check("4.8 mremap shrinks: the caller", caller.settle(), "blocked (D)");
    check(
        "4.8 mremap shrinks: the tail",
        peek(area.page(2)),
        "SIGSEGV code 1 at area+0x2000",
    );
    check(
        "4.8 mremap shrinks: the message",
        uffd.told(),
        "unmap area+0x2000 to area+0x4000",
    );
    check("4.8 mremap shrinks: the call", caller.finish(), "ok");

    let area = watched(&uffd, "area", 4);
    let to = Region::hole("to", 4 * PAGE);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let caller = begin(move || ok(mremap(area.start, area.len, area.len, flags, to.start)));
    check("4.8 mremap moves: the caller", caller.settle(), "blocked (D)");
    check("4.8 mremap moves: it is there", peek(to.start), "0x11");
    check(
        "4.8 mremap moves: the old place",
        peek(area.start),
        "SIGSEGV code 1 at area",
    );
    check(
        "4.8 mremap moves: the first message",
        uffd.told(),
        "remap area to to of 4p",
    );
    check(
        "4.8 mremap moves: the second",
        uffd.told(),
        "unmap area to area+0x4000",
    );
    check("4.8 mremap moves: the call", caller.finish(), "ok");
    check(
        "4.8 mremap moves: registered there",
        ok(uffd.unregister(to.start, to.len)),
        "ok",
    );

    // Grows, and something is in the way.
    let area = watched(&uffd, "area", 2);
    let wall = mmap(area.end(), PAGE, libc::PROT_NONE, ANON | libc::MAP_FIXED, -1, 0);
    let to = Region::hole("to", 4 * PAGE);
    let caller = begin(move || ok(mremap(area.start, 2 * PAGE, 4 * PAGE, flags, to.start)));
    check("4.8 mremap grows and moves: the wall", ok(wall), "ok");
    check(
        "4.8 mremap grows and moves: the first message",
        uffd.told(),
        "remap area to to of 2p",
    );
    check(
        "4.8 mremap grows and moves: the second",
        uffd.told(),
        "unmap area to area+0x2000",
    );
    check("4.8 mremap grows and moves: the call", caller.finish(), "ok");
    check(
        "4.8 mremap grows and moves: the new part",
        outcome(&uffd, &read(to.page(3))),
        "fault flags 0 at to+0x3000",
    );

    let area = watched(&uffd, "area", 2);
    let to = Region::hole("to", 2 * PAGE);
    let flags = flags | libc::MREMAP_DONTUNMAP;
    let caller = begin(move || ok(mremap(area.start, area.len, area.len, flags, to.start)));
    check("4.8 mremap DONTUNMAP: the caller", caller.settle(), "blocked (D)");
    check("4.8 mremap DONTUNMAP: it is there", peek(to.start), "0x11");
    check(
        "4.8 mremap DONTUNMAP: the message",
        uffd.told(),
        "remap area to to of 2p",
    );
    check("4.8 mremap DONTUNMAP: the call", caller.finish(), "ok");
    check("4.8 mremap DONTUNMAP: no second message", uffd.now(), "EAGAIN");
    check(
        "4.8 mremap DONTUNMAP: the old place is missing",
        reading(&uffd, area.start),
        "fault flags 0 at area",
    );

    let only = Uffd::with(feature::EVENT_REMAP);
    let area = watched(&only, "area", 2);
    let to = Region::hole("to", 2 * PAGE);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let caller = begin(move || ok(mremap(area.start, area.len, area.len, flags, to.start)));
    check(
        "4.8 mremap moves, EVENT_REMAP alone: the message",
        only.told(),
        "remap area to to of 2p",
    );
    check(
        "4.8 mremap moves, EVENT_REMAP alone: the call",
        caller.finish(),
        "ok",
    );
}

/// Calls that tell nobody.
fn silent() {
    let uffd = Uffd::with(ALL_EVENTS | feature::EVENT_FORK);
    let row = |name: &str, caller: Job| {
        let settled = caller.finish();
        check(&format!("4.8 {name}: the call"), settled, "ok");
        check(&format!("4.8 {name}: no event"), uffd.now(), "EAGAIN");
    };
    let area = watched(&uffd, "area", 2);
    row(
        "mremap grows in place",
        begin(move || ok(mremap(area.start, 2 * PAGE, 4 * PAGE, 0, 0))),
    );
    let area = watched(&uffd, "area", 2);
    row(
        "mprotect",
        begin(move || ok(mprotect(area.start, PAGE, libc::PROT_READ))),
    );
    row("MADV_PAGEOUT", begin(move || ok(madvise(area.page(1), PAGE, 21))));
    row("MADV_COLD", begin(move || ok(madvise(area.page(1), PAGE, 20))));
    row(
        "guard install",
        begin(move || ok(madvise(area.page(1), PAGE, GUARD_INSTALL))),
    );
    let object = memfd(2);
    let shared = Region::shared("shared", object, 2);
    shared.fill(0, 2, 1);
    uffd.watch(&shared, MISSING);
    let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
    row(
        "punched hole",
        begin(move || ok(call(libc::SYS_fallocate, &[object as usize, mode, 0, PAGE]))),
    );
    row("truncated file", begin(move || ok(ftruncate(object, 0))));
    row(
        "thread",
        begin(|| std::thread::spawn(|| "ok".to_string()).join().unwrap_or_default()),
    );
    row(
        "vfork and exec",
        begin(|| crate::roles::spawn_and_wait(&["exit", "0"]).replace("exit 0", "ok")),
    );
    let elsewhere = Region::anon("elsewhere", 2);
    row(
        "munmap of what is not registered",
        begin(move || ok(elsewhere.unmap())),
    );
    let elsewhere = Region::anon("elsewhere", 2);
    row(
        "MADV_DONTNEED of what is not registered",
        begin(move || ok(elsewhere.advise(libc::MADV_DONTNEED))),
    );
}

/// Signals wait until the event is read.
fn held_signals() {
    signal::catch(libc::SIGUSR1, 0, &[]);
    let uffd = Uffd::with(ALL_EVENTS);
    let area = watched(&uffd, "area", 2);
    let caller = begin(move || ok(area.advise(libc::MADV_DONTNEED)));
    check(
        "4.8 signal for the caller: it waits",
        caller.settle(),
        "blocked (D)",
    );
    check(
        "4.8 signal for the caller",
        ok(signal::tgkill(caller.tid(), libc::SIGUSR1)),
        "ok",
    );
    check(
        "4.8 signal for the caller: it waits still",
        caller.settle(),
        "blocked (D)",
    );
    check("4.8 signal for the caller: no handler yet", signal::count(), "0");
    check(
        "4.8 signal for the caller: the message",
        uffd.told(),
        "remove area to area+0x2000",
    );
    check("4.8 signal for the caller: the call", caller.finish(), "ok");
    check(
        "4.8 signal for the caller: the handler",
        until(|| signal::count() == 1),
        true,
    );
}

/// Closing releases those who wait for a reader.
fn close() {
    let uffd = Uffd::with(ALL_EVENTS);
    let first = watched(&uffd, "first", 2);
    let second = watched(&uffd, "second", 2);
    let caller = begin(move || ok(first.advise(libc::MADV_DONTNEED)));
    let unmapper = begin(move || ok(second.unmap()));
    check("4.8 close: the first caller", caller.settle(), "blocked (D)");
    check("4.8 close: the second", unmapper.settle(), "blocked (D)");
    drop(uffd);
    check("4.8 close: the first call", caller.finish(), "ok");
    check("4.8 close: the second call", unmapper.finish(), "ok");
    check("4.8 close: the pages are gone", peek(first.start), "0x00");
    check(
        "4.8 close: so is the mapping",
        peek(second.start),
        "SIGSEGV code 1 at second",
    );
}

/// Nothing is told where nothing was asked for.
fn without_features() {
    let uffd = Uffd::with(0);
    let area = watched(&uffd, "area", 4);
    let source = Region::filled("source", 1, 0x5c);
    check(
        "4.8 without features: MADV_DONTNEED",
        ok(madvise(area.start, PAGE, libc::MADV_DONTNEED)),
        "ok",
    );
    check(
        "4.8 without features: missing again",
        reading(&uffd, area.start),
        "fault flags 0 at area",
    );
    check(
        "4.8 without features: munmap",
        ok(call(libc::SYS_munmap, &[area.page(3), PAGE])),
        "ok",
    );
    check("4.8 without features: no event", uffd.now(), "EAGAIN");
    madvise(area.page(1), PAGE, libc::MADV_DONTNEED).expect("madvise works");
    let writer = write(area.page(1), 1);
    check(
        "4.8 mprotect under a waiter: it waits",
        outcome(&uffd, &writer),
        "fault flags 1 at area+0x1000",
    );
    check(
        "4.8 mprotect under a waiter",
        ok(mprotect(area.page(1), PAGE, libc::PROT_READ)),
        "ok",
    );
    check(
        "4.8 mprotect under a waiter: it waits still",
        writer.settle(),
        "blocked",
    );
    check(
        "4.8 mprotect under a waiter: COPY",
        uffd.copy(area.page(1), source.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "4.8 mprotect under a waiter: what it gets",
        writer.finish(),
        "SIGSEGV code 2 at area+0x1000",
    );
    madvise(area.page(2), PAGE, libc::MADV_DONTNEED).expect("madvise works");
    let reader = read(area.page(2));
    check(
        "4.8 munmap under a waiter: it waits",
        outcome(&uffd, &reader),
        "fault flags 0 at area+0x2000",
    );
    check(
        "4.8 munmap under a waiter",
        ok(call(libc::SYS_munmap, &[area.page(2), PAGE])),
        "ok",
    );
    check(
        "4.8 munmap under a waiter: it waits still",
        reader.settle(),
        "blocked",
    );
    check(
        "4.8 munmap under a waiter: WAKE",
        ok(uffd.wake(area.page(2), PAGE)),
        "ok",
    );
    check(
        "4.8 munmap under a waiter: what it gets",
        reader.finish(),
        "SIGSEGV code 1 at area+0x2000",
    );
}
