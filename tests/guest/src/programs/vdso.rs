//! The clock of the vdso, which stores to memory in user mode (section 4.4).
#![expect(unsafe_code, reason = "clock_gettime takes a pointer")]

use guest_tests::attempt::outcome;
use guest_tests::job;
use guest_tests::region::*;
use guest_tests::transcript::check;
use guest_tests::uffd::*;

pub fn run() {
    // The first call looks for the vdso.
    clock_gettime(Region::anon("first", 1).start);
    let area = Region::anon("area", 1);
    for (name, uffd) in [("full", Uffd::with(0)), ("USER_MODE_ONLY", Uffd::user_mode(0))] {
        let _ = area.advise(libc::MADV_DONTNEED);
        uffd.watch(&area, MISSING);
        let caller = job::start(move || clock_gettime(area.start));
        check(
            &format!("4.4 vdso clock, {name}: missing"),
            outcome(&uffd, &caller),
            "fault flags 1 at area",
        );
        uffd.zeropage(area.start, PAGE, 0);
        check(&format!("4.4 vdso clock, {name}: filled"), caller.finish(), "0");
    }
    let uffd = Uffd::with(0);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    let caller = job::start(move || clock_gettime(area.start));
    check(
        "4.4 vdso clock, protected",
        outcome(&uffd, &caller),
        "fault flags 3 at area",
    );
    uffd.writeprotect(area.start, PAGE, 0).expect("it is registered");
    check("4.4 vdso clock, unprotected", caller.finish(), "0");
}

/// clock_gettime(3) as libc has it.
fn clock_gettime(at: usize) -> i32 {
    // SAFETY: the memory is a region's, which nothing else lives in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, at as *mut libc::timespec) }
}
