//! POISON (sections 3.9 and 4.6), and what an access to it gives.

use guest_tests::attempt::{outcome, read, write};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    entries();
    accesses();
    shared();
    guard();
    huge();
}

fn entries() {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let memory = Region::anon("memory", 8);
    memory.fill(0, 1, 1);
    uffd.watch(&memory, MISSING | WP);
    let row = |name: &str, index: usize, count: usize, want: &str| {
        check(
            &format!("3.9 {name}"),
            uffd.poison(memory.page(index), count * PAGE, 0),
            want,
        );
    };
    row("populated", 0, 1, "EEXIST field -EEXIST");
    row("empty", 1, 1, "ok 1p");
    row("poisoned already", 1, 1, "EEXIST field -EEXIST");
    check("3.9 its entry", page(memory.page(1)), "0x400000000000005f");
    uffd.writeprotect(memory.page(2), PAGE, PROTECT)
        .expect("it is registered");
    row("WP marker", 2, 1, "EEXIST field -EEXIST");
    uffd.zeropage(memory.page(3), PAGE, 0);
    row("zero page", 3, 1, "EEXIST field -EEXIST");
    row("three", 4, 3, "ok 3p");
    row("behind the end", 7, 2, "ENOENT field -ENOENT");
    check(
        "4.6 protecting poison",
        ok(uffd.writeprotect(memory.page(1), PAGE, PROTECT)),
        "ok",
    );
    check("4.6 its entry then", page(memory.page(1)), "0x400000000000005f");
    check(
        "4.6 unprotecting poison",
        ok(uffd.writeprotect(memory.page(1), PAGE, 0)),
        "ok",
    );
    check(
        "4.6 it stays poisoned",
        peek(memory.page(1)),
        "SIGBUS code 2 at memory+0x1000",
    );
}

fn accesses() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    uffd.watch(&memory, MISSING);
    let reader = read(memory.start + 0x123);
    check("3.9 a reader", outcome(&uffd, &reader), "fault flags 0 at memory");
    check(
        "3.9 for the reader, DONTWAKE",
        uffd.poison(memory.start, PAGE, DONTWAKE),
        "ok 1p",
    );
    check("3.9 the reader sleeps on", reader.settle(), "blocked");
    check("3.9 wake", ok(uffd.wake(memory.start, PAGE)), "ok");
    check("3.9 the reader", reader.finish(), "SIGBUS code 2 at memory+0x123");
    let writer = write(memory.page(1) + 0x456, 1);
    check(
        "3.9 a writer",
        outcome(&uffd, &writer),
        "fault flags 1 at memory+0x1000",
    );
    check(
        "3.9 for the writer",
        uffd.poison(memory.page(1), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.9 the writer",
        writer.finish(),
        "SIGBUS code 2 at memory+0x1456",
    );
    check(
        "4.6 a second access",
        poke(memory.start, 1),
        "SIGBUS code 2 at memory",
    );
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    check(
        "4.6 write(2) from it",
        answer(call(libc::SYS_write, &[to as usize, memory.start, 1])),
        "EFAULT",
    );
    sys::write(to, b"x").expect("a pipe takes a byte");
    check(
        "4.6 read(2) into it",
        answer(call(libc::SYS_read, &[from as usize, memory.start, 1])),
        "EFAULT",
    );
    check(
        "4.6 gettimeofday into it",
        answer(call(libc::SYS_gettimeofday, &[memory.start, 0])),
        "EFAULT",
    );
    let source = Region::filled("source", 1, 0x5c);
    check(
        "4.6 COPY from plain memory over it",
        uffd.copy(memory.start, source.start, PAGE, 0),
        "ok 1p",
    );
    check("4.6 it reads again", peek(memory.start), "0x5c");
    check(
        "4.6 MADV_DONTNEED",
        ok(madvise(memory.page(1), PAGE, libc::MADV_DONTNEED)),
        "ok",
    );
    check(
        "4.6 dropped: missing again",
        outcome(&uffd, &read(memory.page(1))),
        "fault flags 0 at memory+0x1000",
    );
    uffd.poison(memory.page(3), PAGE, 0);
    drop(uffd);
    check(
        "4.6 after the descriptor is closed",
        peek(memory.page(3)),
        "SIGBUS code 2 at memory+0x3000",
    );
    check(
        "4.6 mprotect keeps it",
        ok(mprotect(memory.page(3), PAGE, libc::PROT_READ)),
        "ok",
    );
    check(
        "4.6 after mprotect",
        peek(memory.page(3)),
        "SIGBUS code 2 at memory+0x3000",
    );
    check(
        "4.6 a write without right to it",
        poke(memory.page(3), 1),
        "SIGSEGV code 2 at memory+0x3000",
    );
}

fn shared() {
    for (name, flags) in [("shared", libc::MAP_SHARED), ("private", libc::MAP_PRIVATE)] {
        let uffd = Uffd::with(0);
        let object = memfd(4);
        let alias = Region::shared("alias", object, 4);
        let dst = Region::map("dst", 6 * PAGE, RW, flags, object, 0).expect("it can be mapped");
        alias.fill(0, 1, 0x11);
        uffd.watch(&dst, MISSING);
        let row = |what: &str, index: usize, want: &str| {
            check(
                &format!("3.9 shmem {name}: {what}"),
                uffd.poison(dst.page(index), PAGE, 0),
                want,
            );
        };
        row("cached, not mapped", 0, "ok 1p");
        check(
            &format!("3.9 shmem {name}: hidden here"),
            peek(dst.start),
            "SIGBUS code 2 at dst",
        );
        check(
            &format!("3.9 shmem {name}: not in the other mapping"),
            peek(alias.start),
            "0x11",
        );
        row("hole", 1, "ok 1p");
        row("again", 1, "EEXIST field -EEXIST");
        row("behind the end of the file", 4, "EFAULT field -EFAULT");
        check(
            &format!("4.6 shmem {name}: MADV_DONTNEED"),
            ok(madvise(dst.start, PAGE, libc::MADV_DONTNEED)),
            "ok",
        );
        check(&format!("4.6 shmem {name}: dropped"), peek(dst.start), "0x11");
        row("mapped", 0, "EEXIST field -EEXIST");
    }
}

fn guard() {
    const MADV_GUARD_INSTALL: i32 = 102;
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 4);
    uffd.watch(&memory, MISSING);
    check(
        "3.9 guard install",
        ok(madvise(memory.start, PAGE, MADV_GUARD_INSTALL)),
        "ok",
    );
    check(
        "3.9 guard marker",
        uffd.poison(memory.start, PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "4.1 guard: an access",
        peek(memory.start),
        "SIGSEGV code 1 at memory",
    );
    check("4.1 guard: no message", uffd.now(), "EAGAIN");
    uffd.poison(memory.page(1), PAGE, 0);
    check(
        "4.6 guard over poison",
        ok(madvise(memory.page(1), PAGE, MADV_GUARD_INSTALL)),
        "ok",
    );
    check(
        "4.6 guard over poison: an access",
        peek(memory.page(1)),
        "SIGSEGV code 1 at memory+0x1000",
    );
}

fn huge() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(0);
    let memory = Region::huge("huge", 2);
    uffd.watch(&memory, MISSING);
    check(
        "3.9 hugetlb: small",
        uffd.poison(memory.start, PAGE, 0),
        "EINVAL field -EINVAL",
    );
    check("3.9 hugetlb: one", uffd.poison(memory.start, HUGE, 0), "ok 512p");
    check(
        "3.9 hugetlb: again",
        uffd.poison(memory.start, HUGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.9 hugetlb: an access",
        peek(memory.start + 0x12345),
        "SIGBUS code 2 at huge+0x12345",
    );
}
