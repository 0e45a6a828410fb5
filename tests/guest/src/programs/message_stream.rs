//! A task that waits in the kernel and has a signal sends its message again and again (section 4.4, end).

use guest_tests::attempt::outcome;
use guest_tests::job;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    signal::catch(libc::SIGUSR1, libc::SA_RESTART, &[]);
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    sys::write(to, b"xy").expect("a pipe takes bytes");
    let at = area.start;
    let waiter = job::start(move || answer(call(libc::SYS_read, &[from as usize, at, 2])));
    check(
        "4.4 in the kernel: a waiter",
        outcome(&uffd, &waiter),
        "fault flags 1 at area",
    );
    check(
        "4.4 in the kernel: signal",
        ok(signal::tgkill(waiter.tid(), libc::SIGUSR1)),
        "ok",
    );
    let mut same = 0;
    // Between two rounds there may be none for a moment.
    while same < 1000 && uffd.told() == "fault flags 1 at area" {
        same += 1;
    }
    check("4.4 in the kernel: messages of the same fault", same, "1000");
    check(
        "4.4 in the kernel: filled",
        uffd.zeropage(area.start, PAGE, 0),
        "ok 1p",
    );
    check("4.4 in the kernel: the call", waiter.finish(), "2");
}
