//! What one program may make of the kernel: chains of polls, polls of very many files, timers without a pause, threads that
//! are ended before they have begun.
#![expect(unsafe_code, reason = "a thread of which libc knows nothing")]

use guest_tests::child::fork;
use guest_tests::region::*;
use guest_tests::sys::{self, call};
use guest_tests::touch::peek;
use guest_tests::transcript::{check, show};
use guest_tests::uffd::*;

pub fn run() {
    chain("from above", |pairs| pairs.to_vec());
    chain("from below", |pairs| pairs.iter().rev().copied().collect());
    rows();
    many_files();
    restless_timer();
    ended_at_birth();
}

fn epoll() -> i32 {
    call(libc::SYS_epoll_create1, &[0]).expect("an epoll can be made") as i32
}

/// Has `epoll` watch `fd` for something to read.
fn watch(epoll: i32, fd: i32) -> sys::Answer {
    let event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    let operation = libc::EPOLL_CTL_ADD as usize;
    call(
        libc::SYS_epoll_ctl,
        &[epoll as usize, operation, fd as usize, &raw const event as usize],
    )
}

/// Two epolls: the one that watches, and the one that is watched.
type Pair = (i32, i32);

/// Epolls that watch each other, one below the other, made in some order.
fn chain(name: &str, order: fn(&[Pair]) -> Vec<Pair>) {
    let epolls: Vec<i32> = (0..40).map(|_| epoll()).collect();
    let pairs: Vec<Pair> = epolls.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let answers: Vec<sys::Answer> = order(&pairs)
        .into_iter()
        .map(|(upper, lower)| watch(upper, lower))
        .collect();
    let added = answers.iter().filter(|answer| answer.is_ok()).count();
    check(&format!("epolls {name}: watched"), added, "32");
    show(
        &format!("epolls {name}: the fifth"),
        answers[4].map_or_else(|errno| errno.to_string(), |_| "watched".into()),
    );
    // What a file tells goes up all of them.
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    for fd in &epolls {
        watch(*fd, from).expect("a pipe can be watched");
    }
    sys::write(to, b"x").expect("it has room");
    let ready = sys::poll(epolls[0], libc::POLLIN, 0).expect("it can be polled");
    check(&format!("epolls {name}: the first is ready"), ready, "1");
    for fd in epolls.into_iter().chain([from, to]) {
        let _ = sys::close(fd);
    }
}

/// Rows of epolls, each of which watches all of the row below: the ways up multiply.
fn rows() {
    let rows: Vec<Vec<i32>> = (0..4).map(|_| (0..30).map(|_| epoll()).collect()).collect();
    let mut refused = false;
    for pair in rows.windows(2) {
        for upper in &pair[0] {
            for lower in &pair[1] {
                refused |= watch(*upper, *lower).is_err();
            }
        }
    }
    let (from, to) = sys::pipe2(0).expect("a pipe can be made");
    for fd in &rows[3] {
        // Linux looks at the ways here.
        refused |= watch(*fd, from).is_err();
    }
    sys::write(to, b"x").expect("it has room");
    check("rows of epolls: some is refused", refused, "true");
    for fd in rows.into_iter().flatten().chain([from, to]) {
        let _ = sys::close(fd);
    }
}

/// A poll of as many files as there may be, and a descriptor with the highest number. Memory for either may be refused,
/// nothing else.
fn many_files() {
    fn limits(new: usize, old: usize) {
        let done = call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE as usize, new, old]);
        done.expect("anybody may go up to the hard limit");
    }
    fn is_or_refused(answer: sys::Answer, expected: usize) -> bool {
        answer.map_or_else(
            |errno| errno == guest_tests::errno::Errno(libc::ENOMEM),
            |value| value == expected,
        )
    }
    let child = fork(|| {
        let mut limit = [0u64; 2];
        limits(0, limit.as_mut_ptr() as usize);
        let most = limit[1].min(1 << 16) as usize;
        limits([most as u64, limit[1]].as_ptr() as usize, 0);
        let (from, to) = sys::pipe2(0).expect("a pipe can be made");
        let one = libc::pollfd {
            fd: from,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut all = vec![one; most];
        let mut poll = || call(libc::SYS_poll, &[all.as_mut_ptr() as usize, most, 1]);
        let quiet = is_or_refused(poll(), 0);
        sys::write(to, b"x").expect("it has room");
        let told = is_or_refused(poll(), most);
        let placed = is_or_refused(sys::fcntl(from, libc::F_DUPFD, most - 1), most - 1);
        i32::from(quiet) + 2 * i32::from(told) + 4 * i32::from(placed)
    });
    check("polls of very many files", child.wait(), "exit 7");
}

/// A timer that goes off every nanosecond leaves time for others.
fn restless_timer() {
    let mut timer = 0i32;
    let mut event = [0u64; 8];
    // sigev_signo and sigev_notify: SIGWINCH, which is ignored, to the process.
    event[1] = libc::SIGWINCH as u64;
    let made = call(
        libc::SYS_timer_create,
        &[
            libc::CLOCK_MONOTONIC as usize,
            event.as_ptr() as usize,
            &raw mut timer as usize,
        ],
    );
    made.expect("a timer can be made");
    let every = [0u64, 1, 0, 1];
    show(
        "a timer of a nanosecond",
        call(
            libc::SYS_timer_settime,
            &[timer as usize, 0, every.as_ptr() as usize, 0],
        )
        .is_ok(),
    );
    check("beside it: a child can be made", fork(|| 3).wait(), "exit 3");
    std::thread::sleep(std::time::Duration::from_millis(30));
    show(
        "it is deleted",
        call(libc::SYS_timer_delete, &[timer as usize]).is_ok(),
    );
}

/// A thread whose number is to be stored where a monitor would have to be asked, of a process that ends meanwhile.
fn ended_at_birth() {
    let child = fork(|| {
        let uffd = Uffd::with(0);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let stack = Region::anon("stack", 16);
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_CHILD_SETTID;
        // SAFETY: the thread runs nothing but the loop; the maker ends the process.
        unsafe {
            core::arch::asm!(
                "syscall",
                "test eax, eax",
                "jz 2f",
                "mov edi, 7",
                "mov eax, 231", // exit_group
                "syscall",
                "2:",
                "mov eax, 34", // pause
                "syscall",
                "jmp 2b",
                in("rax") libc::SYS_clone,
                in("rdi") flags,
                in("rsi") stack.page(16),
                in("rdx") 0,
                in("r10") area.start,
                in("r8") 0,
                options(noreturn),
            );
        }
    });
    check("a thread that is ended at its birth", child.wait(), "exit 7");
    let area = Region::anon("area", 1);
    check("afterwards: memory can be had", peek(area.start), "0x00");
}
