//! COPY (section 3.5): every condition, on every type of memory.

use guest_tests::attempt::{outcome, read, write, writing};
use guest_tests::job;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok};
use guest_tests::uffd::*;

/// Guard regions, since 6.13.
const MADV_GUARD_INSTALL: i32 = 102;

pub fn run() {
    anonymous();
    source();
    shared();
    private();
    beyond();
    markers();
    protected();
    huge();
}

fn source_pages(pages: usize) -> Region {
    let source = Region::anon("source", pages);
    for index in 0..pages {
        source.fill(index, index + 1, 0x50 + index as u8);
    }
    source
}

fn anonymous() {
    let uffd = Uffd::with(0);
    let source = source_pages(4);
    let dst = Region::anon("dst", 8);
    uffd.watch(&dst, MISSING);
    let row = |name: &str, at: usize, src: usize, len: usize, mode: u64, want: &str| {
        check(&format!("3.5 {name}"), uffd.copy(at, src, len, mode), want);
    };
    row("one page", dst.start, source.start, PAGE, 0, "ok 1p");
    check("3.5 one page: content", peek(dst.start + 4095), "0x50");
    row(
        "populated",
        dst.start,
        source.start,
        PAGE,
        0,
        "EEXIST field -EEXIST",
    );
    uffd.zeropage(dst.page(1), PAGE, 0);
    row(
        "zero page there",
        dst.page(1),
        source.start,
        PAGE,
        0,
        "EEXIST field -EEXIST",
    );
    row(
        "MODE_WP without WP registered",
        dst.page(2),
        source.start,
        PAGE,
        FILL_WP,
        "EINVAL field -EINVAL",
    );
    row(
        "source not aligned",
        dst.page(2),
        source.start + 100,
        PAGE,
        0,
        "ok 1p",
    );
    check("3.5 source not aligned: first byte", peek(dst.page(2)), "0x50");
    check(
        "3.5 source not aligned: the last from the first page",
        peek(dst.page(2) + 4095 - 100),
        "0x50",
    );
    check(
        "3.5 source not aligned: from the second page",
        peek(dst.page(2) + 4096 - 100),
        "0x51",
    );
    row("three pages", dst.page(3), source.start, 3 * PAGE, 0, "ok 3p");
    check("3.5 three pages: the third", peek(dst.page(5)), "0x52");
    row(
        "behind the end",
        dst.page(7),
        source.start,
        2 * PAGE,
        0,
        "ENOENT field -ENOENT",
    );
    check("3.5 behind the end: nothing is done", page(dst.page(7)), "empty");
    check("3.5 a write after it", writing(&uffd, dst.page(3)), "written");
    let waiter = write(dst.page(6), 0x99);
    check(
        "3.5 a waiter",
        outcome(&uffd, &waiter),
        "fault flags 1 at dst+0x6000",
    );
    row("for the waiter", dst.page(6), source.start, PAGE, 0, "ok 1p");
    check("3.5 the waiter", waiter.finish(), "written");
    check("3.5 its byte", peek(dst.page(6)), "0x99");
    check("3.5 the byte beside it", peek(dst.page(6) + 1), "0x50");
}

fn source() {
    let uffd = Uffd::with(0);
    let source = source_pages(4);
    let dst = Region::anon("dst", 8);
    uffd.watch(&dst, MISSING);
    let hole = Region::hole("hole", PAGE);
    let row = |name: &str, at: usize, src: usize, len: usize, want: &str| {
        check(&format!("3.5 source {name}"), uffd.copy(at, src, len, 0), want);
    };
    row("unmapped", dst.start, hole.start, PAGE, "EFAULT field -EFAULT");
    row("0", dst.start, 0, PAGE, "EFAULT field -EFAULT");
    let closed = Region::map("closed", PAGE, libc::PROT_NONE, ANON, -1, 0).expect("memory can be mapped");
    row("PROT_NONE", dst.start, closed.start, PAGE, "EFAULT field -EFAULT");
    check("3.5 source unreadable: nothing is done", page(dst.start), "empty");
    call(libc::SYS_munmap, &[source.page(2), 2 * PAGE]).expect("munmap works");
    row(
        "ends after two pages of three",
        dst.start,
        source.start,
        3 * PAGE,
        "EAGAIN field 2p",
    );
    check("3.5 source ends: the second page", peek(dst.page(1)), "0x51");
    check("3.5 source ends: the third", page(dst.page(2)), "empty");
    row(
        "ends inside the second page",
        dst.page(3),
        source.start + 100 + PAGE,
        2 * PAGE,
        "EFAULT field -EFAULT",
    );
    row(
        "at the end of user space",
        dst.page(4),
        USER_END,
        PAGE,
        "EINVAL field untouched",
    );
    row(
        "in the kernel",
        dst.page(4),
        0xffff_8000_0000_0000,
        PAGE,
        "EINVAL field untouched",
    );
    row(
        "across the end of user space",
        dst.page(4),
        USER_END - PAGE,
        2 * PAGE,
        "EINVAL field untouched",
    );
    row(
        "wraps",
        dst.page(4),
        usize::MAX - 100,
        PAGE,
        "EINVAL field untouched",
    );
    // A source that is missing itself: the caller waits as anybody.
    let other = Uffd::with(0);
    let missing = Region::anon("missing", 1);
    other.watch(&missing, MISSING);
    let fd = uffd.fd;
    let (to, from) = (dst.page(4), missing.start);
    let copier = job::start(move || {
        let borrowed = std::mem::ManuallyDrop::new(Uffd { fd });
        borrowed.copy(to, from, PAGE, 0)
    });
    check(
        "3.5 source is missing itself",
        outcome(&other, &copier),
        "fault flags 0 at missing",
    );
    check(
        "3.5 source is missing itself: filled",
        other.zeropage(missing.start, PAGE, 0),
        "ok 1p",
    );
    check("3.5 source is missing itself: the copy", copier.finish(), "ok 1p");
    let readable = Region::map("readable", PAGE, libc::PROT_READ, ANON, -1, 0).expect("memory can be mapped");
    row(
        "never touched, read-only",
        dst.page(5),
        readable.start,
        PAGE,
        "ok 1p",
    );
}

fn shared() {
    let uffd = Uffd::with(0);
    let source = source_pages(2);
    let object = memfd(6);
    let alias = Region::shared("alias", object, 6);
    let dst = Region::shared("dst", object, 6);
    uffd.watch(&dst, MISSING);
    alias.fill(0, 1, 0x11);
    let mode = 0;
    call(libc::SYS_fallocate, &[object as usize, mode, PAGE, PAGE]).expect("fallocate works");
    let row = |name: &str, index: usize, want: &str| {
        check(
            &format!("3.5 shmem shared: {name}"),
            uffd.copy(dst.page(index), source.start, PAGE, 0),
            want,
        );
    };
    row("in the cache, not mapped", 0, "EEXIST field -EEXIST");
    row("allocated by fallocate", 1, "EEXIST field -EEXIST");
    row("hole", 2, "ok 1p");
    check(
        "3.5 shmem shared: seen through the alias",
        peek(alias.page(2)),
        "0x50",
    );
    row("populated", 2, "EEXIST field -EEXIST");
    let waiter = read(dst.page(3));
    check(
        "3.5 shmem shared: a waiter",
        outcome(&uffd, &waiter),
        "fault flags 0 at dst+0x3000",
    );
    row("for the waiter", 3, "ok 1p");
    check("3.5 shmem shared: the waiter", waiter.finish(), "0x50");
    check("3.5 shmem shared: a write", poke(dst.page(3), 0x21), "written");
    check(
        "3.5 shmem shared: the write through the alias",
        peek(alias.page(3)),
        "0x21",
    );
}

fn private() {
    let uffd = Uffd::with(0);
    let source = source_pages(2);
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::private("dst", object, 4);
    uffd.watch(&dst, MISSING);
    alias.fill(0, 1, 0x11);
    let row = |name: &str, index: usize, want: &str| {
        check(
            &format!("3.5 shmem private: {name}"),
            uffd.copy(dst.page(index), source.start, PAGE, 0),
            want,
        );
    };
    row("in the cache, entry empty", 0, "ok 1p");
    check("3.5 shmem private: a page of its own", peek(dst.start), "0x50");
    check("3.5 shmem private: the file's", peek(alias.start), "0x11");
    row("hole", 1, "ok 1p");
    check(
        "3.5 shmem private: the file keeps its hole",
        peek(alias.page(1)),
        "0x00",
    );
    row("populated", 1, "EEXIST field -EEXIST");
    alias.fill(2, 3, 0x22);
    check(
        "3.5 shmem private: a cached page is mapped",
        peek(dst.page(2)),
        "0x22",
    );
    row("cached page mapped", 2, "EEXIST field -EEXIST");
}

/// Behind the end of the file.
fn beyond() {
    for (name, flags) in [("shared", libc::MAP_SHARED), ("private", libc::MAP_PRIVATE)] {
        let uffd = Uffd::with(0);
        let source = source_pages(4);
        let object = memfd(2);
        let dst = Region::map("dst", 4 * PAGE, RW, flags, object, 0).expect("memory can be mapped");
        uffd.watch(&dst, MISSING);
        let row = |what: &str, index: usize, count: usize, want: &str| {
            let got = uffd.copy(dst.page(index), source.start, count * PAGE, 0);
            check(&format!("3.5 shmem {name}: {what}"), got, want);
        };
        row("behind the end of the file", 2, 1, "EFAULT field -EFAULT");
        row("across the end of the file", 1, 2, "EAGAIN field 1p");
        check(
            &format!("3.5 shmem {name}: an access behind the end"),
            peek(dst.page(2)),
            "SIGBUS code 2 at dst+0x2000",
        );
    }
}

fn markers() {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let source = source_pages(2);
    let dst = Region::anon("dst", 6);
    uffd.watch(&dst, MISSING | WP);
    uffd.writeprotect(dst.start, 2 * PAGE, PROTECT)
        .expect("it is registered");
    check("3.5 marker: before", page(dst.start), "0x420000000000003f");
    check(
        "3.5 WP marker",
        uffd.copy(dst.start, source.start, PAGE, 0),
        "ok 1p",
    );
    check("3.5 WP marker: afterwards", page(dst.start), "present");
    check("3.5 WP marker: a write", writing(&uffd, dst.start), "written");
    check(
        "3.5 WP marker, MODE_WP",
        uffd.copy(dst.page(1), source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check(
        "3.5 WP marker, MODE_WP: afterwards",
        page(dst.page(1)),
        "present wp",
    );
    uffd.poison(dst.page(2), 2 * PAGE, 0);
    check(
        "3.5 poison marker",
        uffd.copy(dst.page(2), source.start, PAGE, 0),
        "ok 1p",
    );
    check("3.5 poison marker: afterwards", peek(dst.page(2)), "0x50");
    check(
        "3.5 poison marker, MODE_WP",
        uffd.copy(dst.page(3), source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check(
        "3.5 guard install",
        ok(madvise(dst.page(4), PAGE, MADV_GUARD_INSTALL)),
        "ok",
    );
    check(
        "3.5 guard marker: an access",
        peek(dst.page(4)),
        "SIGSEGV code 1 at dst+0x4000",
    );
    check(
        "3.5 guard marker",
        uffd.copy(dst.page(4), source.start, PAGE, 0),
        "ok 1p",
    );
    check("3.5 guard marker: afterwards", peek(dst.page(4)), "0x50");
    let object = memfd(4);
    let shared = Region::shared("shared", object, 4);
    uffd.watch(&shared, MISSING | WP);
    uffd.writeprotect(shared.start, PAGE, PROTECT)
        .expect("it is registered");
    check(
        "3.5 shmem WP marker",
        uffd.copy(shared.start, source.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "3.5 shmem WP marker: afterwards",
        page(shared.start),
        "present file",
    );
    uffd.poison(shared.page(1), PAGE, 0);
    check(
        "3.5 shmem poison marker",
        uffd.copy(shared.page(1), source.start, PAGE, 0),
        "ok 1p",
    );
}

/// MODE_WP: the writer who waited faults a second time.
fn protected() {
    let uffd = Uffd::with(0);
    let source = source_pages(2);
    let dst = Region::anon("dst", 4);
    uffd.watch(&dst, MISSING | WP);
    let waiter = write(dst.start, 0x42);
    check(
        "3.5 MODE_WP: a writer",
        outcome(&uffd, &waiter),
        "fault flags 1 at dst",
    );
    check(
        "3.5 MODE_WP",
        uffd.copy(dst.start, source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check(
        "3.5 MODE_WP: the writer's second message",
        uffd.told(),
        "fault flags 3 at dst",
    );
    check("3.5 MODE_WP: the page meanwhile", page(dst.start), "present wp");
    check(
        "3.5 MODE_WP: unprotect",
        ok(uffd.writeprotect(dst.start, PAGE, 0)),
        "ok",
    );
    check("3.5 MODE_WP: the writer", waiter.finish(), "written");
    check("3.5 MODE_WP: its byte", peek(dst.start), "0x42");
    let reader = read(dst.page(1));
    check(
        "3.5 MODE_WP: a reader",
        outcome(&uffd, &reader),
        "fault flags 0 at dst+0x1000",
    );
    check(
        "3.5 MODE_WP for the reader",
        uffd.copy(dst.page(1), source.start, PAGE, FILL_WP),
        "ok 1p",
    );
    check("3.5 MODE_WP: the reader", reader.finish(), "0x50");
    check("3.5 MODE_WP: no second message", uffd.now(), "EAGAIN");
}

fn huge() {
    if !want_huge_pages(4) {
        return;
    }
    let uffd = Uffd::with(0);
    let object = huge_memfd(2).expect("huge pages are there");
    let source = Region::map("source", HUGE + PAGE, RW, ANON, -1, 0).expect("memory can be mapped");
    source.fill(0, HUGE / PAGE, 0x5c);
    let dst =
        Region::map("dst", 2 * HUGE, RW, libc::MAP_SHARED, object, 0).expect("huge pages can be mapped");
    uffd.watch(&dst, MISSING);
    let row = |name: &str, at: usize, src: usize, len: usize, want: &str| {
        check(&format!("3.5 hugetlb: {name}"), uffd.copy(at, src, len, 0), want);
    };
    row(
        "start not huge-aligned",
        dst.start + PAGE,
        source.start,
        HUGE,
        "EINVAL field -EINVAL",
    );
    row(
        "length not huge-aligned",
        dst.start,
        source.start,
        PAGE,
        "EINVAL field -EINVAL",
    );
    let waiter = read(dst.start + 5 * PAGE + 3);
    check(
        "3.5 hugetlb: a waiter",
        outcome(&uffd, &waiter),
        "fault flags 0 at dst",
    );
    row("one", dst.start, source.start, HUGE, "ok 512p");
    check("3.5 hugetlb: the waiter", waiter.finish(), "0x5c");
    row("populated", dst.start, source.start, HUGE, "EEXIST field -EEXIST");
    row(
        "source not aligned",
        dst.start + HUGE,
        source.start + 1,
        HUGE,
        "ok 512p",
    );
    check("3.5 hugetlb: its last byte", peek(dst.end() - 1), "0x00");
    check("3.5 hugetlb: the one before", peek(dst.end() - 2), "0x5c");
    let private = Region::huge("private", 1);
    uffd.watch(&private, MISSING);
    check(
        "3.5 hugetlb private: one",
        uffd.copy(private.start, source.start, HUGE, 0),
        "ok 512p",
    );
    check(
        "3.5 hugetlb private: populated",
        uffd.copy(private.start, source.start, HUGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.5 hugetlb private: a write",
        poke(private.start + 7, 1),
        "written",
    );
}
