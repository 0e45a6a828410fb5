//! mremap of registered memory (section 4.8, end).

use guest_tests::attempt::{outcome, read, reading, writing};
use guest_tests::job;
use guest_tests::proc::{page, uffd_flags};
use guest_tests::region::*;
use guest_tests::touch::peek;
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

const MOVE: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

pub fn run() {
    moved();
    kept();
    dontunmap();
    grown();
    waiter();
}

fn stage(features: u64) -> (Uffd, Region, Region) {
    let uffd = Uffd::with(features);
    let area = Region::anon("area", 4);
    area.fill(0, 2, 0x11);
    uffd.watch(&area, MISSING | WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    (uffd, area, Region::hole("to", 4 * PAGE))
}

fn moved() {
    let (uffd, area, to) = stage(0);
    check(
        "4.8 mremap, no feature",
        ok(mremap(area.start, area.len, area.len, MOVE, to.start)),
        "ok",
    );
    check("4.8 mremap, no feature: no event", uffd.now(), "EAGAIN");
    check(
        "4.8 mremap, no feature: VmFlags there",
        uffd_flags(to.start),
        "none",
    );
    check(
        "4.8 mremap, no feature: a protected page",
        page(to.start),
        "present",
    );
    check(
        "4.8 mremap, no feature: a write to it",
        writing(&uffd, to.start),
        "written",
    );
    check(
        "4.8 mremap, no feature: a missing page",
        reading(&uffd, to.page(3)),
        "0x00",
    );
    check(
        "4.8 mremap, no feature: the old place",
        peek(area.start),
        "SIGSEGV code 1 at area",
    );
}

fn kept() {
    let (uffd, area, to) = stage(feature::EVENT_REMAP);
    let caller = job::start(move || ok(mremap(area.start, area.len, area.len, MOVE, to.start)));
    check(
        "4.8 mremap, EVENT_REMAP: the message",
        uffd.told(),
        "remap area to to of 4p",
    );
    check("4.8 mremap, EVENT_REMAP: the call", caller.finish(), "ok");
    check(
        "4.8 mremap, EVENT_REMAP: VmFlags there",
        uffd_flags(to.start),
        "um uw",
    );
    check(
        "4.8 mremap, EVENT_REMAP: a protected page",
        writing(&uffd, to.start),
        "fault flags 3 at to",
    );
    check(
        "4.8 mremap, EVENT_REMAP: a missing page",
        reading(&uffd, to.page(3)),
        "fault flags 0 at to+0x3000",
    );
    check(
        "4.8 mremap, EVENT_REMAP: a fill there",
        uffd.zeropage(to.page(3), PAGE, 0),
        "ok 1p",
    );
}

fn dontunmap() {
    for (name, features) in [("no feature", 0), ("EVENT_REMAP", feature::EVENT_REMAP)] {
        let (uffd, area, to) = stage(features);
        let flags = MOVE | libc::MREMAP_DONTUNMAP;
        let caller = job::start(move || ok(mremap(area.start, area.len, area.len, flags, to.start)));
        if features != 0 {
            check(
                &format!("4.8 DONTUNMAP, {name}: the message"),
                uffd.told(),
                "remap area to to of 4p",
            );
        }
        check(&format!("4.8 DONTUNMAP, {name}: the call"), caller.finish(), "ok");
        check(
            &format!("4.8 DONTUNMAP, {name}: VmFlags of the old"),
            uffd_flags(area.start),
            "um uw",
        );
        check(
            &format!("4.8 DONTUNMAP, {name}: the old place"),
            reading(&uffd, area.start),
            "fault flags 0 at area",
        );
        let there = if features == 0 { "none" } else { "um uw" };
        check(
            &format!("4.8 DONTUNMAP, {name}: VmFlags of the new"),
            uffd_flags(to.start),
            there,
        );
        check(
            &format!("4.8 DONTUNMAP, {name}: the page"),
            peek(to.start),
            "0x11",
        );
        let missing = if features == 0 {
            "0x00"
        } else {
            "fault flags 0 at to+0x3000"
        };
        check(
            &format!("4.8 DONTUNMAP, {name}: a missing page of the new"),
            reading(&uffd, to.page(3)),
            missing,
        );
    }
}

fn grown() {
    let (uffd, area, _) = stage(feature::EVENT_REMAP | feature::EVENT_UNMAP);
    check(
        "4.8 grown in place",
        ok(mremap(area.start, 4 * PAGE, 8 * PAGE, 0, 0)),
        "ok",
    );
    let area = Region::named("area", area.start, 8 * PAGE);
    check("4.8 grown in place: no event", uffd.now(), "EAGAIN");
    check(
        "4.8 grown in place: VmFlags of the new part",
        uffd_flags(area.page(6)),
        "um uw",
    );
    check(
        "4.8 grown in place: a read of the new part",
        outcome(&uffd, &read(area.page(6))),
        "fault flags 0 at area+0x6000",
    );
}

/// A thread that waits in the range when it moves away.
fn waiter() {
    let (uffd, area, to) = stage(0);
    let waiter = read(area.page(3));
    check(
        "4.8 mremap under a waiter: it waits",
        outcome(&uffd, &waiter),
        "fault flags 0 at area+0x3000",
    );
    check(
        "4.8 mremap under a waiter",
        ok(mremap(area.start, area.len, area.len, MOVE, to.start)),
        "ok",
    );
    check(
        "4.8 mremap under a waiter: it waits still",
        waiter.settle(),
        "blocked",
    );
    check(
        "4.8 mremap under a waiter: WAKE",
        ok(uffd.wake(area.page(3), PAGE)),
        "ok",
    );
    check(
        "4.8 mremap under a waiter: what it gets",
        waiter.finish(),
        "SIGSEGV code 1 at area+0x3000",
    );
}
