//! Descriptors of processes: made, polled, waited for, signalled through, and descriptors taken from others by them.

use super::execute::exec;
use guest_tests::child::{Child, ended, fork};
use guest_tests::job::until;
use guest_tests::proc::page;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::{peek, poke};
use guest_tests::transcript::{answer, ok, show};
use guest_tests::uffd::{MISSING, Uffd};

const NONBLOCK: usize = libc::O_NONBLOCK as usize;
const THREAD: usize = libc::O_EXCL as usize;
const P_PIDFD: usize = 3;
const MADV_WIPEONFORK: usize = 18;
const MADV_COLD: usize = 20;
const MADV_PAGEOUT: usize = 21;

fn open(pid: i32, flags: usize) -> Answer<i32> {
    call(libc::SYS_pidfd_open, &[pid as usize, flags]).map(|fd| fd as i32)
}

fn send(fd: i32, signal: i32, info: usize, flags: usize) -> Answer {
    call(
        libc::SYS_pidfd_send_signal,
        &[fd as usize, signal as usize, info, flags],
    )
}

fn take(fd: i32, number: i32, flags: usize) -> Answer<i32> {
    call(libc::SYS_pidfd_getfd, &[fd as usize, number as usize, flags]).map(|fd| fd as i32)
}

/// `POLLIN` and the like of a descriptor now.
fn poll(fd: i32) -> String {
    answer(sys::poll(fd, libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM, 0))
}

/// A child that waits to be killed.
fn sleeper() -> Child {
    fork(|| {
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    })
}

/// Kills a child and waits for it.
fn end(child: &Child) -> String {
    let _ = child.kill(libc::SIGKILL);
    child.wait()
}

fn own() -> i32 {
    std::process::id() as i32
}

pub fn run() {
    opening();
    looks();
    polling();
    waiting();
    signals();
    taking();
    making();
    threads();
    executing();
    monitors();
    advising();
}

fn opening() {
    for (name, pid, flags) in [
        ("0", 0, 0),
        ("-1", -1, 0),
        ("nobody", 4_000_000, 0),
        ("own", own(), 0),
        ("own, non-blocking", own(), NONBLOCK),
        ("own, thread", own(), THREAD),
        ("unknown flag", own(), 1),
        ("0, unknown flag", 0, 1),
        ("close-on-exec", own(), libc::O_CLOEXEC as usize),
    ] {
        let fd = open(pid, flags);
        show(&format!("pidfd_open: {name}"), ok(fd));
        if let Ok(fd) = fd {
            show(
                &format!("pidfd_open: {name}: F_GETFD"),
                answer(sys::fcntl(fd, libc::F_GETFD, 0)),
            );
            show(
                &format!("pidfd_open: {name}: F_GETFL"),
                answer(sys::fcntl(fd, libc::F_GETFL, 0).map(|flags| format!("{flags:#o}"))),
            );
            let _ = sys::close(fd);
        }
    }
    let child = fork(|| 3);
    let status = child.wait();
    show("pidfd_open: a child that was waited for", ok(open(child.pid, 0)));
    show("pidfd_open: its end was", status);
    let child = fork(|| 4);
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    let fd = open(child.pid, 0);
    show("pidfd_open: a child that has ended", ok(fd));
    show("pidfd_open: poll of it", poll(fd.unwrap_or(-1)));
    show("pidfd_open: its end", child.wait());
    show("pidfd_open: poll then", poll(fd.unwrap_or(-1)));
    let _ = sys::close(fd.unwrap_or(-1));
}

fn looks() {
    let fd = open(own(), 0).expect("one's own can be had");
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    show(
        "link",
        link.map_or(String::new(), |path| path.display().to_string()),
    );
    let info = |fd: i32| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    for key in ["pos:", "Pid:", "NSpid:"] {
        let text = info(fd);
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or("none");
        show(&format!("fdinfo {key}"), line.replace(&own().to_string(), "own"));
    }
    let mut buffer = [0u8; 8];
    show("read", answer(sys::read(fd, &mut buffer)));
    show("write", answer(sys::write(fd, &buffer)));
    show("lseek", answer(call(libc::SYS_lseek, &[fd as usize, 0, 0])));
    show("ftruncate", ok(call(libc::SYS_ftruncate, &[fd as usize, 0])));
    show(
        "mmap",
        ok(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0)),
    );
    show("ioctl", ok(call(libc::SYS_ioctl, &[fd as usize, 0x1234, 0])));
    let mut stat = [0u64; 18];
    show(
        "fstat",
        ok(call(libc::SYS_fstat, &[fd as usize, stat.as_mut_ptr() as usize])),
    );
    let child = sleeper();
    let theirs = open(child.pid, 0).expect("a child's can be had");
    let text = info(theirs);
    show(
        "fdinfo of a child",
        text.contains(&format!("Pid:\t{}\n", child.pid)),
    );
    show("a child's end", end(&child));
    let text = info(theirs);
    for key in ["Pid:", "NSpid:"] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or("none");
        show(&format!("fdinfo afterwards {key}"), line);
    }
    let _ = sys::close(theirs);
    let _ = sys::close(fd);
}

fn polling() {
    let child = sleeper();
    let fd = open(child.pid, 0).expect("a child's can be had");
    show("poll: it lives", poll(fd));
    let waiter = guest_tests::job::start(move || {
        answer(sys::poll(fd, libc::POLLIN, -1).map(|events| format!("{events:#x}")))
    });
    show("poll: somebody waits", waiter.settle());
    let _ = child.kill(libc::SIGTERM);
    show("poll: its end wakes it", waiter.finish());
    show("poll: it has ended", poll(fd));
    let epoll = call(libc::SYS_epoll_create1, &[0]).expect("epoll is there");
    let event = [libc::EPOLLIN as u32, 7, 0];
    show(
        "epoll: add",
        ok(call(
            libc::SYS_epoll_ctl,
            &[epoll, 1, fd as usize, event.as_ptr() as usize],
        )),
    );
    let mut events = [0u32; 3];
    let mut wait = || {
        let got = call(libc::SYS_epoll_wait, &[epoll, events.as_mut_ptr() as usize, 1, 0]);
        format!("{} {:#x}", answer(got), events[0])
    };
    show("epoll: it has ended", wait());
    show("poll: its end was", child.wait());
    show("epoll: it was waited for", wait());
    show("poll: it was waited for", poll(fd));
    let _ = sys::close(fd);
    let child = sleeper();
    let fd = open(child.pid, 0).expect("a child's can be had");
    let watcher =
        guest_tests::job::start(move || answer(sys::poll(fd, 0, -1).map(|events| format!("{events:#x}"))));
    watcher.settle();
    let _ = child.kill(libc::SIGKILL);
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    show("poll: nothing is asked for, it has ended", watcher.settle());
    show("poll: nothing is asked for, its end", child.wait());
    show("poll: nothing is asked for, it was waited for", watcher.finish());
    let _ = sys::close(fd);
    let _ = sys::close(epoll as i32);
}

/// `waitid`; what it says and what it stores.
fn waitid(kind: usize, id: usize, options: i32) -> String {
    let mut info = [0i32; 32];
    let got = call(
        libc::SYS_waitid,
        &[kind, id, info.as_mut_ptr() as usize, options as usize, 0],
    );
    match got {
        Ok(value) => format!("{value}: signal {} code {} status {}", info[0], info[2], info[6]),
        Err(errno) => errno.to_string(),
    }
}

fn waiting() {
    let child = sleeper();
    let fd = open(child.pid, 0).expect("a child's can be had") as usize;
    show("waitid: no options", waitid(P_PIDFD, fd, 0));
    show(
        "waitid: it lives",
        waitid(P_PIDFD, fd, libc::WEXITED | libc::WNOHANG),
    );
    show("waitid: a bad descriptor", waitid(P_PIDFD, 99, libc::WEXITED));
    show(
        "waitid: a negative descriptor",
        waitid(P_PIDFD, usize::MAX, libc::WEXITED),
    );
    let (from, _to) = sys::pipe2(0).expect("a pipe can be made");
    show(
        "waitid: no descriptor of a process",
        waitid(P_PIDFD, from as usize, libc::WEXITED),
    );
    let path = sys::open(&format!("/proc/{}", child.pid), libc::O_DIRECTORY).expect("it is there");
    show(
        "waitid: a directory of /proc",
        waitid(P_PIDFD, path as usize, libc::WEXITED),
    );
    let me = open(own(), 0).expect("one's own can be had");
    show("waitid: not a child", waitid(P_PIDFD, me as usize, libc::WEXITED));
    let slack = open(child.pid, NONBLOCK).expect("a child's can be had");
    show(
        "waitid: non-blocking, it lives",
        waitid(P_PIDFD, slack as usize, libc::WEXITED),
    );
    show(
        "waitid: non-blocking, it lives, WNOHANG",
        waitid(P_PIDFD, slack as usize, libc::WEXITED | libc::WNOHANG),
    );
    let _ = child.kill(libc::SIGSTOP);
    show("waitid: it was stopped", waitid(P_PIDFD, fd, libc::WSTOPPED));
    let _ = child.kill(libc::SIGCONT);
    show("waitid: it goes on", waitid(P_PIDFD, fd, libc::WCONTINUED));
    let _ = child.kill(libc::SIGKILL);
    show(
        "waitid: it has ended, WNOWAIT",
        waitid(P_PIDFD, fd, libc::WEXITED | libc::WNOWAIT),
    );
    show(
        "waitid: non-blocking, it has ended",
        waitid(P_PIDFD, slack as usize, libc::WEXITED),
    );
    show("waitid: once more", waitid(P_PIDFD, fd, libc::WEXITED));
    for fd in [fd as i32, path, me, slack] {
        let _ = sys::close(fd);
    }
    let child = fork(|| 7);
    let fd = open(child.pid, 0).expect("a child's can be had");
    show("waitid: it exits", waitid(P_PIDFD, fd as usize, libc::WEXITED));
    let _ = sys::close(fd);
}

fn signals() {
    let child = sleeper();
    let fd = open(child.pid, 0).expect("a child's can be had");
    show("send: nothing", ok(send(fd, 0, 0, 0)));
    show("send: no signal", ok(send(fd, 65, 0, 0)));
    show("send: -1", ok(send(fd, -1, 0, 0)));
    show("send: a bad descriptor", ok(send(99, 0, 0, 0)));
    for flags in [1, 2, 3, 4, 5, 8] {
        show(&format!("send: flags {flags}"), ok(send(fd, 0, 0, flags)));
    }
    show("send: a bad descriptor and flags", ok(send(99, 0, 0, 8)));
    let (from, _to) = sys::pipe2(0).expect("a pipe can be made");
    show("send: no descriptor of a process", ok(send(from, 0, 0, 0)));
    let directory = sys::open(&format!("/proc/{}", child.pid), libc::O_DIRECTORY).expect("it is there");
    show("send: a directory of /proc", ok(send(directory, 0, 0, 0)));
    let task = format!("/proc/{}/task/{}", child.pid, child.pid);
    let task = sys::open(&task, libc::O_DIRECTORY).expect("it is there");
    show("send: a thread's directory of /proc", ok(send(task, 0, 0, 0)));
    let file = sys::open(&format!("/proc/{}/maps", child.pid), 0).expect("it is there");
    show("send: a file of /proc", ok(send(file, 0, 0, 0)));
    show(
        "send: siginfo at a bad pointer",
        ok(send(fd, libc::SIGTERM, 8, 0)),
    );
    let info = |signal: i32, code: i32| {
        let mut info = [0i32; 32];
        (info[0], info[2]) = (signal, code);
        info
    };
    for (name, signal, code) in [
        ("of another signal", libc::SIGUSR1, -1),
        ("of the kernel", libc::SIGTERM, 0),
        ("like tkill's", libc::SIGTERM, -6),
    ] {
        let info = info(signal, code);
        show(
            &format!("send: siginfo {name}"),
            ok(send(fd, libc::SIGTERM, info.as_ptr() as usize, 0)),
        );
    }
    let queued = info(0, -1);
    show(
        "send: siginfo of none",
        ok(send(fd, 0, queued.as_ptr() as usize, 0)),
    );
    let queued = info(libc::SIGTERM, -1);
    show(
        "send: siginfo of a queue",
        ok(send(fd, libc::SIGTERM, queued.as_ptr() as usize, 0)),
    );
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    show("send: to one that has ended", ok(send(fd, libc::SIGTERM, 0, 0)));
    show("send: its end", child.wait());
    show("send: to one that was waited for", ok(send(fd, 0, 0, 0)));
    show("send: by its directory", ok(send(directory, 0, 0, 0)));
    let me = open(own(), 0).expect("one's own can be had");
    let own_info = info(libc::SIGURG, 0);
    show(
        "send: to oneself, siginfo of the kernel",
        ok(send(me, libc::SIGURG, own_info.as_ptr() as usize, 0)),
    );
    show("send: PIDFD_SELF_THREAD", ok(send(-10000, 0, 0, 0)));
    show("send: PIDFD_SELF_THREAD_GROUP", ok(send(-10001, 0, 0, 0)));
    show("send: -20000", ok(send(-20000, 0, 0, 0)));
    show("send: -100", ok(send(-100, 0, 0, 0)));
    let child = fork(|| {
        let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
        let got = send(me, libc::SIGTERM, 0, 0);
        show("send: by somebody else", ok(got));
        0
    });
    show("send: somebody else's end", child.wait());
    for fd in [fd, directory, task, file, me, from] {
        let _ = sys::close(fd);
    }
}

fn taking() {
    let shared = Region::common("words");
    let child = fork(|| {
        let (from, to) = sys::pipe2(libc::O_NONBLOCK).expect("a pipe can be made");
        let _ = sys::write(to, b"hello");
        poke(shared.start + 1, from as u8);
        poke(shared.start + 2, memfd(1) as u8);
        poke(shared.start, 1);
        loop {
            let _ = call(libc::SYS_pause, &[]);
        }
    });
    until(|| guest_tests::touch::bytes(shared.start, 1)[0] == 1);
    let numbers = guest_tests::touch::bytes(shared.start, 3);
    let fd = open(child.pid, 0).expect("a child's can be had");
    let taken = take(fd, numbers[1].into(), 0);
    show("getfd: a pipe", ok(taken));
    let mut buffer = [0u8; 8];
    let pipe = taken.unwrap_or(-1);
    show("getfd: it reads", answer(sys::read(pipe, &mut buffer)));
    show(
        "getfd: it is closed at exec",
        answer(sys::fcntl(pipe, libc::F_GETFD, 0)),
    );
    show(
        "getfd: its status is the other's",
        answer(sys::fcntl(pipe, libc::F_GETFL, 0).map(|flags| flags & libc::O_NONBLOCK as usize != 0)),
    );
    show("getfd: a number that is not open", ok(take(fd, 200, 0)));
    show("getfd: -1", ok(take(fd, -1, 0)));
    show("getfd: flags", ok(take(fd, numbers[1].into(), 1)));
    show("getfd: a bad descriptor", ok(take(99, 0, 0)));
    show("getfd: no descriptor of a process", ok(take(pipe, 0, 0)));
    show("getfd: PIDFD_SELF_THREAD_GROUP", ok(take(-10001, 0, 0)));
    let directory = sys::open(&format!("/proc/{}", child.pid), libc::O_DIRECTORY).expect("it is there");
    show("getfd: a directory of /proc", ok(take(directory, 0, 0)));
    let me = open(own(), 0).expect("one's own can be had");
    let own_pipe = take(me, pipe, 0);
    show("getfd: from oneself", ok(own_pipe));
    let memory = take(fd, numbers[2].into(), 0).unwrap_or(-1);
    let mapped = Region::shared("taken", memory, 1);
    poke(mapped.start, 0x5a);
    show("getfd: memory of the other's can be mapped", peek(mapped.start));
    let limited = fork(|| {
        let limit = [3u64, 3];
        let _ = call(libc::SYS_prlimit64, &[0, 7, limit.as_ptr() as usize, 0]);
        show("getfd: no number is free", ok(take(fd, numbers[1].into(), 0)));
        0
    });
    show("getfd: that child", limited.wait());
    let other = fork(|| {
        let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
        show("getfd: by somebody else", ok(take(fd, numbers[1].into(), 0)));
        show("getfd: by somebody else, not open", ok(take(fd, 200, 0)));
        0
    });
    show("getfd: somebody else's end", other.wait());
    let _ = child.kill(libc::SIGKILL);
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    show(
        "getfd: from one that has ended",
        ok(take(fd, numbers[1].into(), 0)),
    );
    let _ = child.wait();
    show("getfd: from one that is gone", ok(take(fd, numbers[1].into(), 0)));
    for fd in [fd, directory, me, pipe, memory, own_pipe.unwrap_or(-1)] {
        let _ = sys::close(fd);
    }
    same_user();
}

/// Who may look into a process of the same user.
fn same_user() {
    let shared = Region::common("ready");
    for (name, dumpable) in [("that may be looked into", 1), ("that may not", 0)] {
        let target = fork(|| {
            let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
            let _ = call(libc::SYS_prctl, &[4, dumpable]);
            poke(shared.start, 1);
            loop {
                let _ = call(libc::SYS_pause, &[]);
            }
        });
        until(|| guest_tests::touch::bytes(shared.start, 1)[0] == 1);
        poke(shared.start, 0);
        let fd = open(target.pid, 0).expect("a child's can be had");
        let other = fork(|| {
            let _ = call(libc::SYS_setresgid, &[0, 0, 0]);
            let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
            show(&format!("same user, a process {name}: getfd"), ok(take(fd, 1, 0)));
            let read = read_byte(target.pid, shared.start);
            show(
                &format!("same user, a process {name}: process_vm_readv"),
                answer(read),
            );
            0
        });
        let _ = other.wait();
        let stranger = fork(|| {
            let _ = call(libc::SYS_setresuid, &[1001, 1001, 1001]);
            let read = read_byte(target.pid, shared.start);
            show(
                &format!("another user, a process {name}: process_vm_readv"),
                answer(read),
            );
            let memory = sys::open(&format!("/proc/{}/mem", target.pid), 0);
            show(&format!("another user, a process {name}: its mem"), ok(memory));
            0
        });
        let _ = stranger.wait();
        let _ = end(&target);
        let _ = sys::close(fd);
    }
}

/// Reads a byte of another process with process_vm_readv(2).
fn read_byte(pid: i32, address: usize) -> sys::Answer {
    let mut byte = 0u8;
    let local = [&raw mut byte as usize, 1];
    let remote = [address, 1];
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    call(
        libc::SYS_process_vm_readv,
        &[pid as usize, local, 1, remote, 1, 0],
    )
}

/// CLONE_PIDFD.
fn making() {
    const PIDFD: usize = 0x1000;
    const PARENT_SETTID: usize = 0x10_0000;
    const DETACHED: usize = 0x40_0000;
    const CHLD: usize = libc::SIGCHLD as usize;
    let mut word = -1i32;
    let at = &raw mut word as usize;
    let clone = |flags: usize, word: usize| {
        let got = call(libc::SYS_clone, &[flags, 0, word, 0, 0]);
        if got == Ok(0) {
            let _ = call(libc::SYS_exit_group, &[9]);
        }
        got
    };
    let lowest = next_free();
    let pid = clone(PIDFD | CHLD, at);
    let fd = std::hint::black_box(word);
    show("clone: a child with a descriptor", ok(pid));
    show("clone: its descriptor is the lowest", fd == lowest);
    show("clone: closed at exec", answer(sys::fcntl(fd, libc::F_GETFD, 0)));
    show(
        "clone: waited for by it",
        waitid(P_PIDFD, fd as usize, libc::WEXITED),
    );
    let _ = sys::close(fd);
    show("clone: at a bad pointer", ok(clone(PIDFD | CHLD, 8)));
    show("clone: no child of that", wait_any());
    show(
        "clone: with PARENT_SETTID",
        ok(clone(PIDFD | PARENT_SETTID | CHLD, at)),
    );
    show("clone: with DETACHED", ok(clone(PIDFD | DETACHED | CHLD, at)));
    let mut number = 0i32;
    let mut args = [0u64; 11];
    args[0] = (PIDFD | PARENT_SETTID) as u64;
    args[1] = at as u64;
    args[3] = &raw mut number as u64;
    args[4] = CHLD as u64;
    let clone3 = |args: &[u64; 11]| {
        let got = call(libc::SYS_clone3, &[args.as_ptr() as usize, 88]);
        if got == Ok(0) {
            let _ = call(libc::SYS_exit_group, &[10]);
        }
        got
    };
    let pid = clone3(&args);
    let fd = std::hint::black_box(word);
    show("clone3: a child with a descriptor and its number", ok(pid));
    show(
        "clone3: the number",
        pid == Ok(std::hint::black_box(number) as usize),
    );
    show("clone3: waited for", waitid(P_PIDFD, fd as usize, libc::WEXITED));
    let _ = sys::close(fd);
    (number, args[1]) = (0, 8);
    show("clone3: the descriptor at a bad pointer", ok(clone3(&args)));
    show("clone3: no number of that", std::hint::black_box(number));
    show("clone3: no child of that", wait_any());
    args[1] = at as u64;
    args[3] = args[1];
    show("clone3: both at one place", ok(clone3(&args)));
    let limited = fork(|| {
        let limit = [3u64, 3];
        let _ = call(libc::SYS_prlimit64, &[0, 7, limit.as_ptr() as usize, 0]);
        show("clone: no number is free", ok(clone(PIDFD | CHLD, at)));
        show("clone: no child of that either", wait_any());
        0
    });
    show("clone: that child", limited.wait());
}

/// The descriptor that is given next.
fn next_free() -> i32 {
    let next = sys::fcntl(1, libc::F_DUPFD, 0).unwrap_or(0) as i32;
    let _ = sys::close(next);
    next
}

fn wait_any() -> String {
    let mut status = 0i32;
    let got = call(
        libc::SYS_wait4,
        &[usize::MAX, &raw mut status as usize, libc::WNOHANG as usize, 0],
    );
    match got {
        Ok(0) => "none has ended".into(),
        Ok(_) => ended(status),
        Err(errno) => errno.to_string(),
    }
}

/// Descriptors of threads.
fn threads() {
    let go = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let theirs = go.clone();
    let thread = std::thread::spawn(move || {
        while !theirs.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    let mut tid = 0;
    until(|| {
        let tasks = std::fs::read_dir("/proc/self/task").expect("it is there");
        tid = tasks
            .filter_map(|task| task.ok()?.file_name().into_string().ok()?.parse().ok())
            .max()
            .unwrap_or(0);
        tid != own()
    });
    show("thread: pidfd_open", ok(open(tid, 0)));
    let fd = open(tid, THREAD);
    show("thread: pidfd_open with THREAD", ok(fd));
    let fd = fd.unwrap_or(-1);
    show("thread: poll", poll(fd));
    show("thread: send nothing", ok(send(fd, 0, 0, 0)));
    show("thread: send to the group", ok(send(fd, 0, 0, 2)));
    show("thread: getfd", ok(take(fd, 1, 0)));
    show(
        "thread: waitid",
        waitid(P_PIDFD, fd as usize, libc::WEXITED | libc::WNOHANG),
    );
    go.store(true, std::sync::atomic::Ordering::Release);
    let _ = thread.join();
    until(|| open(tid, THREAD).is_err());
    show("thread: poll afterwards", poll(fd));
    show("thread: send afterwards", ok(send(fd, 0, 0, 0)));
    show("thread: send to the group afterwards", ok(send(fd, 0, 0, 2)));
    show("thread: getfd afterwards", ok(take(fd, 1, 0)));
    let _ = sys::close(fd);
    // The first thread ends and leaves another: the process has not ended.
    let child = fork(|| {
        std::thread::spawn(|| {
            loop {
                let _ = call(libc::SYS_pause, &[]);
            }
        });
        let _ = call(libc::SYS_exit, &[5]);
        0
    });
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    let whole = open(child.pid, 0).unwrap_or(-1);
    let first = open(child.pid, THREAD).unwrap_or(-1);
    show("first thread gone: poll of the process", poll(whole));
    show("first thread gone: poll of the thread", poll(first));
    show("first thread gone: send to the thread", ok(send(first, 0, 0, 0)));
    show(
        "first thread gone: waitid",
        waitid(P_PIDFD, whole as usize, libc::WEXITED | libc::WNOHANG),
    );
    show("first thread gone: the end", end(&child));
    show("first thread gone: poll of the process then", poll(whole));
    show("first thread gone: poll of the thread then", poll(first));
    let _ = sys::close(whole);
    let _ = sys::close(first);
}

/// A thread that executes a program gets its process's number, and its own means nobody.
fn executing() {
    let pipe = || sys::pipe2(0).expect("a pipe can be made");
    let ((tid_in, tid_out), (go_in, go_out)) = (pipe(), pipe());
    let child = fork(|| {
        let _ = sys::close(go_out);
        std::thread::spawn(move || {
            let tid = call(libc::SYS_gettid, &[]).unwrap_or(0) as u32;
            let _ = sys::write(tid_out, &tid.to_ne_bytes());
            let _ = sys::read(go_in, &mut [0]);
            let _ = call(libc::SYS_dup2, &[go_in as usize, 0]);
            exec("/proc/self/exe", &["guest-tests", "role", "wait"], &[]).map_or(1, |_| 0)
        });
        // Only what the other one does is left to hear of.
        let _ = call(libc::SYS_exit, &[5]);
        0
    });
    let mut tid = [0; 4];
    let _ = sys::read(tid_in, &mut tid);
    until(|| guest_tests::proc::process_state(child.pid) == Some('Z'));
    let fd = open(i32::from_ne_bytes(tid), THREAD);
    show(
        "thread that executes: pidfd_open with THREAD",
        fd.map_or_else(|errno| errno.to_string(), |_| "done".into()),
    );
    let fd = fd.unwrap_or(-1);
    show("thread that executes: poll", poll(fd));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The other one polls by now.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let _ = sys::write(go_out, b"x");
        });
        // Its process goes on: nothing else ends this.
        show(
            "thread that executes: poll until it has",
            answer(sys::poll(fd, libc::POLLIN, -1)),
        );
    });
    let _ = sys::close(go_out);
    show("thread that executes: the program", child.wait());
    for fd in [fd, tid_in, tid_out, go_in] {
        let _ = sys::close(fd);
    }
}

/// A monitor that takes the userfaultfd of the process that it serves.
fn monitors() {
    let shared = Region::common("words");
    let served = Region::anon("served", 2);
    let source = Region::filled("source", 1, 0x42);
    let child = fork(|| {
        let uffd = Uffd::with(0);
        uffd.watch(&served, MISSING);
        poke(shared.start + 1, uffd.fd as u8);
        poke(shared.start, 1);
        let (read, written) = (peek(served.start), poke(served.page(1), 1));
        until(|| guest_tests::touch::bytes(shared.start, 1)[0] == 2);
        show("served: it reads", read);
        show("served: it writes", written);
        show("served: the second page", page(served.page(1)));
        0
    });
    until(|| guest_tests::touch::bytes(shared.start, 1)[0] == 1);
    let number = guest_tests::touch::bytes(shared.start + 1, 1)[0];
    let fd = open(child.pid, 0).expect("a child's can be had");
    let uffd = Uffd {
        fd: take(fd, number.into(), 0).expect("a child's descriptors can be had"),
    };
    show("monitor: the first message", uffd.told());
    show("monitor: fills", uffd.copy(served.start, source.start, PAGE, 0));
    show("monitor: the second message", uffd.told());
    show(
        "monitor: fills again",
        uffd.copy(served.page(1), source.start, PAGE, 0),
    );
    poke(shared.start, 2);
    show("monitor: the child", child.wait());
    show("monitor: poll of its descriptor", poll(fd));
    show(
        "monitor: a fill when it is gone",
        uffd.copy(served.start, source.start, PAGE, 0),
    );
    let _ = sys::close(fd);
}

fn advise(fd: i32, parts: &[[usize; 2]], advice: usize, flags: usize) -> String {
    answer(call(
        libc::SYS_process_madvise,
        &[fd as usize, parts.as_ptr() as usize, parts.len(), advice, flags],
    ))
}

fn advising() {
    let area = Region::filled("area", 4, 1);
    let child = sleeper();
    let theirs = open(child.pid, 0).expect("a child's can be had");
    let me = open(own(), 0).expect("one's own can be had");
    let whole = [[area.start, 4 * PAGE]];
    let two = [[area.start, PAGE], [area.page(2), PAGE]];
    let hole = Region::hole("hole", PAGE);
    for (who, fd) in [
        ("oneself", me),
        ("a child", theirs),
        ("SELF", -10001),
        ("nobody", 99),
    ] {
        for (name, advice) in [
            ("COLD", MADV_COLD),
            ("PAGEOUT", MADV_PAGEOUT),
            ("WILLNEED", libc::MADV_WILLNEED as usize),
            ("DONTNEED", libc::MADV_DONTNEED as usize),
            ("WIPEONFORK", MADV_WIPEONFORK),
            ("99", 99),
        ] {
            show(
                &format!("process_madvise: {who}, {name}"),
                advise(fd, &whole, advice, 0),
            );
        }
    }
    show("process_madvise: what is in the area", peek(area.start));
    area.fill(0, 4, 1);
    show(
        "process_madvise: two parts",
        advise(me, &two, libc::MADV_DONTNEED as usize, 0),
    );
    show(
        "process_madvise: they are empty",
        format!("{} {}", peek(area.start), peek(area.page(1))),
    );
    show("process_madvise: nothing", advise(me, &[], MADV_COLD, 0));
    show("process_madvise: flags", advise(me, &whole, MADV_COLD, 1));
    show(
        "process_madvise: part of length 0",
        advise(me, &[[area.start, 0], [area.start, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: a hole first",
        advise(me, &[[hole.start, PAGE], [area.start, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: a hole second",
        advise(me, &[[area.start, PAGE], [hole.start, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: across a hole",
        advise(me, &[[area.start, 5 * PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: not aligned",
        advise(me, &[[area.start + 1, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: not aligned, second",
        advise(me, &[[area.start, PAGE], [area.start + 1, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: part of a page",
        advise(me, &[[area.start, 100]], MADV_COLD, 0),
    );
    show(
        "process_madvise: a bad list",
        answer(call(
            libc::SYS_process_madvise,
            &[me as usize, 8, 1, MADV_COLD, 0],
        )),
    );
    show(
        "process_madvise: a long list",
        answer(call(
            libc::SYS_process_madvise,
            &[me as usize, 8, 1025, MADV_COLD, 0],
        )),
    );
    show(
        "process_madvise: kernel addresses",
        advise(me, &[[0xffff_8000_0000_0000, PAGE]], MADV_COLD, 0),
    );
    show(
        "process_madvise: across the end",
        advise(me, &[[USER_END - PAGE, 1 << 40]], MADV_COLD, 0),
    );
    let somebody = fork(|| {
        let _ = call(libc::SYS_setresuid, &[1000, 1000, 1000]);
        show(
            "process_madvise: by somebody else",
            advise(theirs, &whole, MADV_COLD, 0),
        );
        show(
            "process_madvise: by somebody else, DONTNEED",
            advise(theirs, &whole, libc::MADV_DONTNEED as usize, 0),
        );
        0
    });
    let _ = somebody.wait();
    let nicely = fork(|| {
        // Everything but SYS_NICE.
        let header = [0x2008_0522u32, 0];
        let mut data = [0u32; 6];
        let _ = call(
            libc::SYS_capget,
            &[header.as_ptr() as usize, data.as_mut_ptr() as usize],
        );
        data[0] &= !(1 << 23);
        show(
            "process_madvise: without SYS_NICE: capset",
            ok(call(
                libc::SYS_capset,
                &[header.as_ptr() as usize, data.as_ptr() as usize],
            )),
        );
        show(
            "process_madvise: without SYS_NICE",
            advise(theirs, &whole, MADV_COLD, 0),
        );
        show(
            "process_madvise: without SYS_NICE, DONTNEED",
            advise(theirs, &whole, libc::MADV_DONTNEED as usize, 0),
        );
        0
    });
    let _ = nicely.wait();
    let _ = end(&child);
    show(
        "process_madvise: one that is gone",
        advise(theirs, &whole, MADV_COLD, 0),
    );
    let _ = sys::close(theirs);
    let _ = sys::close(me);
}
