//! A file of a disk's file system (section 2): it cannot be registered, except for tracking.
//!
//! Where every file lives in memory there is nothing to see, and the program says so.

use guest_tests::job;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{answer, check, show};
use guest_tests::uffd::*;

pub fn run() {
    let path = format!("/var/tmp/guest-tests-{}", std::process::id());
    let made = sys::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL);
    let Ok(fd) = made else {
        return show("2 a file on a disk: cannot be made", answer(made));
    };
    let about = filesystem(fd);
    show(
        "2 the file system of /var/tmp",
        if about == 0x0102_1994 {
            "memory"
        } else {
            "a disk's"
        },
    );
    if about != 0x0102_1994 {
        ftruncate(fd, 4 * PAGE).expect("a file can be given a size");
        super::special::tracked_file("file on a disk", fd);
        direct(&path);
    }
    let _ = std::fs::remove_file(&path);
}

/// The magic number of the file system.
fn filesystem(fd: i32) -> u64 {
    let mut about = [0u64; 16];
    let _ = call(libc::SYS_fstatfs, &[fd as usize, about.as_mut_ptr() as usize]);
    about[0]
}

/// Reading past the cache into a page that is missing or protected (section 4.4).
fn direct(path: &str) {
    let Ok(fd) = sys::open(path, libc::O_RDONLY | libc::O_DIRECT) else {
        return;
    };
    // What is to be written is written before: the waits below are to be for memory alone.
    let _ = call(libc::SYS_fsync, &[fd as usize]);
    let read = move |at: usize| move || answer(call(libc::SYS_pread64, &[fd as usize, at, PAGE, 0]));
    for (name, uffd, want) in [
        ("missing", Uffd::with(0), "fault flags 1 at area"),
        ("missing, USER_MODE_ONLY", Uffd::user_mode(0), "EFAULT"),
        ("missing, FEATURE_SIGBUS", Uffd::with(feature::SIGBUS), "EFAULT"),
    ] {
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let job = job::start(read(area.start));
        check(
            &format!("4.4 O_DIRECT read: {name}"),
            guest_tests::attempt::outcome(&uffd, &job),
            want,
        );
        if !job.done() {
            uffd.zeropage(area.start, PAGE, 0);
            check(
                &format!("4.4 O_DIRECT read: {name}, filled"),
                job.finish(),
                "4096",
            );
        }
    }
    let uffd = Uffd::with(0);
    let area = Region::filled("area", 1, 1);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    let job = job::start(read(area.start));
    check(
        "4.4 O_DIRECT read: protected",
        guest_tests::attempt::outcome(&uffd, &job),
        "fault flags 3 at area",
    );
    uffd.writeprotect(area.start, PAGE, 0).expect("it is registered");
    check("4.4 O_DIRECT read: protected, unprotected", job.finish(), "4096");
}
