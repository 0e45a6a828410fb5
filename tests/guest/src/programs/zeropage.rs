//! ZEROPAGE (section 3.6).

use guest_tests::attempt::{outcome, read, write, writing};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::call;
use guest_tests::touch::peek;
use guest_tests::transcript::check;
use guest_tests::uffd::*;

pub fn run() {
    anonymous();
    shared();
    private();
    markers();
    refusals();
}

fn anonymous() {
    let uffd = Uffd::with(0);
    let dst = Region::anon("dst", 8);
    uffd.watch(&dst, MISSING);
    let row = |name: &str, index: usize, count: usize, mode: u64, want: &str| {
        check(
            &format!("3.6 anon: {name}"),
            uffd.zeropage(dst.page(index), count * PAGE, mode),
            want,
        );
    };
    row("one page", 0, 1, 0, "ok 1p");
    check("3.6 anon: reads", peek(dst.start), "0x00");
    row("populated by zeros", 0, 1, 0, "EEXIST field -EEXIST");
    check(
        "3.6 anon: a write copies silently",
        writing(&uffd, dst.start),
        "written",
    );
    check("3.6 anon: its byte", peek(dst.start), "0x77");
    row("populated by a page", 0, 1, 0, "EEXIST field -EEXIST");
    row("mode WP is unknown", 1, 1, 2, "EINVAL field untouched");
    row("three pages", 1, 3, 0, "ok 3p");
    row("behind the end", 7, 2, 0, "ENOENT field -ENOENT");
    let waiter = read(dst.page(5));
    check(
        "3.6 anon: a reader",
        outcome(&uffd, &waiter),
        "fault flags 0 at dst+0x5000",
    );
    row("for the reader", 5, 1, 0, "ok 1p");
    check("3.6 anon: the reader", waiter.finish(), "0x00");
    let waiter = write(dst.page(6), 0x99);
    check(
        "3.6 anon: a writer",
        outcome(&uffd, &waiter),
        "fault flags 1 at dst+0x6000",
    );
    row("for the writer", 6, 1, 0, "ok 1p");
    check("3.6 anon: the writer", waiter.finish(), "written");
    check("3.6 anon: no second message", uffd.now(), "EAGAIN");
}

fn shared() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::shared("dst", object, 4);
    uffd.watch(&dst, MISSING);
    alias.fill(0, 1, 0x11);
    check(
        "3.6 shmem shared: in the cache",
        uffd.zeropage(dst.start, PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.6 shmem shared: hole",
        uffd.zeropage(dst.page(1), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.6 shmem shared: it is in the file now",
        pages_of(object),
        "2 pages",
    );
    check(
        "3.6 shmem shared: populated",
        uffd.zeropage(dst.page(1), PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.6 shmem shared: behind the end of the file",
        beyond(object, libc::MAP_SHARED),
        "EFAULT field -EFAULT",
    );
}

/// How many pages the file has.
fn pages_of(fd: i32) -> String {
    let mut about = [0u64; 18];
    call(libc::SYS_fstat, &[fd as usize, about.as_mut_ptr() as usize]).expect("fstat works");
    format!("{} pages", about[8] / 8)
}

fn beyond(object: i32, flags: i32) -> Fill {
    let uffd = Uffd::with(0);
    let dst = Region::map("beyond", 8 * PAGE, RW, flags, object, 0).expect("memory can be mapped");
    uffd.watch(&dst, MISSING);
    uffd.zeropage(dst.page(6), PAGE, 0)
}

fn private() {
    let uffd = Uffd::with(0);
    let object = memfd(4);
    let alias = Region::shared("alias", object, 4);
    let dst = Region::private("dst", object, 4);
    uffd.watch(&dst, MISSING);
    alias.fill(0, 1, 0x11);
    check(
        "3.6 shmem private: in the cache, entry empty",
        uffd.zeropage(dst.start, PAGE, 0),
        "ok 1p",
    );
    check("3.6 shmem private: reads zeros", peek(dst.start), "0x00");
    check(
        "3.6 shmem private: a write copies silently",
        writing(&uffd, dst.start),
        "written",
    );
    check("3.6 shmem private: the file's page", peek(alias.start), "0x11");
    check(
        "3.6 shmem private: hole",
        uffd.zeropage(dst.page(1), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.6 shmem private: the file has one page",
        pages_of(object),
        "1 pages",
    );
    check(
        "3.6 shmem private: behind the end of the file",
        beyond(object, libc::MAP_PRIVATE),
        "EFAULT field -EFAULT",
    );
}

fn markers() {
    let uffd = Uffd::with(feature::WP_UNPOPULATED);
    let dst = Region::anon("dst", 4);
    uffd.watch(&dst, MISSING | WP);
    uffd.writeprotect(dst.start, PAGE, PROTECT)
        .expect("it is registered");
    check(
        "3.6 anon: WP marker",
        uffd.zeropage(dst.start, PAGE, 0),
        "EEXIST field -EEXIST",
    );
    uffd.poison(dst.page(1), PAGE, 0);
    check(
        "3.6 anon: poison marker",
        uffd.zeropage(dst.page(1), PAGE, 0),
        "EEXIST field -EEXIST",
    );
    check(
        "3.6 anon: the markers stay",
        format!("{} {}", page(dst.start), page(dst.page(1))),
        "0x420000000000003f 0x400000000000005f",
    );
    let object = memfd(4);
    for (name, dst) in [
        ("shared", Region::shared("s", object, 4)),
        ("private", Region::private("p", object, 4)),
    ] {
        uffd.watch(&dst, MISSING | WP);
        uffd.writeprotect(dst.start, PAGE, PROTECT)
            .expect("it is registered");
        let want = if name == "shared" {
            "ok 1p"
        } else {
            "EEXIST field -EEXIST"
        };
        check(
            &format!("3.6 shmem {name}: WP marker"),
            uffd.zeropage(dst.start, PAGE, 0),
            want,
        );
        uffd.poison(dst.page(1), PAGE, 0);
        let want = if name == "shared" {
            "ok 1p"
        } else {
            "EEXIST field -EEXIST"
        };
        check(
            &format!("3.6 shmem {name}: poison marker"),
            uffd.zeropage(dst.page(1), PAGE, 0),
            want,
        );
    }
}

fn refusals() {
    if !want_huge_pages(2) {
        return;
    }
    let uffd = Uffd::with(0);
    let huge = Region::huge("huge", 1);
    uffd.watch(&huge, MISSING);
    check(
        "3.6 hugetlb: one",
        uffd.zeropage(huge.start, HUGE, 0),
        "EINVAL field -EINVAL",
    );
    check(
        "3.6 hugetlb: small",
        uffd.zeropage(huge.start, PAGE, 0),
        "EINVAL field -EINVAL",
    );
}
