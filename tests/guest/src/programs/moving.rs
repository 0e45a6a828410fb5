//! MOVE (section 3.10).

use guest_tests::attempt::{outcome, read, reading};
use guest_tests::child::fork;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

pub fn run() {
    pages_of_their_own();
    arguments();
    areas();
    per_page();
    shared_since_fork();
    other_space();
    wakes();
}

fn stage() -> (Uffd, Region, Region) {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let dst = Region::anon("dst", 8);
    let src = Region::anon("src", 8);
    for index in 0..8 {
        src.fill(index, index + 1, 0x60 + index as u8);
    }
    uffd.watch(&dst, MISSING | WP);
    (uffd, dst, src)
}

fn pages_of_their_own() {
    let (uffd, dst, src) = stage();
    check(
        "3.10 one page",
        uffd.move_pages(dst.start, src.start, PAGE, 0),
        "ok 1p",
    );
    check("3.10 one page: the destination", peek(dst.start), "0x60");
    check("3.10 one page: the source's entry", page(src.start), "empty");
    check("3.10 one page: the source reads", peek(src.start), "0x00");
    check(
        "3.10 three pages",
        uffd.move_pages(dst.page(2), src.page(1), 3 * PAGE, 0),
        "ok 3p",
    );
    check("3.10 three pages: the last", peek(dst.page(4)), "0x63");
    // Within one area.
    uffd.watch(&src, MISSING);
    check(
        "3.10 the same area",
        uffd.move_pages(src.page(2), src.page(5), PAGE, 0),
        "ok 1p",
    );
    check("3.10 the same area: its destination", peek(src.page(2)), "0x65");
    check(
        "3.10 a registered source is missing then",
        reading(&uffd, src.page(5)),
        "fault flags 0 at src+0x5000",
    );
    let wp_only = Region::anon("wp only", 1);
    uffd.watch(&wp_only, WP);
    check(
        "3.10 into WP alone",
        uffd.move_pages(wp_only.start, src.page(6), PAGE, 0),
        "ok 1p",
    );
    check("3.10 into WP alone: reads", peek(wp_only.start), "0x66");
}

fn arguments() {
    let (uffd, dst, src) = stage();
    let row = |name: &str, to: usize, from: usize, len: usize, mode: u64, want: &str| {
        check(
            &format!("3.10 {name}"),
            uffd.move_pages(to, from, len, mode),
            want,
        );
    };
    check("3.10 unreadable", ok(uffd.ioctl(command::MOVE, 0)), "EFAULT");
    row(
        "source not aligned",
        dst.start,
        src.start + 8,
        PAGE,
        0,
        "EINVAL field untouched",
    );
    row(
        "source at the end of user space",
        dst.start,
        USER_END,
        PAGE,
        0,
        "EINVAL field untouched",
    );
    row(
        "source in the kernel",
        dst.start,
        0xffff_8000_0000_0000,
        PAGE,
        0,
        "EINVAL field untouched",
    );
    row(
        "source wraps",
        dst.start,
        usize::MAX - PAGE + 1,
        2 * PAGE,
        0,
        "EINVAL field untouched",
    );
    row(
        "unknown mode",
        dst.start,
        src.start,
        PAGE,
        4,
        "EINVAL field untouched",
    );
    row(
        "destination not mapped",
        Region::hole("hole", PAGE).start,
        src.start,
        PAGE,
        0,
        "ENOENT field -ENOENT",
    );
    row(
        "source not mapped",
        dst.start,
        Region::hole("hole", PAGE).start,
        PAGE,
        0,
        "ENOENT field -ENOENT",
    );
}

fn areas() {
    let (uffd, dst, src) = stage();
    let row = |name: &str, to: usize, from: usize, len: usize, want: &str| {
        check(&format!("3.10 {name}"), uffd.move_pages(to, from, len, 0), want);
    };
    row(
        "destination not registered",
        Region::anon("plain", 1).start,
        src.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    row(
        "behind the end of the destination",
        dst.page(7),
        src.start,
        2 * PAGE,
        "EINVAL field -EINVAL",
    );
    row(
        "behind the end of the source",
        dst.start,
        src.page(7),
        2 * PAGE,
        "EINVAL field -EINVAL",
    );
    let other = Uffd::with(0);
    let theirs = Region::anon("theirs", 1);
    other.watch(&theirs, MISSING);
    row(
        "registered with another",
        theirs.start,
        src.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let object = memfd(2);
    let shared = Region::shared("shared", object, 2);
    let private = Region::private("private", object, 2);
    shared.fill(0, 2, 1);
    row(
        "source is shared memory",
        dst.start,
        shared.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    row(
        "source is private shared memory",
        dst.start,
        private.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    uffd.watch(&shared, MISSING);
    uffd.watch(&private, MISSING);
    row(
        "destination is shared memory",
        shared.start,
        src.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    row(
        "destination is private shared memory",
        private.start,
        src.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let closed = Region::filled("closed", 1, 1);
    mprotect(closed.start, PAGE, libc::PROT_READ).expect("mprotect works");
    row(
        "source is read-only",
        dst.start,
        closed.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let closed = Region::map("closed dst", PAGE, libc::PROT_READ, ANON, -1, 0).expect("memory can be mapped");
    uffd.watch(&closed, MISSING);
    row(
        "destination is read-only",
        closed.start,
        src.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let code = Region::map("code", PAGE, RW | libc::PROT_EXEC, ANON, -1, 0).expect("memory can be mapped");
    code.fill(0, 1, 1);
    row(
        "other protection",
        dst.start,
        code.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let locked = Region::anon("locked", 1);
    call(libc::SYS_mlock, &[locked.start, PAGE]).expect("mlock works");
    row(
        "source is locked",
        dst.start,
        locked.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    if want_huge_pages(2) {
        let huge = Region::huge("huge", 1);
        row(
            "source is hugetlb",
            dst.start,
            huge.start,
            HUGE,
            "EINVAL field -EINVAL",
        );
        uffd.watch(&huge, MISSING);
        row(
            "destination is hugetlb",
            huge.start,
            src.start,
            PAGE,
            "EINVAL field -EINVAL",
        );
    }
    row(
        "nothing of this was done",
        dst.start,
        src.start,
        8 * PAGE,
        "ok 8p",
    );
}

fn per_page() {
    let (uffd, dst, src) = stage();
    let row = |name: &str, to: usize, from: usize, count: usize, mode: u64, want: &str| {
        let got = uffd.move_pages(dst.page(to), src.page(from), count * PAGE, mode);
        check(&format!("3.10 {name}"), got, want);
    };
    uffd.zeropage(dst.start, PAGE, 0);
    row("destination populated", 0, 0, 1, 0, "EEXIST field -EEXIST");
    uffd.writeprotect(dst.page(1), PAGE, PROTECT)
        .expect("it is registered");
    row("destination with a WP marker", 1, 0, 1, 0, "EEXIST field -EEXIST");
    uffd.poison(dst.page(2), PAGE, 0);
    row("destination with poison", 2, 0, 1, 0, "EEXIST field -EEXIST");
    madvise(src.page(3), PAGE, libc::MADV_DONTNEED).expect("madvise works");
    row("source empty", 3, 3, 1, 0, "ENOENT field -ENOENT");
    row("source empty, ALLOW_SRC_HOLES", 3, 3, 1, ALLOW_SRC_HOLES, "ok 1p");
    check("3.10 the hole's destination", page(dst.page(3)), "empty");
    row("source empty on a later page", 4, 2, 2, 0, "EAGAIN field 1p");
    check("3.10 what was moved", peek(dst.page(4)), "0x62");
    check("3.10 a read of the empty source", peek(src.page(3)), "0x00");
    row("source is the zero page", 5, 3, 1, 0, "ok 1p");
    check("3.10 the zero page there", peek(dst.page(5)), "0x00");
    uffd.watch(&src, MISSING);
    madvise(src.page(6), PAGE, libc::MADV_DONTNEED).expect("madvise works");
    uffd.poison(src.page(6), PAGE, 0);
    row("source is poison", 6, 6, 1, 0, "EFAULT field -EFAULT");
    row("holes and pages", 6, 4, 2, ALLOW_SRC_HOLES, "ok 2p");
}

fn shared_since_fork() {
    let (uffd, dst, src) = stage();
    let child = fork(|| {
        let _ = call(libc::SYS_pause, &[]);
        0
    });
    check(
        "3.10 source shared with a child",
        uffd.move_pages(dst.start, src.start, PAGE, 0),
        "EBUSY field -EBUSY",
    );
    let _ = child.kill(libc::SIGKILL);
    check("3.10 the child", child.wait(), "signal SIGKILL");
    check(
        "3.10 source after the child is gone",
        uffd.move_pages(dst.start, src.start, PAGE, 0),
        "EBUSY field -EBUSY",
    );
    check("3.10 the source is written", poke(src.start, 0x71), "written");
    check(
        "3.10 source written after the child is gone",
        uffd.move_pages(dst.start, src.start, PAGE, 0),
        "ok 1p",
    );
    check("3.10 what arrives", peek(dst.start), "0x71");
}

/// The caller's space is not the descriptor's.
fn other_space() {
    let (uffd, dst, src) = stage();
    let child = fork(|| {
        check(
            "3.10 from a child",
            uffd.move_pages(dst.start, src.start, PAGE, 0),
            "EINVAL field untouched",
        );
        check(
            "3.10 from a child, bad range",
            uffd.move_pages(1, 1, 1, 1 << 40),
            "EINVAL field untouched",
        );
        check(
            "3.10 from a child, NULL",
            ok(uffd.ioctl(command::MOVE, 0)),
            "EFAULT",
        );
        0
    });
    check("3.10 the child that moved", child.wait(), "exit 0");
}

fn wakes() {
    let (uffd, dst, src) = stage();
    let reader = read(dst.start);
    check("3.10 a reader", outcome(&uffd, &reader), "fault flags 0 at dst");
    check(
        "3.10 for the reader, DONTWAKE",
        uffd.move_pages(dst.start, src.start, PAGE, DONTWAKE),
        "ok 1p",
    );
    check("3.10 the reader sleeps on", reader.settle(), "blocked");
    check("3.10 WAKE", ok(uffd.wake(dst.start, PAGE)), "ok");
    check("3.10 the reader", reader.finish(), "0x60");
    let reader = read(dst.page(1));
    check(
        "3.10 another reader",
        outcome(&uffd, &reader),
        "fault flags 0 at dst+0x1000",
    );
    check(
        "3.10 for the other reader",
        uffd.move_pages(dst.page(1), src.page(1), PAGE, 0),
        "ok 1p",
    );
    check("3.10 the other reader", reader.finish(), "0x61");
}
