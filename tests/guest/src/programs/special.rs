//! Memory that cannot be registered, except for tracking alone (section 2, lower half).

use guest_tests::attempt::{reading, writing};
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{Hex, answer, check, ok, show};
use guest_tests::uffd::*;

const MAP_DROPPABLE: i32 = 8;

pub fn run() {
    let secret = call(libc::SYS_memfd_secret, &[0]).and_then(|fd| {
        ftruncate(fd as i32, 4 * PAGE)?;
        Region::map("secret", 4 * PAGE, RW, libc::MAP_SHARED, fd as i32, 0)
    });
    rows("memfd_secret", secret, "0x17c");
    rows("SysV shared memory", sysv(), "0x17c");
    rows(
        "MAP_DROPPABLE",
        Region::map(
            "droppable",
            4 * PAGE,
            RW,
            libc::MAP_ANONYMOUS | MAP_DROPPABLE,
            -1,
            0,
        ),
        "EINVAL",
    );
    rows("vdso", mapping("[vdso]"), "EINVAL");
    rows("vvar", mapping("[vvar]"), "EINVAL");
}

/// Every mode, in an ordinary context and in one that tracks without messages.
pub fn rows(name: &str, region: Answer<Region>, tracked: &str) {
    let region = match region {
        Ok(region) => region,
        Err(errno) => return show(&format!("2 {name}: cannot be had"), errno),
    };
    let uffd = Uffd::with(0);
    let asynchronous = Uffd::with(feature::WP_ASYNC);
    for mode in 1..8 {
        let got = uffd.register(region.start, PAGE, mode);
        check(&format!("2 {name}: mode {mode}"), answer(got.map(Hex)), "EINVAL");
        let got = asynchronous.register(region.start, PAGE, mode);
        let want = if mode == WP { tracked } else { "EINVAL" };
        check(
            &format!("2 {name}, async: mode {mode}"),
            answer(got.map(Hex)),
            want,
        );
        if got.is_ok() {
            let _ = asynchronous.unregister(region.start, PAGE);
        }
    }
}

/// A segment of SysV shared memory.
fn sysv() -> Answer<Region> {
    let segment = call(libc::SYS_shmget, &[libc::IPC_PRIVATE as usize, 4 * PAGE, 0o600])?;
    let hole = Region::hole("segment", 4 * PAGE);
    let attached = call(libc::SYS_shmat, &[segment, hole.start, 0]);
    let _ = call(libc::SYS_shmctl, &[segment, libc::IPC_RMID as usize, 0]);
    attached.map(|_| hole)
}

/// A mapping of the kernel's, by its name.
fn mapping(name: &str) -> Answer<Region> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = text.lines().find(|line| line.ends_with(name));
    let start = line.and_then(|line| usize::from_str_radix(line.split('-').next()?, 16).ok());
    start
        .map(|start| Region::named(name, start, PAGE))
        .ok_or(guest_tests::errno::Errno(libc::ENOENT))
}

/// What tracking does for a file whose type cannot be filled: only WRITEPROTECT works.
pub fn tracked_file(name: &str, fd: i32) {
    for (how, flags) in [("shared", libc::MAP_SHARED), ("private", libc::MAP_PRIVATE)] {
        let row = |what: &str| format!("2 {name} {how}, async: {what}");
        let uffd = Uffd::with(feature::WP_ASYNC);
        let file = match Region::map("file", 4 * PAGE, RW, flags, fd, 0) {
            Ok(file) => file,
            Err(errno) => {
                show(&row("cannot be mapped"), errno);
                continue;
            }
        };
        let source = Region::filled("source", 1, 1);
        rows(&format!("{name} {how}"), Ok(file), "0x17c");
        check(
            &row("register"),
            ok(uffd.register(file.start, file.len, WP)),
            "ok",
        );
        poke(file.start, 0x11);
        check(
            &row("COPY"),
            uffd.copy(file.page(1), source.start, PAGE, 0),
            "EINVAL field -EINVAL",
        );
        check(
            &row("ZEROPAGE"),
            uffd.zeropage(file.page(1), PAGE, 0),
            "EINVAL field -EINVAL",
        );
        check(
            &row("CONTINUE"),
            uffd.cont(file.page(1), PAGE, 0),
            "EINVAL field -EINVAL",
        );
        check(
            &row("POISON"),
            uffd.poison(file.page(1), PAGE, 0),
            "EINVAL field -EINVAL",
        );
        check(
            &row("WRITEPROTECT"),
            ok(uffd.writeprotect(file.start, file.len, PROTECT)),
            "ok",
        );
        check(&row("the page"), page(file.start).ends_with(" wp"), true);
        check(&row("an empty entry"), page(file.page(2)), "0x420000000000003f");
        check(&row("a read of it"), reading(&uffd, file.page(2)), "0x00");
        check(&row("a write to the page"), writing(&uffd, file.start), "written");
        check(
            &row("a write to it: the bit is clear"),
            page(file.start).ends_with(" wp"),
            false,
        );
        check(
            &row("a write to an empty entry"),
            writing(&uffd, file.page(3)),
            "written",
        );
        check(&row("no message"), uffd.now(), "EAGAIN");
        check(&row("it reads"), peek(file.start), "0x77");
    }
    let _ = sys::close(fd);
}
