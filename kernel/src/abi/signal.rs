//! Signals (`asm-generic/signal.h`, `asm-generic/siginfo.h`).

/// Names of the signals from 1 on; those from 32 on are real-time signals and have none.
pub const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// An address that no memory answers for.
pub const SIGBUS: u8 = 7;
/// The end, which cannot be caught.
pub const SIGKILL: u8 = 9;
/// An address that is not the task's, or not for this access.
pub const SIGSEGV: u8 = 11;

/// `si_code` of [`SIGBUS`]: nothing is at the address.
pub const BUS_ADRERR: i32 = 2;
/// `si_code` of [`SIGSEGV`]: nothing is mapped.
pub const SEGV_MAPERR: i32 = 1;
/// `si_code` of [`SIGSEGV`]: the mapping does not allow the access.
pub const SEGV_ACCERR: i32 = 2;
