//! Fills where memory has a limit (section 3.5): a tmpfs of a size, the pool of huge pages.

use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{check, ok, show};
use guest_tests::uffd::*;

pub fn run() {
    limited_tmpfs();
    empty_pool();
}

/// A file in a file system of four pages, mounted for this alone.
fn limited_tmpfs() {
    let path = format!("/tmp/guest-tests-{}", std::process::id());
    if let Err(error) = std::fs::create_dir(&path) {
        return show("3.5 tmpfs of four pages: a directory", error);
    }
    let name = std::ffi::CString::new(path.as_str()).expect("no NUL");
    let (tmpfs, options) = (c"tmpfs".as_ptr() as usize, c"size=16384".as_ptr() as usize);
    let mounted = call(
        libc::SYS_mount,
        &[tmpfs, name.as_ptr() as usize, tmpfs, 0, options],
    );
    check("3.5 tmpfs of four pages: mount", ok(mounted), "ok");
    let file = sys::open(&format!("{path}/file"), libc::O_RDWR | libc::O_CREAT);
    let _ = call(
        libc::SYS_umount2,
        &[name.as_ptr() as usize, libc::MNT_DETACH as usize],
    );
    let _ = std::fs::remove_dir(&path);
    let (Ok(_), Ok(file)) = (mounted, file) else {
        return;
    };
    ftruncate(file, 16 * PAGE).expect("a size is only a number");
    let uffd = Uffd::with(0);
    let source = Region::filled("source", 8, 0x5c);
    let dst = Region::shared("dst", file, 16);
    uffd.watch(&dst, MISSING);
    check(
        "3.5 tmpfs of four pages: COPY of three",
        uffd.copy(dst.start, source.start, 3 * PAGE, 0),
        "ok 3p",
    );
    check(
        "3.6 tmpfs of four pages: ZEROPAGE of one",
        uffd.zeropage(dst.page(3), PAGE, 0),
        "ok 1p",
    );
    check(
        "3.5 tmpfs is full: COPY",
        uffd.copy(dst.page(4), source.start, PAGE, 0),
        "ENOMEM field -ENOMEM",
    );
    check(
        "3.6 tmpfs is full: ZEROPAGE",
        uffd.zeropage(dst.page(4), PAGE, 0),
        "ENOMEM field -ENOMEM",
    );
    check(
        "3.5 tmpfs is full: write(2)",
        ok(call(
            libc::SYS_pwrite64,
            &[file as usize, source.start, 1, 4 * PAGE],
        )),
        "ENOSPC",
    );
    uffd.unregister(dst.start, dst.len).expect("it is registered");
    check(
        "3.5 tmpfs is full: a touch",
        peek(dst.page(5)),
        "SIGBUS code 2 at dst+0x5000",
    );
    madvise(dst.start, PAGE, libc::MADV_REMOVE).expect("madvise works");
    uffd.watch(&dst, MISSING);
    check(
        "3.5 tmpfs has room for one: COPY of two",
        uffd.copy(dst.page(6), source.start, 2 * PAGE, 0),
        "EAGAIN field 1p",
    );
}

/// Takes every huge page there is for a moment.
fn empty_pool() {
    if !want_huge_pages(3) {
        return show("3.5 hugetlb pool", "cannot be had");
    }
    let uffd = Uffd::with(0);
    let object = memfd_flags(libc::MFD_HUGETLB).expect("huge pages are there");
    ftruncate(object, 512 * HUGE).expect("a size is only a number");
    let source = Region::map("source", HUGE, RW, ANON, -1, 0).expect("memory can be mapped");
    source.fill(0, HUGE / PAGE, 0x5c);
    // Nothing is promised: pages are taken when they are touched.
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    let all = Region::map("all", 512 * HUGE, RW, flags, object, 0).expect("huge pages can be mapped");
    let dst = Region::map("dst", 512 * HUGE, RW, flags, object, 0).expect("huge pages can be mapped");
    uffd.watch(&dst, MISSING);
    check(
        "3.5 hugetlb pool: COPY while there are pages",
        uffd.copy(dst.start, source.start, HUGE, 0),
        "ok 512p",
    );
    let mut taken = 1;
    while taken < 511
        && matches!(
            poke(all.start + taken * HUGE, 1),
            guest_tests::touch::Touch::Written
        )
    {
        taken += 1;
    }
    let copy = uffd.copy(dst.start + 511 * HUGE, source.start, HUGE, 0);
    let touch = peek(all.start + 511 * HUGE);
    drop(uffd);
    for region in [all, dst] {
        region.unmap().expect("it is mapped");
    }
    let _ = sys::close(object);
    check("3.5 hugetlb pool is empty: COPY", copy, "EEXIST field -EEXIST");
    check(
        "3.5 hugetlb pool is empty: a touch",
        touch,
        "SIGBUS code 2 at all+0x3fe00000",
    );
}
