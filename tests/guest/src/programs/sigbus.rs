//! FEATURE_SIGBUS (section 4.3): a signal instead of a message.

use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    let uffd = Uffd::with(feature::SIGBUS);
    let area = Region::anon("area", 6);
    let source = Region::filled("source", 1, 0x5c);
    area.fill(4, 5, 0x11);
    uffd.watch(&area, MISSING | WP);
    check(
        "4.3 missing: read",
        peek(area.start + 0x123),
        "SIGBUS code 2 at area+0x123",
    );
    check(
        "4.3 missing: write",
        poke(area.start + 0x456, 1),
        "SIGBUS code 2 at area+0x456",
    );
    check("4.3 no message", uffd.now(), "EAGAIN");
    check("4.3 the entry stays empty", page(area.start), "empty");
    check("4.3 COPY", uffd.copy(area.start, source.start, PAGE, 0), "ok 1p");
    check("4.3 the page", peek(area.start), "0x5c");
    check("4.3 ZEROPAGE", uffd.zeropage(area.page(1), PAGE, 0), "ok 1p");
    check("4.3 zeros", peek(area.page(1)), "0x00");
    check("4.3 a write to zeros", poke(area.page(1), 1), "written");
    check(
        "4.3 WRITEPROTECT",
        ok(uffd.writeprotect(area.page(4), PAGE, PROTECT)),
        "ok",
    );
    check("4.3 protected: read", peek(area.page(4)), "0x11");
    check(
        "4.3 protected: write",
        poke(area.page(4) + 7, 1),
        "SIGBUS code 2 at area+0x4007",
    );
    check(
        "4.3 unprotect",
        ok(uffd.writeprotect(area.page(4), PAGE, 0)),
        "ok",
    );
    check("4.3 unprotected: write", poke(area.page(4), 1), "written");
    let object = memfd(2);
    let alias = Region::shared("alias", object, 2);
    alias.fill(0, 1, 0xca);
    let shared = Region::shared("shared", object, 2);
    uffd.watch(&shared, MISSING | MINOR);
    check(
        "4.3 minor: read",
        peek(shared.start + 9),
        "SIGBUS code 2 at shared+0x9",
    );
    check(
        "4.3 minor: write",
        poke(shared.start + 9, 1),
        "SIGBUS code 2 at shared+0x9",
    );
    check("4.3 CONTINUE", uffd.cont(shared.start, PAGE, 0), "ok 1p");
    check("4.3 continued", peek(shared.start), "0xca");
    check(
        "4.3 shmem hole: read",
        peek(shared.page(1)),
        "SIGBUS code 2 at shared+0x1000",
    );
    if want_huge_pages(1) {
        let huge = Region::huge("huge", 1);
        uffd.watch(&huge, MISSING);
        check(
            "4.3 hugetlb: read",
            peek(huge.start + 0x12345),
            "SIGBUS code 2 at huge+0x12345",
        );
    }
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    check(
        "4.3 write(2) from it",
        answer(call(libc::SYS_write, &[to as usize, area.page(2), 1])),
        "EFAULT",
    );
    sys::write(to, b"x").expect("a pipe takes a byte");
    check(
        "4.3 read(2) into it",
        answer(call(libc::SYS_read, &[from as usize, area.page(2), 1])),
        "EFAULT",
    );
    check("4.3 no message of all this", uffd.now(), "EAGAIN");
    check("4.3 nobody waits", answer(uffd.poll(0)), "0");
    drop(uffd);
    check("4.3 closed: the memory is plain", peek(area.page(2)), "0x00");
    check("4.3 closed: and can be written", poke(area.page(3), 1), "written");
}
