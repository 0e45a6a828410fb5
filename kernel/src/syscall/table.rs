//! Every system call that there is.

use super::{Call, Result, file, memory, process, uffd};

/// A system call.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What does it.
    pub call: fn(&mut Call<'_>) -> Result,
    /// Whether the kernel notes down something that stays, in memory that is its own.
    pub leaves_notes: bool,
}

/// Calls after which the kernel knows more than before: files, areas, threads, waits.
const LEAVE_NOTES: [u16; 52] = [
    2, 9, 10, 22, 25, 28, 32, 33, 41, 53, 56, 57, 58, 59, 72, 83, 85, 86, 88, 133, 149, 150, 151, 213, 222,
    233, 253, 257, 258, 259, 265, 266, 282, 283, 284, 285, 289, 290, 291, 292, 293, 319, 322, 323, 325, 329,
    425, 434, 435, 437, 440, 447,
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

macro_rules! calls {
    ($($number:literal $call:path;)*) => {
        static TABLE: [Option<Entry>; COUNT] = {
            let mut table = [None; COUNT];
            $(
                assert!(table[$number].is_none(), "a number is given twice");
                table[$number] = Some(Entry { call: $call, leaves_notes: leaves_notes($number) });
            )*
            table
        };
    };
}

calls! {
    0 file::transfer::read;
    1 file::transfer::write;
    2 file::open::open;
    3 file::open::close;
    4 file::stat::stat;
    5 file::stat::fstat;
    6 file::stat::lstat;
    8 file::transfer::lseek;
    9 memory::mmap;
    10 memory::mprotect;
    11 memory::munmap;
    12 memory::brk;
    16 file::control::ioctl;
    17 file::transfer::pread;
    18 file::transfer::pwrite;
    19 file::transfer::readv;
    20 file::transfer::writev;
    21 file::stat::access;
    22 file::open::pipe;
    28 memory::madvise;
    32 file::open::dup;
    33 file::open::dup2;
    40 file::between::sendfile;
    60 process::exit;
    72 file::control::fcntl;
    73 file::control::flock;
    74 file::size::fsync;
    75 file::size::fsync;
    76 file::size::truncate;
    77 file::size::ftruncate;
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
    133 file::names::mknod;
    137 file::stat::statfs;
    138 file::stat::fstatfs;
    158 process::arch_prctl;
    161 file::names::chroot;
    162 file::size::sync;
    187 file::transfer::readahead;
    217 file::names::getdents64;
    218 process::set_tid_address;
    221 file::transfer::advise;
    231 process::exit_group;
    323 uffd::userfaultfd;
    257 file::open::openat;
    258 file::names::mkdirat;
    259 file::names::mknodat;
    260 file::attributes::fchownat;
    262 file::stat::newfstatat;
    263 file::names::unlinkat;
    264 file::names::renameat;
    265 file::names::linkat;
    266 file::names::symlinkat;
    267 file::stat::readlinkat;
    268 file::attributes::fchmodat;
    269 file::stat::faccessat;
    280 file::attributes::utimensat;
    284 file::special::eventfd;
    285 file::size::fallocate;
    290 file::special::eventfd2;
    292 file::open::dup3;
    293 file::open::pipe2;
    295 file::transfer::preadv;
    296 file::transfer::pwritev;
    306 file::size::syncfs;
    316 file::names::renameat2;
    319 file::special::memfd_create;
    326 file::between::copy_file_range;
    327 file::transfer::preadv2;
    328 file::transfer::pwritev2;
    332 file::stat::statx;
    436 file::open::close_range;
    437 file::open::openat2;
    439 file::stat::faccessat2;
    452 file::attributes::fchmodat2;
}

/// The call with this number.
#[inline]
pub fn find(number: u64) -> Option<&'static Entry> {
    TABLE.get(usize::try_from(number).ok()?)?.as_ref()
}
