//! /proc/self/fdinfo of a userfaultfd (section 1.1).

use guest_tests::attempt::read;
use guest_tests::region::*;
use guest_tests::transcript::check;
use guest_tests::uffd::*;

pub fn run() {
    let uffd = Uffd::open(libc::O_NONBLOCK).expect("userfaultfd works");
    check(
        "1.1 fdinfo: uninitialised",
        uffd.fdinfo(),
        "pending: 0, total: 0, API: aa:0:80000000000001ff",
    );
    uffd.api(0).expect("the handshake works");
    check(
        "1.1 fdinfo: initialised",
        uffd.fdinfo(),
        "pending: 0, total: 0, API: aa:80000000:80000000000001ff",
    );
    let area = Region::anon("area", 4);
    uffd.watch(&area, MISSING);
    let waiters: Vec<_> = (0..3).map(|index| read(area.page(index))).collect();
    for waiter in &waiters {
        waiter.settle();
    }
    check(
        "1.1 fdinfo: three unread",
        uffd.fdinfo(),
        "pending: 3, total: 3, API: aa:80000000:80000000000001ff",
    );
    uffd.read().expect("three are there");
    check(
        "1.1 fdinfo: one read",
        uffd.fdinfo(),
        "pending: 2, total: 3, API: aa:80000000:80000000000001ff",
    );
    uffd.read().expect("two are there");
    uffd.read().expect("one is there");
    check(
        "1.1 fdinfo: all read",
        uffd.fdinfo(),
        "pending: 0, total: 3, API: aa:80000000:80000000000001ff",
    );
    uffd.zeropage(area.start, 4 * PAGE, 0);
    check(
        "1.1 fdinfo: resolved",
        uffd.fdinfo(),
        "pending: 0, total: 0, API: aa:80000000:80000000000001ff",
    );
    let count = waiters.iter().filter(|waiter| waiter.finish() == "0x00").count();
    check("1.1 fdinfo: all three have read", count, "3");
    let all = Uffd::with(feature::ALL);
    check(
        "1.1 fdinfo: all features",
        all.fdinfo(),
        "pending: 0, total: 0, API: aa:8001ffff:80000000000001ff",
    );
    let asynchronous = Uffd::with(feature::WP_ASYNC);
    check(
        "1.1 fdinfo: WP_ASYNC",
        asynchronous.fdinfo(),
        "pending: 0, total: 0, API: aa:8000a000:80000000000001ff",
    );
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", uffd.fd)).unwrap_or_default();
    let keys: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    check(
        "1.1 fdinfo: the lines",
        keys.join(" "),
        "pos flags mnt_id ino pending total API",
    );
}
