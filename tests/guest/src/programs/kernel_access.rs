//! Faults that the kernel takes on behalf of a task (section 4.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use guest_tests::attempt::outcome;
use guest_tests::child::fork;
use guest_tests::job::{self, until};
use guest_tests::proc::state;
use guest_tests::region::*;
use guest_tests::sys::{self, Answer, call};
use guest_tests::touch::peek;
use guest_tests::transcript::{answer, check};
use guest_tests::uffd::*;

const POPULATE_READ: i32 = 22;
const POPULATE_WRITE: i32 = 23;

/// A way for the kernel to touch a page: its name, the call, and what section 4.4 says.
pub struct Access {
    pub name: &'static str,
    /// Touches the page that begins at the address, or a word in it.
    pub touch: fn(usize) -> Answer,
    /// How it waits for the page: an instruction of the kernel's raises the fault, or the page is looked up.
    pub waits: Waits,
    /// Flags of the message for a missing page, and what the call answers once there are zeros.
    pub missing: (u64, &'static str),
    /// What it answers where the kernel may not wait.
    refused: &'static str,
    /// Flags of the message for a protected page, if it writes; what it answers then.
    protected: (Option<u64>, &'static str),
}

/// How the kernel waits for a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A signal wakes it, and it touches the page again.
    Interruptibly,
    /// Only a fatal signal wakes it.
    Killably,
}

impl Waits {
    /// How a thread looks that waits so.
    fn look(self) -> &'static str {
        match self {
            Self::Interruptibly => "blocked",
            Self::Killably => "blocked (D)",
        }
    }
}

pub const ACCESSES: &[Access] = &[
    Access {
        name: "read(2) into the page",
        touch: read_into,
        waits: Waits::Interruptibly,
        missing: (1, "1"),
        refused: "EFAULT",
        protected: (Some(3), "1"),
    },
    Access {
        name: "write(2) from the page",
        touch: write_from,
        waits: Waits::Interruptibly,
        missing: (0, "1"),
        refused: "EFAULT",
        protected: (None, "1"),
    },
    Access {
        name: "MADV_POPULATE_READ",
        touch: |page| madvise(page, PAGE, POPULATE_READ).map(|()| 0),
        waits: Waits::Killably,
        missing: (0, "0"),
        refused: "EFAULT",
        protected: (None, "0"),
    },
    Access {
        name: "MADV_POPULATE_WRITE",
        touch: |page| madvise(page, PAGE, POPULATE_WRITE).map(|()| 0),
        waits: Waits::Killably,
        missing: (1, "0"),
        refused: "EFAULT",
        protected: (Some(3), "0"),
    },
    Access {
        name: "mlock",
        touch: |page| call(libc::SYS_mlock, &[page, PAGE]),
        waits: Waits::Killably,
        missing: (1, "0"),
        refused: "ENOMEM",
        protected: (Some(3), "0"),
    },
    Access {
        name: "process_vm_readv",
        touch: |page| process_vm(libc::SYS_process_vm_readv, std::process::id(), page),
        waits: Waits::Killably,
        missing: (0, "8"),
        refused: "EFAULT",
        protected: (None, "8"),
    },
    Access {
        name: "process_vm_writev",
        touch: |page| process_vm(libc::SYS_process_vm_writev, std::process::id(), page),
        waits: Waits::Killably,
        missing: (1, "8"),
        refused: "EFAULT",
        protected: (Some(3), "8"),
    },
    Access {
        name: "futex wait on a word",
        touch: |page| call(libc::SYS_futex, &[page, libc::FUTEX_WAIT as usize, 12345, 0]),
        waits: Waits::Killably,
        missing: (1, "EAGAIN"),
        refused: "EFAULT",
        protected: (Some(3), "EAGAIN"),
    },
    Access {
        name: "futex wait on a private word",
        touch: |page| {
            let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
            call(libc::SYS_futex, &[page, wait as usize, 12345, 0])
        },
        waits: Waits::Interruptibly,
        missing: (0, "EAGAIN"),
        refused: "EFAULT",
        protected: (None, "EAGAIN"),
    },
    Access {
        name: "process_vm_readv into the page",
        touch: |page| process_vm_with(libc::SYS_process_vm_readv, page),
        waits: Waits::Interruptibly,
        missing: (1, "8"),
        refused: "EFAULT",
        protected: (Some(3), "8"),
    },
    Access {
        name: "process_vm_writev from the page",
        touch: |page| process_vm_with(libc::SYS_process_vm_writev, page),
        waits: Waits::Interruptibly,
        missing: (0, "8"),
        refused: "EFAULT",
        protected: (None, "8"),
    },
    Access {
        name: "COPY from the page",
        touch: copy_from,
        waits: Waits::Interruptibly,
        missing: (0, "4096"),
        refused: "EFAULT",
        protected: (None, "4096"),
    },
    Access {
        name: "vmsplice from the page",
        touch: vmsplice_from,
        waits: Waits::Killably,
        missing: (0, "8"),
        refused: "EFAULT",
        protected: (None, "8"),
    },
    Access {
        name: "gettimeofday storing to the page",
        touch: |page| call(libc::SYS_gettimeofday, &[page, 0]),
        waits: Waits::Interruptibly,
        missing: (1, "0"),
        refused: "EFAULT",
        protected: (Some(3), "0"),
    },
    Access {
        name: "pipe2 storing to the page",
        touch: |page| call(libc::SYS_pipe2, &[page, 0]),
        waits: Waits::Interruptibly,
        missing: (1, "0"),
        refused: "EFAULT",
        protected: (Some(3), "0"),
    },
];

pub fn run() {
    for access in ACCESSES {
        row(access);
    }
    memory_file();
    another_process();
    changed_word();
    ending();
}

fn row(access: &Access) {
    let touch = access.touch;
    let (flags, done) = access.missing;
    let name = |what: &str| format!("4.4 {}: {what}", access.name);
    let uffd = Uffd::with(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let at = area.start;
    let job = job::start(move || answer(touch(at)));
    check(
        &name("missing"),
        outcome(&uffd, &job),
        format!("fault flags {flags} at area"),
    );
    check(&name("missing, it waits"), job.settle(), access.waits.look());
    uffd.zeropage(at, PAGE, 0);
    check(&name("missing, filled"), job.finish(), done);
    check(&name("missing, one message"), uffd.now(), "EAGAIN");

    let uffd = Uffd::user_mode(0);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let at = area.start;
    let job = job::start(move || answer(touch(at)));
    check(
        &name("missing, USER_MODE_ONLY"),
        outcome(&uffd, &job),
        access.refused,
    );

    let uffd = Uffd::with(feature::SIGBUS);
    let area = Region::anon("area", 1);
    uffd.watch(&area, MISSING);
    let at = area.start;
    let job = job::start(move || answer(touch(at)));
    check(
        &name("missing, FEATURE_SIGBUS"),
        outcome(&uffd, &job),
        access.refused,
    );

    let uffd = Uffd::with(0);
    let area = Region::filled("area", 1, 0);
    uffd.watch(&area, WP);
    uffd.writeprotect(area.start, PAGE, PROTECT)
        .expect("it is registered");
    let at = area.start;
    let job = job::start(move || answer(touch(at)));
    let (flags, done) = access.protected;
    match flags {
        Some(flags) => {
            check(
                &name("protected"),
                outcome(&uffd, &job),
                format!("fault flags {flags} at area"),
            );
            uffd.writeprotect(at, PAGE, 0).expect("it is registered");
            check(&name("protected, unprotected"), job.finish(), done);
        }
        None => check(&name("protected"), outcome(&uffd, &job), done),
    }
}

/// read(2) of a byte from a pipe.
fn read_into(page: usize) -> Answer {
    let (from, to) = sys::pipe2(0)?;
    sys::write(to, b"x")?;
    let answer = call(libc::SYS_read, &[from as usize, page, 1]);
    sys::close(from).and(sys::close(to)).and(answer)
}

/// write(2) of a byte to a pipe.
fn write_from(page: usize) -> Answer {
    let (from, to) = sys::pipe2(0)?;
    let answer = call(libc::SYS_write, &[to as usize, page, 1]);
    sys::close(from).and(sys::close(to)).and(answer)
}

/// vmsplice(2) of eight bytes to a pipe.
fn vmsplice_from(page: usize) -> Answer {
    let (from, to) = sys::pipe2(0)?;
    let vector = [page, 8];
    let answer = call(libc::SYS_vmsplice, &[to as usize, vector.as_ptr() as usize, 1, 0]);
    sys::close(from).and(sys::close(to)).and(answer)
}

/// process_vm_readv(2) or its twin, of eight bytes.
fn process_vm(number: i64, pid: u32, page: usize) -> Answer {
    let mut bytes = 0u64;
    let local = [&raw mut bytes as usize, 8];
    let remote = [page, 8];
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    call(number, &[pid as usize, local, 1, remote, 1, 0])
}

/// The same with the page on this side; on the other there are eight bytes.
fn process_vm_with(number: i64, page: usize) -> Answer {
    let bytes = 0u64;
    let local = [page, 8];
    let remote = [&raw const bytes as usize, 8];
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    call(number, &[std::process::id() as usize, local, 1, remote, 1, 0])
}

/// COPY of the page to one that another context watches.
fn copy_from(page: usize) -> Answer {
    let uffd = Uffd::with(0);
    let area = Region::anon("target", 1);
    uffd.watch(&area, MISSING);
    uffd.copy(area.start, page, PAGE, 0).answer.map(|_| PAGE)
}

/// /proc/self/mem does not wait.
fn memory_file() {
    let area = Region::anon("area", 2);
    area.fill(1, 2, 0x11);
    let uffd = Uffd::with(0);
    uffd.watch(&area, MISSING | WP);
    uffd.writeprotect(area.page(1), PAGE, PROTECT)
        .expect("it is registered");
    let fd = sys::open("/proc/self/mem", libc::O_RDONLY).expect("it is there");
    let pread = move |at: usize| {
        let mut byte = 0u8;
        answer(call(
            libc::SYS_pread64,
            &[fd as usize, &raw mut byte as usize, 1, at],
        ))
    };
    let (missing, protected) = (area.start, area.page(1));
    check(
        "4.4 /proc/self/mem: missing",
        outcome(&uffd, &job::start(move || pread(missing))),
        "EIO",
    );
    check(
        "4.4 /proc/self/mem: protected",
        outcome(&uffd, &job::start(move || pread(protected))),
        "1",
    );
    for (name, uffd) in [
        ("USER_MODE_ONLY", Uffd::user_mode(0)),
        ("FEATURE_SIGBUS", Uffd::with(feature::SIGBUS)),
    ] {
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let at = area.start;
        check(
            &format!("4.4 /proc/self/mem: missing, {name}"),
            outcome(&uffd, &job::start(move || pread(at))),
            "EIO",
        );
    }
}

/// Another process that reads this one's memory waits itself.
fn another_process() {
    for (name, number, flags) in [
        ("process_vm_readv", libc::SYS_process_vm_readv, 0),
        ("process_vm_writev", libc::SYS_process_vm_writev, 1),
    ] {
        let uffd = Uffd::with(0);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let parent = std::process::id();
        let child = fork(|| match process_vm(number, parent, area.start) {
            Ok(8) => 8,
            Ok(_) => 1,
            Err(errno) => errno.0 + 100,
        });
        check(
            &format!("4.4 {name} by a child: missing"),
            uffd.told(),
            format!("fault flags {flags} at area"),
        );
        check(
            &format!("4.4 {name} by a child: filled"),
            uffd.zeropage(area.start, PAGE, 0),
            "ok 1p",
        );
        check(&format!("4.4 {name} by a child: its end"), child.wait(), "exit 8");
        check(
            &format!("4.4 {name} by a child: the page"),
            peek(area.start),
            "0x00",
        );
    }
}

/// The word that FUTEX_WAKE_OP changes is not waited for, unless it is shared: then it is looked up before.
fn changed_word() {
    let one = 1usize << 28 | 1 << 12;
    let words = Region::filled("words", 1, 0);
    for (name, flags, missing, protected) in [
        ("private", libc::FUTEX_PRIVATE_FLAG, "EFAULT", "EFAULT"),
        ("shared", 0, "fault flags 1 at area", "fault flags 3 at area"),
    ] {
        let name = |what: &str| format!("4.4 futex WAKE_OP of a {name} word: {what}");
        let operation = (libc::FUTEX_WAKE_OP | flags) as usize;
        let at = words.start;
        let change = move |word: usize| answer(call(libc::SYS_futex, &[at, operation, 0, 0, word, one]));

        let uffd = Uffd::with(0);
        let area = Region::anon("area", 1);
        uffd.watch(&area, MISSING);
        let word = area.start;
        let job = job::start(move || change(word));
        check(&name("missing"), outcome(&uffd, &job), missing);
        uffd.zeropage(word, PAGE, 0);
        check(&name("missing, filled"), job.finish(), changed(missing));

        let uffd = Uffd::with(0);
        let area = Region::filled("area", 1, 0);
        uffd.watch(&area, WP);
        uffd.writeprotect(area.start, PAGE, PROTECT)
            .expect("it is registered");
        let word = area.start;
        let job = job::start(move || change(word));
        check(&name("protected"), outcome(&uffd, &job), protected);
        uffd.writeprotect(word, PAGE, 0).expect("it is registered");
        check(&name("protected, unprotected"), job.finish(), changed(protected));
    }
}

/// What the call answers in the end that has come to `outcome` first.
fn changed(outcome: &'static str) -> &'static str {
    if outcome == "EFAULT" { outcome } else { "0" }
}

/// Nobody is asked for what a thread touches as it ends.
fn ending() {
    let ways = [
        ("robust list", end_with_list as fn(usize) -> bool),
        ("word that is cleared", end_with_word),
    ];
    for (name, way) in ways {
        let child = fork(|| {
            let uffd = Uffd::with(0);
            let area = Region::anon("area", 1);
            uffd.watch(&area, MISSING);
            let ends = way(area.start);
            i32::from(!ends || uffd.read().is_ok())
        });
        check(
            &format!("4.4 the end of a thread: {name}, missing"),
            child.wait(),
            "exit 0",
        );
    }
}

/// Makes the page the head of this thread's list of robust futexes: the thread is about to end.
fn end_with_list(page: usize) -> bool {
    call(libc::SYS_set_robust_list, &[page, 24]).is_ok()
}

/// Ends a thread that has a word in the page cleared then; says whether it ends.
fn end_with_word(page: usize) -> bool {
    let tid = Arc::new(AtomicI32::new(0));
    let theirs = tid.clone();
    std::thread::spawn(move || {
        let tid = call(libc::SYS_set_tid_address, &[page]).unwrap_or_default();
        theirs.store(tid as i32, Ordering::Release);
        let _ = call(libc::SYS_exit, &[0]);
    });
    until(|| {
        let tid = tid.load(Ordering::Acquire);
        tid != 0 && state(tid).is_none()
    })
}
