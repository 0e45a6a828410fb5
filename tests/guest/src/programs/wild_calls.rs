//! Random system calls with random arguments, by the million, in children that may die of them.
//!
//! Nothing but the end is told: which calls are made follows from the seed, what they answer from the kernel's mood. What
//! counts is that the kernel stays, and that the parent does.

#![expect(unsafe_code, reason = "a page of notes is shared with the parent")]

use guest_tests::child::{Child, fork};
use guest_tests::job::until_within;
use guest_tests::region::*;
use guest_tests::signal;
use guest_tests::sys::{self, call};
use guest_tests::transcript::check;

/// Calls in all, calls of one child at most, and children at most.
const CALLS: u64 = 1_000_000;
const ROUNDS: usize = 5_000;
const CHILDREN: u64 = 20_000;

/// Calls that would end the run, or wait for nobody, or harm who started it.
const NOT_THESE: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_pause,
    libc::SYS_reboot,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_rt_sigsuspend,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigreturn,
    libc::SYS_vfork,
    libc::SYS_fork,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    // These may take a machine along that the program only visits.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_ptrace,
    libc::SYS_setpriority,
    libc::SYS_vhangup,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_sync,
    libc::SYS_bpf,
    libc::SYS_quotactl,
    // uretprobe: whoever calls it from elsewhere is ended.
    335,
    libc::SYS_acct,
    // What these make outlives the process.
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// Calls that take away what ends a long sleep; made in every eighth child only.
const SOMETIMES: &[i64] = &[
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_setitimer,
    libc::SYS_alarm,
    libc::SYS_seccomp,
];

pub fn run() {
    // The arena begins at a power of two, which is among the arguments: nothing is to be there.
    Region::hole("nothing", PAGE);
    // A child leaves here how many calls it has made, and which was the last.
    let notes = Region::common("notes");
    let note = |index: usize| {
        let bytes = guest_tests::touch::bytes(notes.start + index * 8, 8);
        u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8]))
    };
    let mut fatal = std::collections::BTreeMap::<u64, usize>::new();
    let mut children = 0;
    while note(0) < CALLS && children < CHILDREN {
        let end = one(children, notes.start);
        children += 1;
        if end != "exit 0" {
            *fatal.entry(note(1)).or_default() += 1;
        }
    }
    // Which children die of what, and when, differs from kernel to kernel. That a million calls are made does not.
    check("wild calls: a million are made", note(0) >= CALLS, true);
    if std::env::var_os("WILD_CALLS_TELL").is_some() {
        eprintln!("{children} children; last calls of those that did not come through: {fatal:?}");
    }
    super::wild_pointers::sane();
}

/// A child that makes calls, and how it ended.
fn one(seed: u64, notes: usize) -> String {
    let child = fork(|| {
        let _ = call(libc::SYS_setsid, &[]);
        // Nothing that it opens, writes or removes is anybody else's: the rights are gone, and so is the way out.
        super::open::become_nobody();
        for fd in 0..64 {
            let _ = sys::close(fd);
        }
        let _ = call(
            libc::SYS_prlimit64,
            &[0, libc::RLIMIT_NPROC as usize, [40u64, 40].as_ptr() as usize, 0],
        );
        let _ = call(
            libc::SYS_prlimit64,
            &[
                0,
                libc::RLIMIT_AS as usize,
                [1u64 << 30, 1 << 30].as_ptr() as usize,
                0,
            ],
        );
        let _ = call(
            libc::SYS_prlimit64,
            &[
                0,
                libc::RLIMIT_FSIZE as usize,
                [1u64 << 20, 1 << 20].as_ptr() as usize,
                0,
            ],
        );
        storm(seed, notes);
        0
    });
    end(&child)
}

/// Waits for the child, which may sleep for good in one of its calls.
fn end(child: &Child) -> String {
    let mut status = 0i32;
    let at = &raw mut status as usize;
    let ended = until_within(std::time::Duration::from_millis(1500), || {
        call(
            libc::SYS_wait4,
            &[child.pid as usize, at, libc::WNOHANG as usize, 0],
        ) != Ok(0)
    });
    if ended {
        return guest_tests::child::ended(status);
    }
    let _ = child.kill(libc::SIGCONT);
    let _ = child.kill(libc::SIGKILL);
    let _ = call(libc::SYS_wait4, &[child.pid as usize, at, 0, 0]);
    "stuck".into()
}

/// A generator that is the same everywhere: xorshift.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn storm(seed: u64, notes: usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let arena = Region::anon("arena", 64);
    arena.fill(0, 8, 0);
    for signal in 1..32 {
        signal::handle(signal, 0, &[], libc::SIG_IGN);
    }
    // A call that sleeps is not to take all the time there is.
    let _ = call(
        libc::SYS_setitimer,
        &[0, [0u64, 20_000, 0, 20_000].as_ptr() as usize, 0],
    );
    signal::catch(libc::SIGALRM, 0, &[]);
    for _ in 0..ROUNDS {
        let number = match random.below(8) {
            0 => random.below(1024) as i64,
            _ => random.below(463) as i64,
        };
        if NOT_THESE.contains(&number) || SOMETIMES.contains(&number) && !seed.is_multiple_of(8) {
            continue;
        }
        let arguments: [usize; 6] = std::array::from_fn(|_| argument(&mut random, &arena));
        note(notes, number as u64);
        let _ = call(number, &arguments);
    }
}

/// One more call, and which it is.
fn note(notes: usize, number: u64) {
    // SAFETY: the page is shared with the parent, which reads it byte by byte after this process has ended. It may have
    // been unmapped by a call: then this process ends as by any other fault.
    unsafe {
        let words = notes as *mut u64;
        words.write_volatile(words.read_volatile() + 1);
        words.add(1).write_volatile(number);
    }
}

/// Something that a call might take for what it wants.
fn argument(random: &mut Random, arena: &Region) -> usize {
    let small = random.below(128);
    match random.below(12) {
        0 => 0,
        1 => small,
        2 => usize::MAX,
        3 => 1 << random.below(64),
        4 => (1 << random.below(64)) - 1,
        5 => 0xffff_8000_0000_0000 + random.below(1 << 40),
        6 => 0x8000_0000_0000 + random.below(1 << 20),
        7 => USER_END - random.below(64),
        8 | 9 => arena.start + random.below(arena.len),
        10 => arena.page(random.below(64)),
        _ => random.next() as usize,
    }
}
