//! Opening (section 1.1): the call, the device, and what kind of descriptor comes out.

use guest_tests::child::fork;
use guest_tests::region::{PAGE, RW, mmap};
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, check, ok};
use guest_tests::uffd::{USER_MODE_ONLY, Uffd, command, feature};

const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";

pub fn run() {
    flags();
    unprivileged();
    device();
    descriptor();
}

/// Opens, closes, and says how it went.
fn try_open(flags: i32) -> String {
    ok(Uffd::open(flags))
}

fn flags() {
    for (name, flags) in [
        ("none", 0),
        ("USER_MODE_ONLY", USER_MODE_ONLY),
        ("O_NONBLOCK", libc::O_NONBLOCK),
        ("O_CLOEXEC", libc::O_CLOEXEC),
        ("all three", USER_MODE_ONLY | libc::O_NONBLOCK | libc::O_CLOEXEC),
    ] {
        check(&format!("1.1 open: {name}"), try_open(flags), "ok");
    }
    for bit in [1, 2, 3, 10, 12, 18, 20, 30, 31] {
        check(
            &format!("1.1 open: unknown bit {bit}"),
            try_open((1u32 << bit) as i32),
            "EINVAL",
        );
    }
}

/// Runs the rest of this process as a user without rights.
pub fn become_nobody() {
    for call_number in [libc::SYS_setresgid, libc::SYS_setresuid] {
        call(call_number, &[65534, 65534, 65534]).expect("root may become nobody");
    }
}

fn unprivileged() {
    let as_nobody = |rows: &'static [(&'static str, i32, &'static str)]| {
        fork(|| {
            become_nobody();
            for (name, flags, want) in rows {
                check(&format!("1.1 unprivileged: {name}"), try_open(*flags), want);
            }
            0
        })
        .wait();
    };
    let before = std::fs::read_to_string(SYSCTL).unwrap_or_else(|error| error.to_string());
    check("1.1 sysctl: default", before.trim(), "0");
    as_nobody(&[
        ("no flag", 0, "EPERM"),
        ("USER_MODE_ONLY", 1, "ok"),
        ("unknown bit, without USER_MODE_ONLY", 2, "EPERM"),
        ("unknown bit, with USER_MODE_ONLY", 3, "EINVAL"),
    ]);
    let set = |value: &str| -> Answer<()> {
        let fd = sys::open(SYSCTL, libc::O_WRONLY)?;
        let answer = sys::write_all(fd, value.as_bytes());
        sys::close(fd).and(answer)
    };
    check("1.1 sysctl: 2", ok(set("2")), "EINVAL");
    check("1.1 sysctl: -1", ok(set("-1")), "EINVAL");
    check("1.1 sysctl: 1", ok(set("1")), "ok");
    as_nobody(&[
        ("no flag, sysctl 1", 0, "ok"),
        ("unknown bit, sysctl 1", 2, "EINVAL"),
    ]);
    fork(|| {
        become_nobody();
        let uffd = Uffd::open(libc::O_NONBLOCK).expect("anybody may open now");
        check(
            "1.4 EVENT_FORK without rights, sysctl 1",
            ok(uffd.api(feature::EVENT_FORK)),
            "EPERM",
        );
        check("1.4 no feature without rights, sysctl 1", ok(uffd.api(0)), "ok");
        0
    })
    .wait();
    check("1.1 sysctl: 0 again", ok(set("0")), "ok");
}

fn device() {
    const PATH: &str = "/dev/userfaultfd";
    let fd = match sys::open(PATH, libc::O_RDONLY | libc::O_CLOEXEC) {
        Ok(fd) => fd,
        Err(errno) => return check("1.1 device: open O_RDONLY", errno, "ok"),
    };
    let new = |fd: i32, flags: usize| {
        let answer = call(libc::SYS_ioctl, &[fd as usize, command::NEW, flags]);
        ok(answer.map(|uffd| sys::close(uffd as i32)))
    };
    check("1.1 device: NEW 0", new(fd, 0), "ok");
    check("1.1 device: NEW USER_MODE_ONLY", new(fd, 1), "ok");
    check("1.1 device: NEW O_NONBLOCK and O_CLOEXEC", new(fd, 0x80800), "ok");
    check("1.1 device: NEW with an unknown bit", new(fd, 2), "EINVAL");
    let other = |request: usize| ok(call(libc::SYS_ioctl, &[fd as usize, request, 0]));
    check("1.1 device: another command of the type", other(0xaa01), "EINVAL");
    check("1.1 device: UFFDIO_API", other(command::API), "EINVAL");
    check("1.1 device: TCGETS", other(0x5401), "EINVAL");
    check("1.1 device: read", answer(sys::read(fd, &mut [0; 32])), "EINVAL");
    check("1.1 device: the node", stat(PATH).as_str(), "mode 20600");
    fork(|| {
        become_nobody();
        check(
            "1.1 device: open without rights",
            ok(sys::open(PATH, libc::O_RDONLY)),
            "EACCES",
        );
        check(
            "1.1 device: NEW 0 by nobody on a passed descriptor",
            new(fd, 0),
            "ok",
        );
        0
    })
    .wait();
}

/// Type and permissions of a file.
fn stat(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(data) => format!("mode {:o}", data.mode()),
        Err(error) => error.to_string(),
    }
}

fn descriptor() {
    let uffd = Uffd::open(0).expect("userfaultfd works");
    let fd = uffd.fd;
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    check(
        "1.1 descriptor: link",
        link.map_or("none".into(), |path| path.display().to_string()),
        "anon_inode:[userfaultfd]",
    );
    let flags =
        |fd: i32| sys::fcntl(fd, libc::F_GETFL, 0).map_or("error".into(), |flags| format!("{flags:#x}"));
    check("1.1 descriptor: F_GETFL", flags(fd), "0x0");
    check(
        "1.1 descriptor: F_SETFL O_NONBLOCK",
        ok(sys::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK as usize)),
        "ok",
    );
    check("1.1 descriptor: F_GETFL after it", flags(fd), "0x800");
    uffd.api(0).expect("the handshake works");
    check("1.1 descriptor: O_NONBLOCK is honoured", uffd.now(), "EAGAIN");
    let closes = Uffd::open(libc::O_NONBLOCK | libc::O_CLOEXEC).expect("userfaultfd works");
    check(
        "1.1 descriptor: F_GETFL of a non-blocking one",
        flags(closes.fd),
        "0x800",
    );
    check(
        "1.1 descriptor: F_GETFD with O_CLOEXEC",
        answer(sys::fcntl(closes.fd, libc::F_GETFD, 0)),
        "1",
    );
    check(
        "1.1 descriptor: F_GETFD without",
        answer(sys::fcntl(fd, libc::F_GETFD, 0)),
        "0",
    );
    check(
        "1.1 descriptor: st_mode",
        stat(&format!("/proc/self/fd/{fd}")),
        "mode 600",
    );
    let bytes = [0u8; 32];
    check("1.1 descriptor: write", answer(sys::write(fd, &bytes)), "EBADF");
    let at = bytes.as_ptr() as usize;
    check(
        "1.1 descriptor: pread",
        answer(call(libc::SYS_pread64, &[fd as usize, at, 32, 0])),
        "ESPIPE",
    );
    check(
        "1.1 descriptor: lseek",
        answer(call(libc::SYS_lseek, &[fd as usize, 0, 0])),
        "0",
    );
    check(
        "1.1 descriptor: lseek to 4096",
        answer(call(libc::SYS_lseek, &[fd as usize, 4096, 0])),
        "0",
    );
    let mapped = mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0);
    check("1.1 descriptor: mmap private", ok(mapped), "ENODEV");
    let mapped = mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
    check("1.1 descriptor: mmap shared", ok(mapped), "ENODEV");
    check(
        "1.1 descriptor: fsync",
        ok(call(libc::SYS_fsync, &[fd as usize])),
        "EINVAL",
    );
    check(
        "1.1 descriptor: ftruncate",
        ok(call(libc::SYS_ftruncate, &[fd as usize, 0])),
        "EINVAL",
    );
}
