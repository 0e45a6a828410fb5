//! Every system call that there is.

use super::{
    Call, Result, UserMode, exec, file, futex, identity, info, memory, pidfd, poll, process, scheduling,
    signal, socket, thread, time, timer, uffd,
};

/// A system call that is done by an `F`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<F> {
    /// What does it.
    pub call: F,
    /// Whether the kernel notes down something that stays, in memory that is its own.
    pub leaves_notes: bool,
}

/// Calls after which the kernel knows more than before: files and longer names, areas, threads, groups, waits.
const LEAVE_NOTES: [u16; 61] = [
    2, 9, 10, 22, 25, 28, 32, 33, 41, 42, 43, 49, 53, 56, 57, 58, 59, 72, 82, 83, 85, 86, 88, 116, 133, 149,
    150, 151, 213, 222, 233, 253, 257, 258, 259, 264, 265, 266, 282, 283, 284, 285, 288, 289, 290, 291, 292,
    293, 316, 319, 322, 323, 325, 329, 425, 434, 435, 437, 438, 440, 447,
];

const fn leaves_notes(number: usize) -> bool {
    let mut at = 0;
    while at < LEAVE_NOTES.len() {
        if LEAVE_NOTES[at] as usize == number {
            return true;
        }
        at += 1;
    }
    false
}

/// Numbers in the table: larger ones are not there.
const COUNT: usize = 512;

/// What does a call.
pub type Plain = fn(&mut Call<'_>) -> Result;
/// What does a call that has all of user mode.
pub type WithUserMode = fn(&mut Call<'_>, &mut UserMode<'_>) -> Result;

macro_rules! calls {
    ($table:ident: $function:ty; $($number:literal $call:path;)*) => {
        static $table: [Option<Entry<$function>>; COUNT] = {
            let mut table: [Option<Entry<$function>>; COUNT] = [None; COUNT];
            $(
                assert!(table[$number].is_none(), "a number is given twice");
                table[$number] = Some(Entry { call: $call as $function, leaves_notes: leaves_notes($number) });
            )*
            table
        };
    };
}

calls! {
    PLAIN: Plain;
    0 file::transfer::read;
    1 file::transfer::write;
    2 file::open::open;
    3 file::open::close;
    4 file::stat::stat;
    5 file::stat::fstat;
    6 file::stat::lstat;
    7 poll::poll;
    8 file::transfer::lseek;
    9 memory::mmap;
    10 memory::mprotect;
    11 memory::munmap;
    12 memory::brk;
    13 signal::rt_sigaction;
    14 signal::rt_sigprocmask;
    16 file::control::ioctl;
    17 file::transfer::pread;
    18 file::transfer::pwrite;
    19 file::transfer::readv;
    20 file::transfer::writev;
    21 file::stat::access;
    22 file::open::pipe;
    23 poll::select;
    24 scheduling::sched_yield;
    25 memory::mremap;
    26 memory::msync;
    27 memory::mincore;
    28 memory::madvise;
    29 memory::shmget;
    30 memory::shmat;
    31 memory::shmctl;
    32 file::open::dup;
    33 file::open::dup2;
    34 signal::pause;
    35 time::nanosleep;
    36 timer::getitimer;
    37 timer::alarm;
    38 timer::setitimer;
    39 process::getpid;
    40 file::between::sendfile;
    41 socket::socket;
    42 socket::connect;
    43 socket::accept;
    44 socket::sendto;
    45 socket::recvfrom;
    46 socket::sendmsg;
    47 socket::recvmsg;
    48 socket::shutdown;
    49 socket::bind;
    50 socket::listen;
    51 socket::getsockname;
    52 socket::getpeername;
    53 socket::socketpair;
    54 socket::setsockopt;
    55 socket::getsockopt;
    61 process::wait4;
    62 signal::kill;
    63 info::uname;
    67 memory::shmdt;
    72 file::control::fcntl;
    73 file::locks::flock;
    74 file::size::fsync;
    75 file::size::fsync;
    76 file::size::truncate;
    77 file::size::ftruncate;
    78 file::names::getdents;
    79 file::names::getcwd;
    80 file::names::chdir;
    81 file::names::fchdir;
    82 file::names::rename;
    83 file::names::mkdir;
    84 file::names::rmdir;
    85 file::open::creat;
    86 file::names::link;
    87 file::names::unlink;
    88 file::names::symlink;
    89 file::stat::readlink;
    90 file::attributes::chmod;
    91 file::attributes::fchmod;
    92 file::attributes::chown;
    93 file::attributes::fchown;
    94 file::attributes::lchown;
    95 file::names::umask;
    96 time::gettimeofday;
    97 process::getrlimit;
    98 process::getrusage;
    99 info::sysinfo;
    100 process::times;
    102 identity::getuid;
    104 identity::getgid;
    105 identity::setuid;
    106 identity::setgid;
    107 identity::geteuid;
    108 identity::getegid;
    109 process::setpgid;
    110 process::getppid;
    111 process::getpgrp;
    112 process::setsid;
    113 identity::setreuid;
    114 identity::setregid;
    115 identity::getgroups;
    116 identity::setgroups;
    117 identity::setresuid;
    118 identity::getresuid;
    119 identity::setresgid;
    120 identity::getresgid;
    121 process::getpgid;
    122 identity::setfsuid;
    123 identity::setfsgid;
    124 process::getsid;
    125 identity::capget;
    126 identity::capset;
    127 signal::rt_sigpending;
    128 signal::rt_sigtimedwait;
    129 signal::rt_sigqueueinfo;
    130 signal::rt_sigsuspend;
    132 file::attributes::utime;
    133 file::names::mknod;
    135 thread::personality;
    137 file::stat::statfs;
    138 file::stat::fstatfs;
    140 scheduling::getpriority;
    141 scheduling::setpriority;
    142 scheduling::sched_setparam;
    143 scheduling::sched_getparam;
    144 scheduling::sched_setscheduler;
    145 scheduling::sched_getscheduler;
    146 scheduling::sched_get_priority_max;
    147 scheduling::sched_get_priority_min;
    148 scheduling::sched_rr_get_interval;
    149 memory::mlock;
    150 memory::munlock;
    151 memory::mlockall;
    152 memory::munlockall;
    157 thread::prctl;
    159 time::adjtimex;
    160 process::setrlimit;
    161 file::names::chroot;
    162 file::size::sync;
    165 file::mount::mount;
    166 file::mount::umount2;
    186 thread::gettid;
    187 file::transfer::readahead;
    188 file::xattr::of_path;
    189 file::xattr::of_link;
    190 file::xattr::of_descriptor;
    191 file::xattr::of_path;
    192 file::xattr::of_link;
    193 file::xattr::of_descriptor;
    194 file::xattr::of_path;
    195 file::xattr::of_link;
    196 file::xattr::of_descriptor;
    197 file::xattr::of_path;
    198 file::xattr::of_link;
    199 file::xattr::of_descriptor;
    200 signal::tkill;
    201 time::time;
    202 futex::futex;
    203 scheduling::sched_setaffinity;
    204 scheduling::sched_getaffinity;
    213 poll::epoll_create;
    216 memory::remap_file_pages;
    217 file::names::getdents64;
    218 thread::set_tid_address;
    219 time::restart_syscall;
    221 file::transfer::advise;
    222 timer::timer_create;
    223 timer::timer_settime;
    224 timer::timer_gettime;
    225 timer::timer_getoverrun;
    226 timer::timer_delete;
    228 time::clock_gettime;
    229 time::clock_getres;
    230 time::clock_nanosleep;
    232 poll::epoll_wait;
    233 poll::epoll_ctl;
    234 signal::tgkill;
    235 file::attributes::utimes;
    237 memory::mbind;
    238 memory::set_mempolicy;
    239 memory::get_mempolicy;
    247 process::waitid;
    257 file::open::openat;
    258 file::names::mkdirat;
    259 file::names::mknodat;
    260 file::attributes::fchownat;
    261 file::attributes::futimesat;
    262 file::stat::newfstatat;
    263 file::names::unlinkat;
    264 file::names::renameat;
    265 file::names::linkat;
    266 file::names::symlinkat;
    267 file::stat::readlinkat;
    268 file::attributes::fchmodat;
    269 file::stat::faccessat;
    270 poll::pselect6;
    271 poll::ppoll;
    273 thread::set_robust_list;
    274 thread::get_robust_list;
    275 file::between::splice;
    276 file::between::tee;
    278 file::between::vmsplice;
    280 file::attributes::utimensat;
    281 poll::epoll_pwait;
    282 file::special::signalfd;
    283 file::special::timerfd_create;
    284 file::special::eventfd;
    285 file::size::fallocate;
    286 file::special::timerfd_settime;
    287 file::special::timerfd_gettime;
    288 socket::accept4;
    289 file::special::signalfd4;
    290 file::special::eventfd2;
    291 poll::epoll_create1;
    292 file::open::dup3;
    293 file::open::pipe2;
    295 file::transfer::preadv;
    296 file::transfer::pwritev;
    297 signal::rt_tgsigqueueinfo;
    302 process::prlimit64;
    305 time::clock_adjtime;
    306 file::size::syncfs;
    309 scheduling::getcpu;
    310 memory::process_vm_readv;
    311 memory::process_vm_writev;
    316 file::names::renameat2;
    318 info::getrandom;
    319 file::special::memfd_create;
    323 uffd::userfaultfd;
    324 info::membarrier;
    325 memory::mlock2;
    326 file::between::copy_file_range;
    327 file::transfer::preadv2;
    328 file::transfer::pwritev2;
    329 memory::pkey_mprotect;
    330 memory::pkey_alloc;
    331 memory::pkey_free;
    332 file::stat::statx;
    334 thread::rseq;
    424 pidfd::pidfd_send_signal;
    434 pidfd::pidfd_open;
    436 file::open::close_range;
    437 file::open::openat2;
    438 pidfd::pidfd_getfd;
    439 file::stat::faccessat2;
    440 memory::process_madvise;
    441 poll::epoll_pwait2;
    447 file::special::memfd_secret;
    452 file::attributes::fchmodat2;
}

calls! {
    WITH_USER_MODE: WithUserMode;
    15 signal::rt_sigreturn;
    56 process::clone;
    57 process::fork;
    58 process::vfork;
    59 exec::execve;
    60 process::exit;
    131 signal::sigaltstack;
    158 thread::arch_prctl;
    231 process::exit_group;
    322 exec::execveat;
    435 process::clone3;
}

/// The call with this number, if it needs no more than its arguments.
#[inline]
pub fn find(number: u64) -> Option<&'static Entry<Plain>> {
    PLAIN.get(usize::try_from(number).ok()?)?.as_ref()
}

/// The call with this number, if it has all of user mode.
pub fn find_with_user_mode(number: u64) -> Option<&'static Entry<WithUserMode>> {
    WITH_USER_MODE.get(usize::try_from(number).ok()?)?.as_ref()
}
