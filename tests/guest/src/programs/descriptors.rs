//! Descriptors: dup, fcntl, close, limits; pipes; eventfd.

use guest_tests::child::fork;
use guest_tests::job;
use guest_tests::region::{PAGE, Region};
use guest_tests::signal;
use guest_tests::sys::{self, Answer, call};
use guest_tests::transcript::{answer, ok, show};

pub fn run() {
    duplicating();
    flags();
    closing();
    limits();
    pipes();
    reopened();
    half_mapped();
    full_pipes();
    broken_pipes();
    vectors();
    nameless_sockets();
    eventfd();
    devices();
}

fn pipe() -> (i32, i32) {
    sys::pipe2(0).expect("a pipe can be made")
}

fn dup2(from: i32, to: i32) -> Answer {
    call(libc::SYS_dup2, &[from as usize, to as usize])
}

fn duplicating() {
    let (from, to) = pipe();
    show("dup: bad", ok(call(libc::SYS_dup, &[99])));
    let copy = call(libc::SYS_dup, &[to as usize]).expect("dup works") as i32;
    show("dup: the lowest that is free", copy > to);
    show("dup: a write to the copy", answer(sys::write(copy, b"ab")));
    show("dup: a read", answer(sys::read(from, &mut [0; 8])));
    show("dup2: to 50", answer(dup2(to, 50)));
    show("dup2: onto itself", answer(dup2(to, to)) == to.to_string());
    show("dup2: bad onto itself", answer(dup2(99, 99)));
    show("dup2: bad", answer(dup2(99, 51)));
    show("dup2: beyond the limit", answer(dup2(to, 1 << 30)));
    show("dup2: negative", answer(dup2(to, -1)));
    let dup3 = |from: i32, to: i32, flags: i32| {
        answer(call(
            libc::SYS_dup3,
            &[from as usize, to as usize, flags as usize],
        ))
    };
    show("dup3: onto itself", dup3(50, 50, 0));
    show("dup3: CLOEXEC", dup3(50, 51, libc::O_CLOEXEC));
    show("dup3: its flag", answer(sys::fcntl(51, libc::F_GETFD, 0)));
    show("dup3: unknown flag", dup3(50, 51, 1));
    show("F_DUPFD: from 60 on", answer(sys::fcntl(50, libc::F_DUPFD, 60)));
    show("F_DUPFD: again", answer(sys::fcntl(50, libc::F_DUPFD, 60)));
    show(
        "F_DUPFD_CLOEXEC",
        answer(sys::fcntl(50, libc::F_DUPFD_CLOEXEC, 60)),
    );
    show(
        "F_DUPFD: beyond the limit",
        answer(sys::fcntl(50, libc::F_DUPFD, 1 << 30)),
    );
    // The offset belongs to the open file.
    let file = guest_tests::region::memfd(1);
    let copy = call(libc::SYS_dup, &[file as usize]).expect("dup works") as i32;
    sys::write(file, b"hello").expect("a memfd takes bytes");
    show(
        "dup: the offset is shared",
        answer(call(libc::SYS_lseek, &[copy as usize, 0, 1])),
    );
    let child = fork(|| sys::read(copy, &mut [0; 3]).map_or(99, |count| count as i32));
    show("fork: a read in the child", child.wait());
    show(
        "fork: the offset is shared",
        answer(call(libc::SYS_lseek, &[file as usize, 0, 1])),
    );
    for fd in [from, to, 50, 51, 60, 61, 62] {
        let _ = sys::close(fd);
    }
}

fn flags() {
    let (from, to) = pipe();
    let get =
        |fd: i32| sys::fcntl(fd, libc::F_GETFL, 0).map_or("error".into(), |flags| format!("{flags:#x}"));
    show("F_GETFL: the end to read from", get(from));
    show("F_GETFL: the end to write to", get(to));
    show(
        "F_SETFL: with access bits mixed in",
        ok(sys::fcntl(from, libc::F_SETFL, 0x802)),
    );
    show("F_GETFL: then", get(from));
    show("F_SETFL: NONBLOCK: a read", answer(sys::read(from, &mut [0; 1])));
    show(
        "F_SETFL: unknown bits",
        ok(sys::fcntl(from, libc::F_SETFL, 0x4000_0000)),
    );
    show("F_GETFL: then again", get(from));
    show("F_SETFD", ok(sys::fcntl(from, libc::F_SETFD, 1)));
    show("F_GETFD", answer(sys::fcntl(from, libc::F_GETFD, 0)));
    show("fcntl: unknown", ok(sys::fcntl(from, 9999, 0)));
    show("fcntl: bad descriptor", ok(sys::fcntl(99, libc::F_GETFD, 0)));
    let mut number = 1i32;
    let at = &raw mut number as usize;
    show(
        "FIONBIO",
        ok(call(
            libc::SYS_ioctl,
            &[from as usize, libc::FIONBIO as usize, at],
        )),
    );
    show("FIONBIO: then", get(from));
    sys::write(to, b"abc").expect("a pipe takes bytes");
    show(
        "FIONREAD",
        ok(call(
            libc::SYS_ioctl,
            &[from as usize, libc::FIONREAD as usize, at],
        )),
    );
    show("FIONREAD: bytes", number);
    show("FIOCLEX", ok(call(libc::SYS_ioctl, &[to as usize, 0x5451, 0])));
    show("FIOCLEX: then", answer(sys::fcntl(to, libc::F_GETFD, 0)));
    show(
        "ioctl: unknown",
        ok(call(libc::SYS_ioctl, &[from as usize, 0x1234, 0])),
    );
    show(
        "ioctl: TCGETS of a pipe",
        ok(call(libc::SYS_ioctl, &[from as usize, 0x5401, at])),
    );
    show(
        "ioctl: bad descriptor",
        ok(call(libc::SYS_ioctl, &[99, 0x5401, at])),
    );
}

fn closing() {
    show("close: bad", ok(sys::close(99)));
    show("close: negative", ok(sys::close(-1)));
    let (from, to) = pipe();
    show("close", ok(sys::close(from)));
    show("close: twice", ok(sys::close(from)));
    let again = call(libc::SYS_dup, &[to as usize]).expect("dup works") as i32;
    show("close: its number is free again", again == from);
    let range =
        |first: usize, last: usize, flags: usize| ok(call(libc::SYS_close_range, &[first, last, flags]));
    dup2(to, 70).expect("dup2 works");
    dup2(to, 72).expect("dup2 works");
    show("close_range: CLOEXEC", range(70, 80, 4));
    show("close_range: the flag", answer(sys::fcntl(72, libc::F_GETFD, 0)));
    show("close_range", range(70, 80, 0));
    show("close_range: then", ok(sys::fcntl(70, libc::F_GETFD, 0)));
    show("close_range: backwards", range(80, 70, 0));
    show("close_range: unknown flag", range(70, 80, 9));
    show("read: bad descriptor", ok(sys::read(99, &mut [0; 1])));
    show("read: of an end to write to", ok(sys::read(to, &mut [0; 1])));
    show("write: bad descriptor", ok(sys::write(99, b"x")));
}

fn limits() {
    let limit = |new: [u64; 2]| {
        ok(call(
            libc::SYS_prlimit64,
            &[0, libc::RLIMIT_NOFILE as usize, new.as_ptr() as usize, 0],
        ))
    };
    show("prlimit: soft above hard", limit([2000, 1000]));
    show("prlimit: unknown", ok(call(libc::SYS_prlimit64, &[0, 99, 0, 0])));
    let child = fork(|| {
        show("prlimit: 20", limit([20, 4096]));
        let mut count = 0;
        while sys::pipe2(0).is_ok() {
            count += 1;
        }
        show("limit of descriptors: some pipes fit", count > 0);
        show("limit of descriptors: pipe", ok(sys::pipe2(0)));
        let _ = call(libc::SYS_dup, &[1]);
        show("limit of descriptors: dup", ok(call(libc::SYS_dup, &[1])));
        show("limit of descriptors: open", ok(sys::open("/dev/null", 0)));
        show("limit of descriptors: dup2 at it", answer(dup2(1, 20)));
        show("limit of descriptors: dup2 below it", answer(dup2(1, 19)));
        0
    });
    show("limit of descriptors: the child", child.wait());
    let mut usage = [0u64; 18];
    show(
        "getrusage",
        ok(call(libc::SYS_getrusage, &[0, usage.as_mut_ptr() as usize])),
    );
    show(
        "getrusage: unknown",
        ok(call(libc::SYS_getrusage, &[7, usage.as_mut_ptr() as usize])),
    );
    show("getrlimit: bad pointer", ok(call(libc::SYS_getrlimit, &[7, 8])));
}

/// Ends of a pipe, opened once more by what /proc calls them: nobody waits for the other end, not even when it is gone, and
/// what was written is there. Shells pass `<(command)` so.
fn reopened() {
    let again = |fd: i32, flags: i32| sys::open(&format!("/proc/self/fd/{fd}"), flags);
    let mut buffer = [0u8; 8];
    let (from, to) = pipe();
    sys::write(to, b"abc").expect("a pipe takes bytes");
    sys::close(to).expect("it is open");
    let reader = again(from, libc::O_RDONLY).expect("it can be opened");
    sys::close(from).expect("it is open");
    show(
        "reopened without a writer: a read",
        answer(sys::read(reader, &mut buffer)),
    );
    show(
        "reopened without a writer: the end",
        answer(sys::read(reader, &mut buffer)),
    );
    let writer = again(reader, libc::O_WRONLY).expect("it can be opened");
    sys::close(reader).expect("it is open");
    show(
        "reopened without a reader: a write",
        answer(sys::write(writer, b"x")),
    );
    let other = again(writer, libc::O_WRONLY | libc::O_NONBLOCK);
    show("reopened without a reader: NONBLOCK", ok(other.map(sys::close)));
    let both = again(writer, libc::O_RDWR).expect("it can be opened");
    show("reopened for both: a write", answer(sys::write(writer, b"xy")));
    show("reopened for both: a read", answer(sys::read(both, &mut buffer)));
    let _ = (sys::close(writer), sys::close(both));
}

fn pipes() {
    show("pipe2: unknown flag", ok(sys::pipe2(1)));
    show("pipe2: bad pointer", ok(call(libc::SYS_pipe2, &[8, 0])));
    let (from, to) = pipe();
    let link = std::fs::read_link(format!("/proc/self/fd/{from}"));
    show(
        "pipe: its link begins",
        link.map_or(String::new(), |path| path.display().to_string()[..6].to_string()),
    );
    let mut buffer = [0u8; 8];
    show("pipe: write of nothing", answer(sys::write(to, b"")));
    show("pipe: read of nothing", answer(sys::read(from, &mut [])));
    sys::write(to, b"hello").expect("a pipe takes bytes");
    show("pipe: a part", answer(sys::read(from, &mut buffer[..2])));
    show("pipe: the rest", answer(sys::read(from, &mut buffer)));
    show("pipe: lseek", ok(call(libc::SYS_lseek, &[from as usize, 0, 0])));
    show(
        "pipe: pread",
        ok(call(
            libc::SYS_pread64,
            &[from as usize, buffer.as_mut_ptr() as usize, 1, 0],
        )),
    );
    show(
        "pipe: write from a bad pointer",
        ok(call(libc::SYS_write, &[to as usize, 8, 4])),
    );
    sys::write(to, b"x").expect("a pipe takes a byte");
    show(
        "pipe: read into a bad pointer",
        ok(call(libc::SYS_read, &[from as usize, 8, 4])),
    );
    show(
        "pipe: poll",
        answer(sys::poll(from, libc::POLLIN | libc::POLLOUT, 0)),
    );
    show(
        "pipe: the byte is there still",
        answer(sys::read(from, &mut buffer)),
    );
    show(
        "pipe: poll of the empty one",
        answer(sys::poll(from, libc::POLLIN, 0)),
    );
    show(
        "pipe: poll of the end to write to",
        answer(sys::poll(to, libc::POLLIN | libc::POLLOUT, 0)),
    );
    let reader = job::start(move || answer(sys::read(from, &mut [0; 8])));
    show("pipe: a reader waits", reader.settle());
    sys::write(to, b"abc").expect("a pipe takes bytes");
    show("pipe: it reads", reader.finish());
    let reader = job::start(move || answer(sys::read(from, &mut [0; 8])));
    reader.settle();
    let _ = sys::close(to);
    show("pipe: the writer has closed", reader.finish());
    show("pipe: poll then", answer(sys::poll(from, libc::POLLIN, 0)));
    show("pipe: read then", answer(sys::read(from, &mut buffer)));
}

/// A read that ends in a hole: pieces as they were written are given whole or stay.
fn half_mapped() {
    let region = Region::anon("split", 3);
    call(libc::SYS_munmap, &[region.page(2), PAGE]).expect("munmap works");
    let before = region.page(2);
    let (from, to) = sys::pipe2(libc::O_NONBLOCK).expect("a pipe can be made");
    let read = |at: usize, len: usize| answer(call(libc::SYS_read, &[from as usize, at, len]));
    let mut left = [0u8; 3 * PAGE];
    let mut rest = || answer(sys::read(from, &mut left));
    for (name, writes, room, wanted) in [
        ("one piece, half of it", &[64][..], 8, 64),
        ("one piece, what fits is wanted", &[64], 8, 8),
        ("one piece, a byte more is wanted", &[64], 8, 9),
        ("two pieces, the first fits", &[PAGE, PAGE], PAGE + 8, 2 * PAGE),
        ("two pieces, neither fits", &[PAGE, PAGE], PAGE - 8, 2 * PAGE),
        ("two short pieces on one page", &[100, 100], 160, 200),
        ("a write of three pages", &[3 * PAGE], 2 * PAGE, 3 * PAGE),
        (
            "a write of three pages, half a page in",
            &[3 * PAGE],
            PAGE / 2 + PAGE,
            3 * PAGE,
        ),
    ] {
        for len in writes {
            sys::write(to, &vec![b'x'; *len]).expect("a pipe takes bytes");
        }
        region.fill(0, 2, 0);
        show(&format!("pipe into a hole: {name}"), read(before - room, wanted));
        let written = guest_tests::touch::bytes(before - room, room);
        let written = written.iter().filter(|byte| **byte == b'x').count();
        show(&format!("pipe into a hole: {name}: bytes in memory"), written);
        show(&format!("pipe into a hole: {name}: what is left"), rest());
    }
    sys::write(to, &[b'y'; 64]).expect("a pipe takes bytes");
    let parts = [before - 8, 8, region.start, 8];
    show(
        "pipe into two parts",
        answer(call(
            libc::SYS_readv,
            &[from as usize, parts.as_ptr() as usize, 2],
        )),
    );
    let parts = [region.start, 8, before - 4, 8];
    show(
        "pipe into two parts, the second half mapped",
        answer(call(
            libc::SYS_readv,
            &[from as usize, parts.as_ptr() as usize, 2],
        )),
    );
    show("pipe into two parts: what is left", rest());
}

fn full_pipes() {
    let (from, to) = sys::pipe2(libc::O_NONBLOCK).expect("a pipe can be made");
    let get = || answer(sys::fcntl(to, 1032, 0));
    show("pipe: F_GETPIPE_SZ", get());
    show(
        "pipe: F_SETPIPE_SZ to one page",
        answer(sys::fcntl(to, 1031, 4096)),
    );
    show("pipe: F_SETPIPE_SZ to 5000", answer(sys::fcntl(to, 1031, 5000)));
    show("pipe: F_SETPIPE_SZ to 0", answer(sys::fcntl(to, 1031, 0)));
    show(
        "pipe: F_SETPIPE_SZ to two pages",
        answer(sys::fcntl(to, 1031, 8192)),
    );
    let block = [b'x'; 4096];
    show("pipe: a page", answer(sys::write(to, &block)));
    show("pipe: another page", answer(sys::write(to, &block)));
    show(
        "pipe: F_SETPIPE_SZ below what is there",
        answer(sys::fcntl(to, 1031, 4096)),
    );
    show("pipe: full", answer(sys::write(to, &block)));
    show("pipe: one byte when full", answer(sys::write(to, b"x")));
    show("pipe: full: poll", answer(sys::poll(to, libc::POLLOUT, 0)));
    show(
        "pipe: read of two thirds",
        answer(sys::read(from, &mut [0; 3000])),
    );
    show("pipe: poll then", answer(sys::poll(to, libc::POLLOUT, 0)));
    show(
        "pipe: read of the rest of the page",
        answer(sys::read(from, &mut [0; 1096])),
    );
    show("pipe: poll at last", answer(sys::poll(to, libc::POLLOUT, 0)));
    sys::fcntl(to, libc::F_SETFL, 0).expect("F_SETFL works");
    sys::fcntl(from, libc::F_SETFL, 0).expect("F_SETFL works");
    let writer = job::start(move || answer(sys::write(to, &[b'y'; 10_000])));
    show("pipe: a writer waits", writer.settle());
    let mut sum = 0;
    while sum < 14_096 {
        match sys::read(from, &mut [0; 2000]) {
            Ok(count) if count > 0 => sum += count,
            _ => break,
        }
    }
    show("pipe: what came", sum);
    show("pipe: the writer", writer.finish());
}

fn broken_pipes() {
    signal::handle(libc::SIGPIPE, 0, &[], libc::SIG_DFL);
    let child = fork(|| {
        let (from, to) = pipe();
        let _ = sys::close(from);
        sys::write(to, b"x").map_or(1, |_| 0)
    });
    show("pipe without a reader: SIGPIPE", child.wait());
    signal::handle(libc::SIGPIPE, 0, &[], libc::SIG_IGN);
    let (from, to) = pipe();
    let _ = sys::close(from);
    show("pipe without a reader: ignored", answer(sys::write(to, b"x")));
    show(
        "pipe without a reader: poll",
        answer(sys::poll(to, libc::POLLOUT, 0)),
    );
}

fn vectors() {
    let (from, to) = pipe();
    let (first, second) = (*b"abc", *b"defgh");
    let vector = [first.as_ptr() as usize, 3, second.as_ptr() as usize, 5];
    let at = vector.as_ptr() as usize;
    show("writev", answer(call(libc::SYS_writev, &[to as usize, at, 2])));
    let (mut one, mut two) = ([0u8; 4], [0u8; 9]);
    let into = [one.as_mut_ptr() as usize, 4, two.as_mut_ptr() as usize, 9];
    show(
        "readv",
        answer(call(libc::SYS_readv, &[from as usize, into.as_ptr() as usize, 2])),
    );
    show(
        "readv: what came",
        format!(
            "{} {}",
            String::from_utf8_lossy(&one),
            String::from_utf8_lossy(&two[..4])
        ),
    );
    show(
        "writev: no vector",
        answer(call(libc::SYS_writev, &[to as usize, at, 0])),
    );
    show(
        "writev: too many",
        answer(call(libc::SYS_writev, &[to as usize, at, 1025])),
    );
    show(
        "writev: bad vector",
        answer(call(libc::SYS_writev, &[to as usize, 8, 1])),
    );
    let huge = [first.as_ptr() as usize, usize::MAX];
    show(
        "writev: a length that is negative",
        answer(call(libc::SYS_writev, &[to as usize, huge.as_ptr() as usize, 1])),
    );
    let half = [first.as_ptr() as usize, 3, 8usize, 5];
    show(
        "writev: the second is bad",
        answer(call(libc::SYS_writev, &[to as usize, half.as_ptr() as usize, 2])),
    );
}

/// The ends of a pair are bound to no name.
fn nameless_sockets() {
    let mut pair = [0i32; 2];
    call(
        libc::SYS_socketpair,
        &[
            libc::AF_UNIX as usize,
            libc::SOCK_STREAM as usize,
            0,
            pair.as_mut_ptr() as usize,
        ],
    )
    .expect("a pair can be made");
    for (name, number) in [
        ("getsockname", libc::SYS_getsockname),
        ("getpeername", libc::SYS_getpeername),
    ] {
        let mut address = [0xffu8; 8];
        let mut ask = |fd: i32, room: i32| {
            let mut length = room;
            let at = [address.as_mut_ptr() as usize, &raw mut length as usize];
            let got = ok(call(number, &[fd as usize, at[0], at[1]]));
            format!("{got}, {length} bytes, {:02x?}", &address[..4])
        };
        show(&format!("{name}: no room"), ask(pair[0], 0));
        show(&format!("{name}: room for a byte"), ask(pair[0], 1));
        show(&format!("{name}: less than no room"), ask(pair[0], -1));
        show(&format!("{name}: all"), ask(pair[1], 8));
        show(&format!("{name}: of no socket"), ask(0, 8));
        show(&format!("{name}: of nothing"), ask(99, 8));
        let fd = pair[0] as usize;
        show(
            &format!("{name}: bad length"),
            ok(call(number, &[fd, address.as_ptr() as usize, 8])),
        );
        let room = 8i32;
        show(
            &format!("{name}: bad address"),
            ok(call(number, &[fd, 8, &raw const room as usize])),
        );
    }
    let _ = pair.map(sys::close);
}

fn eventfd() {
    let create = |value: usize, flags: usize| call(libc::SYS_eventfd2, &[value, flags]).map(|fd| fd as i32);
    show("eventfd: unknown flag", ok(create(0, 8)));
    let fd = create(3, libc::EFD_NONBLOCK as usize).expect("eventfd works");
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    show(
        "eventfd: its link",
        link.map_or("none".into(), |path| path.display().to_string()),
    );
    let read = |fd: i32| {
        let mut value = [0u8; 8];
        answer(sys::read(fd, &mut value).map(|_| u64::from_le_bytes(value)))
    };
    let write = |fd: i32, value: u64| answer(sys::write(fd, &value.to_le_bytes()));
    show("eventfd: read", read(fd));
    show("eventfd: read of zero", read(fd));
    show("eventfd: short buffer", answer(sys::read(fd, &mut [0; 4])));
    show("eventfd: short write", answer(sys::write(fd, &[0; 4])));
    show(
        "eventfd: poll of zero",
        answer(sys::poll(fd, libc::POLLIN | libc::POLLOUT, 0)),
    );
    show("eventfd: write", write(fd, 5));
    show("eventfd: write more", write(fd, 7));
    show(
        "eventfd: poll",
        answer(sys::poll(fd, libc::POLLIN | libc::POLLOUT, 0)),
    );
    show("eventfd: the sum", read(fd));
    show("eventfd: write of the maximum", write(fd, u64::MAX));
    show("eventfd: write of one less", write(fd, u64::MAX - 1));
    show("eventfd: write when full", write(fd, 1));
    show(
        "eventfd: poll when full",
        answer(sys::poll(fd, libc::POLLIN | libc::POLLOUT, 0)),
    );
    show("eventfd: lseek", ok(call(libc::SYS_lseek, &[fd as usize, 0, 0])));
    let many = create(2, libc::EFD_SEMAPHORE as usize).expect("eventfd works");
    show("eventfd: semaphore", format!("{} {}", read(many), read(many)));
    let reader = job::start(move || {
        let mut value = [0u8; 8];
        answer(sys::read(many, &mut value).map(|_| u64::from_le_bytes(value)))
    });
    show("eventfd: a reader waits", reader.settle());
    show("eventfd: write for the reader", write(many, 1));
    show("eventfd: the reader", reader.finish());
}

fn devices() {
    let mut buffer = [9u8; 16];
    for path in [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/urandom",
        "/dev/random",
    ] {
        let Ok(fd) = sys::open(path, libc::O_RDWR) else {
            show(path, "cannot be opened");
            continue;
        };
        show(&format!("{path}: read"), answer(sys::read(fd, &mut buffer)));
        show(&format!("{path}: write"), answer(sys::write(fd, b"abc")));
        show(
            &format!("{path}: poll"),
            answer(sys::poll(fd, libc::POLLIN | libc::POLLOUT, 0)),
        );
        show(
            &format!("{path}: lseek"),
            ok(call(libc::SYS_lseek, &[fd as usize, 5, 0])),
        );
        let _ = sys::close(fd);
    }
    let random =
        |len: usize, flags: usize| answer(call(libc::SYS_getrandom, &[buffer.as_ptr() as usize, len, flags]));
    show("getrandom", random(16, 0));
    show("getrandom: nothing", random(0, 0));
    show("getrandom: unknown flag", random(16, 8));
    show(
        "getrandom: bad pointer",
        answer(call(libc::SYS_getrandom, &[8, 16, 0])),
    );
}
