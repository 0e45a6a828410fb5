//! CONTINUE (section 3.8).

use guest_tests::attempt::{outcome, read, write, writing};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::*;

pub fn run() {
    shared();
    allocated_ahead();
    private();
    others();
    protected();
    huge();
}

fn shared() {
    let uffd = Uffd::with(0);
    let object = memfd(8);
    let alias = Region::shared("alias", object, 8);
    let dst = Region::map("dst", 10 * PAGE, RW, libc::MAP_SHARED, object, 0).expect("it can be mapped");
    for index in 0..4 {
        alias.fill(index, index + 1, 0x10 + index as u8);
    }
    uffd.watch(&dst, MINOR);
    let row = |name: &str, index: usize, count: usize, mode: u64, want: &str| {
        check(
            &format!("3.8 shmem shared: {name}"),
            uffd.cont(dst.page(index), count * PAGE, mode),
            want,
        );
    };
    row("cached", 0, 1, 0, "ok 1p");
    check("3.8 shmem shared: reads", peek(dst.start), "0x10");
    row("mapped", 0, 1, 0, "EEXIST field -EEXIST");
    row("nothing cached", 4, 1, 0, "EFAULT field -EFAULT");
    row("nothing cached on a later page", 1, 4, 0, "EAGAIN field 3p");
    check(
        "3.8 shmem shared: what was done",
        page(dst.page(3)),
        "present file",
    );
    call(libc::SYS_fallocate, &[object as usize, 0, 5 * PAGE, PAGE]).expect("fallocate works");
    row("allocated by fallocate", 5, 1, 0, "ok 1p");
    check("3.8 shmem shared: it reads zeros", peek(dst.page(5)), "0x00");
    row(
        "MODE_WP without WP registered",
        1,
        1,
        FILL_WP,
        "EINVAL field -EINVAL",
    );
    row("behind the end of the file", 8, 1, 0, "EINVAL field -EINVAL");
    row("behind the end of the area", 9, 2, 0, "ENOENT field -ENOENT");
    alias.fill(6, 8, 0x16);
    row("across the end of the file", 6, 4, 0, "EAGAIN field 2p");
    let never = Region::shared("never", object, 1);
    check(
        "3.8 not registered",
        uffd.cont(never.start, PAGE, 0),
        "ENOENT field -ENOENT",
    );
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::shared("dst", object, 4);
    alias.fill(0, 4, 0x20);
    uffd.watch(&dst, MINOR | MISSING);
    let reader = read(dst.start);
    check(
        "3.8 shmem shared: a reader",
        outcome(&uffd, &reader),
        "fault flags 4 at dst",
    );
    alias.fill(0, 1, 0x21);
    check(
        "3.8 shmem shared: for the reader",
        uffd.cont(dst.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "3.8 shmem shared: the reader sees the newest",
        reader.finish(),
        "0x21",
    );
    let writer = write(dst.page(1), 0x31);
    check(
        "3.8 shmem shared: a writer",
        outcome(&uffd, &writer),
        "fault flags 5 at dst+0x1000",
    );
    check(
        "3.8 shmem shared: for the writer",
        uffd.cont(dst.page(1), PAGE, 0),
        "ok 1p",
    );
    check("3.8 shmem shared: the writer", writer.finish(), "written");
    check(
        "3.8 shmem shared: its byte in the file",
        peek(alias.page(1)),
        "0x31",
    );
    uffd.poison(dst.page(2), PAGE, 0);
    check(
        "3.8 shmem shared: poisoned",
        peek(dst.page(2)),
        "SIGBUS code 2 at dst+0x2000",
    );
    check(
        "3.8 shmem shared: over a poison marker",
        uffd.cont(dst.page(2), PAGE, 0),
        "ok 1p",
    );
    check("3.8 shmem shared: reads again", peek(dst.page(2)), "0x20");
}

/// A page that was allocated and never used is a hole to SEEK_DATA, also while somebody waits for it.
fn allocated_ahead() {
    let uffd = Uffd::with(0);
    let object = memfd(1);
    let dst = Region::shared("dst", object, 1);
    call(libc::SYS_fallocate, &[object as usize, 0, 0, PAGE]).expect("fallocate works");
    uffd.watch(&dst, MINOR);
    let data = || {
        answer(call(
            libc::SYS_lseek,
            &[object as usize, 0, libc::SEEK_DATA as usize],
        ))
    };
    let reader = read(dst.start);
    check(
        "3.8 allocated ahead: a reader",
        outcome(&uffd, &reader),
        "fault flags 4 at dst",
    );
    check("3.8 allocated ahead: data meanwhile", data(), "ENXIO");
    check(
        "3.8 allocated ahead: for the reader",
        uffd.cont(dst.start, PAGE, 0),
        "ok 1p",
    );
    check("3.8 allocated ahead: data afterwards", data(), "0");
    check("3.8 allocated ahead: the reader sees", reader.finish(), "0x00");
}

fn private() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::private("dst", object, 4);
    alias.fill(0, 2, 0x11);
    uffd.watch(&dst, MINOR);
    check(
        "3.8 shmem private: cached",
        uffd.cont(dst.start, PAGE, 0),
        "ok 1p",
    );
    check(
        "3.8 shmem private: the file's page",
        page(dst.start),
        "present file",
    );
    check(
        "3.8 shmem private: a write copies silently",
        writing(&uffd, dst.start),
        "written",
    );
    check("3.8 shmem private: a page of its own", page(dst.start), "present");
    check(
        "3.8 shmem private: the file keeps its own",
        peek(alias.start),
        "0x11",
    );
    check(
        "3.8 shmem private: nothing cached",
        uffd.cont(dst.page(2), PAGE, 0),
        "EFAULT field -EFAULT",
    );
    let writer = write(dst.page(1), 0x31);
    check(
        "3.8 shmem private: a writer",
        outcome(&uffd, &writer),
        "fault flags 5 at dst+0x1000",
    );
    check(
        "3.8 shmem private: for the writer",
        uffd.cont(dst.page(1), PAGE, 0),
        "ok 1p",
    );
    check("3.8 shmem private: the writer", writer.finish(), "written");
    check("3.8 shmem private: the file", peek(alias.page(1)), "0x11");
}

fn others() {
    let uffd = Uffd::with(0);
    let memory = Region::anon("memory", 1);
    uffd.watch(&memory, MISSING);
    check(
        "3.8 anon",
        uffd.cont(memory.start, PAGE, 0),
        "EINVAL field -EINVAL",
    );
    let unregistered = Region::anon("unregistered", 1);
    check(
        "3.8 anon, not registered",
        uffd.cont(unregistered.start, PAGE, 0),
        "ENOENT field -ENOENT",
    );
}

fn protected() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::shared("dst", object, 4);
    alias.fill(0, 4, 0x11);
    uffd.watch(&dst, MINOR | WP);
    let writer = write(dst.start, 0x22);
    check(
        "3.8 MODE_WP: a writer",
        outcome(&uffd, &writer),
        "fault flags 5 at dst",
    );
    check("3.8 MODE_WP", uffd.cont(dst.start, PAGE, FILL_WP), "ok 1p");
    check(
        "3.8 MODE_WP: its second message",
        uffd.told(),
        "fault flags 3 at dst",
    );
    check("3.8 MODE_WP: the page", page(dst.start), "present file wp");
    check(
        "3.8 MODE_WP: unprotect",
        ok(uffd.writeprotect(dst.start, PAGE, 0)),
        "ok",
    );
    check("3.8 MODE_WP: the writer", writer.finish(), "written");
    check("3.8 without MODE_WP", uffd.cont(dst.page(1), PAGE, 0), "ok 1p");
    check(
        "3.8 without MODE_WP: a write",
        writing(&uffd, dst.page(1)),
        "written",
    );
    // A marker says that the page is protected once it is there.
    uffd.writeprotect(dst.page(2), PAGE, PROTECT)
        .expect("it is registered");
    check("3.8 WP marker, cached", uffd.cont(dst.page(2), PAGE, 0), "ok 1p");
    check(
        "3.8 WP marker, cached: afterwards",
        page(dst.page(2)),
        "present file",
    );
}

fn huge() {
    if !want_huge_pages(3) {
        return;
    }
    let uffd = Uffd::with(0);
    let object = huge_memfd(3).expect("huge pages are there");
    let alias =
        Region::map("alias", 3 * HUGE, RW, libc::MAP_SHARED, object, 0).expect("huge pages can be mapped");
    let dst =
        Region::map("dst", 3 * HUGE, RW, libc::MAP_SHARED, object, 0).expect("huge pages can be mapped");
    poke(alias.start, 0x11);
    poke(alias.start + HUGE, 0x12);
    uffd.watch(&dst, MINOR);
    check(
        "3.8 hugetlb: not aligned",
        uffd.cont(dst.start + PAGE, HUGE, 0),
        "EINVAL field -EINVAL",
    );
    check(
        "3.8 hugetlb: length not aligned",
        uffd.cont(dst.start, PAGE, 0),
        "EINVAL field -EINVAL",
    );
    let reader = read(dst.start + 9);
    check(
        "3.8 hugetlb: a reader",
        outcome(&uffd, &reader),
        "fault flags 4 at dst",
    );
    check(
        "3.8 hugetlb: all three, the last not cached",
        uffd.cont(dst.start, 3 * HUGE, 0),
        "EAGAIN field 1024p",
    );
    check("3.8 hugetlb: the reader", reader.finish(), "0x00");
    check("3.8 hugetlb: the second", peek(dst.start + HUGE), "0x12");
    check(
        "3.8 hugetlb: mapped",
        uffd.cont(dst.start, HUGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.8 hugetlb: nothing cached",
        uffd.cont(dst.start + 2 * HUGE, HUGE, 0),
        "EFAULT field -EFAULT",
    );
}
