//! Every call that takes a pointer, with pointers that are no good.

use guest_tests::child::fork;
use guest_tests::errno::Errno;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{check, ok, show};
use guest_tests::uffd::Uffd;

/// A call: its name, its number, its arguments, and which of them is to be the bad pointer.
type Call = (&'static str, i64, [usize; 6], usize);

/// What stands for a descriptor that the call can use.
const PIPE_OUT: usize = 0xdead_0001;
const PIPE_IN: usize = 0xdead_0002;
const FILE: usize = 0xdead_0003;
const EPOLL: usize = 0xdead_0004;
const TIMER: usize = 0xdead_0005;
const UFFD: usize = 0xdead_0006;
const DIRECTORY: usize = 0xdead_0007;
/// What stands for memory that is good.
const GOOD: usize = 0xdead_0008;

const CWD: usize = libc::AT_FDCWD as usize;

/// The calls, each reading or writing at least eight bytes there.
const CALLS: &[Call] = &[
    ("read", libc::SYS_read, [PIPE_IN, 0, 64, 0, 0, 0], 1),
    ("write", libc::SYS_write, [PIPE_OUT, 0, 64, 0, 0, 0], 1),
    ("pread64", libc::SYS_pread64, [FILE, 0, 64, 0, 0, 0], 1),
    ("pwrite64", libc::SYS_pwrite64, [FILE, 0, 64, 0, 0, 0], 1),
    ("readv", libc::SYS_readv, [FILE, 0, 2, 0, 0, 0], 1),
    ("writev", libc::SYS_writev, [FILE, 0, 2, 0, 0, 0], 1),
    ("open", libc::SYS_open, [0, 0, 0, 0, 0, 0], 0),
    ("openat", libc::SYS_openat, [CWD, 0, 0, 0, 0, 0], 1),
    ("stat", libc::SYS_stat, [GOOD, 0, 0, 0, 0, 0], 1),
    ("fstat", libc::SYS_fstat, [FILE, 0, 0, 0, 0, 0], 1),
    ("lstat path", libc::SYS_lstat, [0, GOOD, 0, 0, 0, 0], 0),
    ("newfstatat", libc::SYS_newfstatat, [CWD, 0, GOOD, 0, 0, 0], 1),
    ("poll", libc::SYS_poll, [0, 2, 0, 0, 0, 0], 0),
    ("ppoll time", libc::SYS_ppoll, [GOOD, 0, 0, 0, 8, 0], 2),
    ("select", libc::SYS_select, [64, 0, 0, 0, 0, 0], 1),
    ("epoll_ctl", libc::SYS_epoll_ctl, [EPOLL, 1, PIPE_IN, 0, 0, 0], 3),
    ("epoll_wait", libc::SYS_epoll_wait, [EPOLL, 0, 4, 0, 0, 0], 1),
    ("access", libc::SYS_access, [0, 0, 0, 0, 0, 0], 0),
    ("pipe", libc::SYS_pipe, [0, 0, 0, 0, 0, 0], 0),
    ("pipe2", libc::SYS_pipe2, [0, 0, 0, 0, 0, 0], 0),
    ("nanosleep", libc::SYS_nanosleep, [0, 0, 0, 0, 0, 0], 0),
    (
        "clock_nanosleep",
        libc::SYS_clock_nanosleep,
        [1, 0, 0, 0, 0, 0],
        2,
    ),
    ("clock_gettime", libc::SYS_clock_gettime, [1, 0, 0, 0, 0, 0], 1),
    ("clock_getres", libc::SYS_clock_getres, [1, 0, 0, 0, 0, 0], 1),
    ("gettimeofday", libc::SYS_gettimeofday, [0, 0, 0, 0, 0, 0], 0),
    ("times", libc::SYS_times, [0, 0, 0, 0, 0, 0], 0),
    ("setitimer", libc::SYS_setitimer, [1, 0, 0, 0, 0, 0], 1),
    ("getitimer", libc::SYS_getitimer, [1, 0, 0, 0, 0, 0], 1),
    (
        "timerfd_settime",
        libc::SYS_timerfd_settime,
        [TIMER, 0, 0, 0, 0, 0],
        2,
    ),
    (
        "timerfd_gettime",
        libc::SYS_timerfd_gettime,
        [TIMER, 0, 0, 0, 0, 0],
        1,
    ),
    ("rt_sigaction", libc::SYS_rt_sigaction, [10, 0, 0, 8, 0, 0], 1),
    ("rt_sigaction old", libc::SYS_rt_sigaction, [10, 0, 0, 8, 0, 0], 2),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, [0, 0, 0, 8, 0, 0], 1),
    ("rt_sigpending", libc::SYS_rt_sigpending, [0, 8, 0, 0, 0, 0], 0),
    (
        "rt_sigtimedwait",
        libc::SYS_rt_sigtimedwait,
        [0, 0, 0, 8, 0, 0],
        0,
    ),
    ("rt_sigsuspend", libc::SYS_rt_sigsuspend, [0, 8, 0, 0, 0, 0], 0),
    ("sigaltstack", libc::SYS_sigaltstack, [0, 0, 0, 0, 0, 0], 0),
    ("uname", libc::SYS_uname, [0, 0, 0, 0, 0, 0], 0),
    ("sysinfo", libc::SYS_sysinfo, [0, 0, 0, 0, 0, 0], 0),
    ("getrlimit", libc::SYS_getrlimit, [7, 0, 0, 0, 0, 0], 1),
    ("prlimit64", libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0], 3),
    ("getrusage", libc::SYS_getrusage, [0, 0, 0, 0, 0, 0], 1),
    ("getcwd", libc::SYS_getcwd, [0, 64, 0, 0, 0, 0], 0),
    ("chdir", libc::SYS_chdir, [0, 0, 0, 0, 0, 0], 0),
    ("readlink", libc::SYS_readlink, [0, GOOD, 64, 0, 0, 0], 0),
    (
        "getdents64",
        libc::SYS_getdents64,
        [DIRECTORY, 0, 1024, 0, 0, 0],
        1,
    ),
    ("unlink", libc::SYS_unlink, [0, 0, 0, 0, 0, 0], 0),
    ("rename", libc::SYS_rename, [GOOD, 0, 0, 0, 0, 0], 1),
    ("mkdir", libc::SYS_mkdir, [0, 0, 0, 0, 0, 0], 0),
    ("execve", libc::SYS_execve, [0, 0, 0, 0, 0, 0], 0),
    ("execve arguments", libc::SYS_execve, [GOOD, 0, 0, 0, 0, 0], 1),
    ("futex", libc::SYS_futex, [0, 0, 1, 0, 0, 0], 0),
    ("futex time", libc::SYS_futex, [GOOD, 0, 0, 0, 0, 0], 3),
    (
        "set_robust_list",
        libc::SYS_get_robust_list,
        [0, 0, GOOD, 0, 0, 0],
        1,
    ),
    (
        "sched_getaffinity",
        libc::SYS_sched_getaffinity,
        [0, 128, 0, 0, 0, 0],
        2,
    ),
    (
        "sched_setaffinity",
        libc::SYS_sched_setaffinity,
        [0, 128, 0, 0, 0, 0],
        2,
    ),
    ("getrandom", libc::SYS_getrandom, [0, 64, 0, 0, 0, 0], 0),
    ("memfd_create", libc::SYS_memfd_create, [0, 0, 0, 0, 0, 0], 0),
    ("mincore", libc::SYS_mincore, [GOOD, 4096, 0, 0, 0, 0], 2),
    ("getcpu", libc::SYS_getcpu, [0, 0, 0, 0, 0, 0], 0),
    ("prctl PR_SET_NAME", libc::SYS_prctl, [15, 0, 0, 0, 0, 0], 1),
    (
        "arch_prctl GET_FS",
        libc::SYS_arch_prctl,
        [0x1003, 0, 0, 0, 0, 0],
        1,
    ),
    (
        "ioctl FIONREAD",
        libc::SYS_ioctl,
        [PIPE_IN, 0x541b, 0, 0, 0, 0],
        2,
    ),
    ("UFFDIO_API", libc::SYS_ioctl, [UFFD, 0xc018_aa3f, 0, 0, 0, 0], 2),
    (
        "UFFDIO_REGISTER",
        libc::SYS_ioctl,
        [UFFD, 0xc020_aa00, 0, 0, 0, 0],
        2,
    ),
    ("UFFDIO_COPY", libc::SYS_ioctl, [UFFD, 0xc028_aa03, 0, 0, 0, 0], 2),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        [1, 0, 2, 0, 2, 0],
        1,
    ),
    ("statx", libc::SYS_statx, [CWD, GOOD, 0, 0xfff, 0, 0], 4),
    ("clone3", libc::SYS_clone3, [0, 88, 0, 0, 0, 0], 0),
    ("wait4", libc::SYS_wait4, [usize::MAX, 0, 1, 0, 0, 0], 1),
    ("statfs", libc::SYS_statfs, [GOOD, 0, 0, 0, 0, 0], 1),
    (
        "sendfile offset",
        libc::SYS_sendfile,
        [PIPE_OUT, FILE, 0, 64, 0, 0],
        2,
    ),
    ("vmsplice", libc::SYS_vmsplice, [PIPE_OUT, 0, 2, 0, 0, 0], 1),
];

pub fn run() {
    let split = Region::anon("split", 2);
    call(libc::SYS_munmap, &[split.page(1), PAGE]).expect("munmap works");
    split.fill(0, 1, b'a');
    let closed = Region::map("closed", PAGE, libc::PROT_NONE, ANON, -1, 0).expect("it can be mapped");
    let pointers = [
        ("null page", 8),
        ("unmapped", Region::hole("hole", PAGE).start),
        ("PROT_NONE", closed.start),
        // Seven bytes are there, what is behind them is not; no string ends and no structure fits in them.
        ("unmapped in the middle", split.page(1) - 7),
        ("across the end of user space", last_bytes()),
        ("just behind user space", USER_END),
        ("first address that is not canonical", 0x8000_0000_0000),
        ("not canonical", 0x1234_5678_9abc_def0),
        ("last address that is not canonical", 0xffff_7fff_ffff_fff8),
        ("kernel's half", 0xffff_8000_0000_0000),
        ("kernel's image", 0xffff_ffff_8000_0000),
        ("the very end", usize::MAX - 6),
    ];
    for (name, number, arguments, bad) in CALLS {
        let answers: Vec<String> = pointers
            .iter()
            .map(|(_, pointer)| trial(*number, arguments, *bad, *pointer))
            .collect();
        // One line where all pointers are refused alike, else a line for each that is not.
        let first = &answers[0];
        if answers.iter().all(|answer| answer == first) {
            show(&format!("bad pointer to {name}"), first);
        } else {
            for ((pointer, _), answer) in pointers.iter().zip(&answers) {
                show(&format!("bad pointer to {name}: {pointer}"), answer);
            }
        }
    }
    sane();
}

/// The last seven bytes of user space, readable and writable, without an end of a string. Where the stack is there, as on
/// a machine that places it at the top, they are the end of what no program reads.
fn last_bytes() -> usize {
    let page = USER_END - PAGE;
    let flags = ANON | libc::MAP_FIXED_NOREPLACE;
    let mapped = mmap(page, PAGE, RW, flags, -1, 0);
    check(
        "the last page of user space can be used",
        mapped == Ok(page) || mapped == Err(Errno(libc::EEXIST)),
        true,
    );
    for at in USER_END - 7..USER_END {
        guest_tests::touch::poke(at, b'a');
    }
    USER_END - 7
}

/// The call in a child, since some calls would change what the next ones see.
fn trial(number: i64, arguments: &[usize; 6], bad: usize, pointer: usize) -> String {
    let child = fork(|| {
        std::env::set_current_dir("/").expect("it is there");
        let good = Region::filled("good", 4, 0);
        let (from, to) = sys::pipe2(libc::O_NONBLOCK).expect("a pipe can be made");
        sys::write(to, b"some bytes for who reads").expect("a pipe takes bytes");
        let file = memfd(1);
        let open = |number: i64, arguments: &[usize]| call(number, arguments).unwrap_or(99);
        let uffd = Uffd::with(0);
        let stands_for = |argument: usize| match argument {
            PIPE_OUT => to as usize,
            PIPE_IN => from as usize,
            FILE => file as usize,
            EPOLL => {
                let epoll = open(libc::SYS_epoll_create1, &[0]);
                let mut event = libc::epoll_event {
                    events: libc::EPOLLOUT as u32,
                    u64: 0,
                };
                let at = &raw mut event as usize;
                let _ = call(libc::SYS_epoll_ctl, &[epoll, 1, to as usize, at]);
                epoll
            }
            TIMER => open(libc::SYS_timerfd_create, &[1, 0]),
            UFFD => uffd.fd as usize,
            DIRECTORY => open(libc::SYS_open, &[c"/".as_ptr() as usize, 0]),
            GOOD => good.start,
            other => other,
        };
        let mut words = arguments.map(stands_for);
        // A path that is good names something; memory that is good holds zeros.
        for (index, argument) in arguments.iter().enumerate() {
            let takes_path = [
                libc::SYS_stat,
                libc::SYS_execve,
                libc::SYS_rename,
                libc::SYS_statx,
                libc::SYS_statfs,
            ];
            if *argument == GOOD && takes_path.contains(&number) && index < 2 {
                words[index] = c"/tmp".as_ptr() as usize;
            }
        }
        words[bad] = pointer;
        let answer = call(number, &words);
        answer.map_or_else(|errno| errno.0, |_| 0)
    });
    let end = child.wait();
    match end
        .strip_prefix("exit ")
        .and_then(|number| number.parse::<i32>().ok())
    {
        Some(0) => "ok".into(),
        Some(number) => Errno(number).to_string(),
        None => end,
    }
}

/// Whether the kernel still does the simplest things right.
pub fn sane() {
    let area = Region::filled("area", 4, 0x11);
    check(
        "afterwards: memory",
        guest_tests::touch::peek(area.page(3)),
        "0x11",
    );
    check("afterwards: a child", fork(|| 3).wait(), "exit 3");
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    check(
        "afterwards: a pipe",
        ok(sys::write(to, b"abc").and(sys::read(from, &mut [0; 3]))),
        "ok",
    );
    let uffd = Uffd::with(0);
    let watched = Region::anon("watched", 1);
    uffd.watch(&watched, guest_tests::uffd::MISSING);
    let reader = guest_tests::attempt::read(watched.start);
    check("afterwards: a fault", uffd.told(), "fault flags 0 at watched");
    uffd.zeropage(watched.start, PAGE, 0);
    check("afterwards: its end", reader.finish(), "0x00");
}
