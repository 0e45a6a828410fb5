//! Signals (`asm-generic/signal.h`, `asm-generic/siginfo.h`, `asm/ucontext.h`).

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

/// How many signals there are; numbers begin at 1.
pub const SIGNALS: u8 = 64;
/// The first real-time signal: these queue up.
pub const SIGRTMIN: u8 = 32;

macro_rules! signals {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u8 = $number;)*
    };
}

signals! {
    SIGHUP = 1, "The terminal is gone.";
    SIGINT = 2, "Interrupt from the keyboard.";
    SIGQUIT = 3, "Quit from the keyboard.";
    SIGILL = 4, "No such instruction.";
    SIGTRAP = 5, "A breakpoint or a single step.";
    SIGABRT = 6, "The program gives up.";
    SIGBUS = 7, "An address that no memory answers for.";
    SIGFPE = 8, "Arithmetic without result.";
    SIGKILL = 9, "The end, which cannot be caught.";
    SIGUSR1 = 10, "For the program.";
    SIGSEGV = 11, "An address that is not the task's, or not for this access.";
    SIGUSR2 = 12, "For the program.";
    SIGPIPE = 13, "Nobody reads what is written.";
    SIGALRM = 14, "The alarm.";
    SIGTERM = 15, "Please end.";
    SIGSTKFLT = 16, "Not used.";
    SIGCHLD = 17, "A child has changed its state.";
    SIGCONT = 18, "Go on.";
    SIGSTOP = 19, "Stop, which cannot be caught.";
    SIGTSTP = 20, "Stop, from the keyboard.";
    SIGTTIN = 21, "Reading from the terminal in the background.";
    SIGTTOU = 22, "Writing to the terminal in the background.";
    SIGURG = 23, "Urgent data.";
    SIGXCPU = 24, "Too much CPU time.";
    SIGXFSZ = 25, "A file too large.";
    SIGVTALRM = 26, "The alarm of the program's own time.";
    SIGPROF = 27, "The alarm of the profiler.";
    SIGWINCH = 28, "The window has changed.";
    SIGIO = 29, "A file is ready.";
    SIGPWR = 30, "The power fails.";
    SIGSYS = 31, "A system call that is not allowed.";
}

/// The name of a signal; real-time signals have none.
pub fn name(signal: u8) -> &'static str {
    let at = usize::from(signal).wrapping_sub(1);
    NAMES.get(at).copied().unwrap_or("a real-time signal")
}

/// `si_code`: sent by `kill`.
pub const SI_USER: i32 = 0;
/// Sent by the kernel.
pub const SI_KERNEL: i32 = 0x80;
/// Sent by `sigqueue`.
pub const SI_QUEUE: i32 = -1;
/// A timer of `timer_create`.
pub const SI_TIMER: i32 = -2;
/// Sent by `tkill` or `tgkill`.
pub const SI_TKILL: i32 = -6;

/// `si_code` of [`SIGBUS`]: an unaligned access.
pub const BUS_ADRALN: i32 = 1;
/// `si_code` of [`SIGBUS`]: nothing is at the address.
pub const BUS_ADRERR: i32 = 2;
/// `si_code` of [`SIGSEGV`]: nothing is mapped.
pub const SEGV_MAPERR: i32 = 1;
/// `si_code` of [`SIGSEGV`]: the mapping does not allow the access.
pub const SEGV_ACCERR: i32 = 2;
/// `si_code` of [`SIGILL`].
pub const ILL_ILLOPN: i32 = 2;
/// `si_code` of [`SIGFPE`]: integers, division by zero.
pub const FPE_INTDIV: i32 = 1;
/// `si_code` of [`SIGFPE`]: floating point, division by zero.
pub const FPE_FLTDIV: i32 = 3;
/// Floating point, overflow.
pub const FPE_FLTOVF: i32 = 4;
/// Floating point, underflow.
pub const FPE_FLTUND: i32 = 5;
/// Floating point, inexact.
pub const FPE_FLTRES: i32 = 6;
/// Floating point, invalid.
pub const FPE_FLTINV: i32 = 7;
/// `si_code` of [`SIGTRAP`]: a single step.
pub const TRAP_TRACE: i32 = 2;
/// `si_code` of [`SIGCHLD`]: the child has exited.
pub const CLD_EXITED: i32 = 1;
/// It was ended by a signal.
pub const CLD_KILLED: i32 = 2;
/// It was stopped.
pub const CLD_STOPPED: i32 = 5;
/// It goes on.
pub const CLD_CONTINUED: i32 = 6;

/// `sa_handler`: what happens by default.
pub const SIG_DFL: u64 = 0;
/// `sa_handler`: nothing.
pub const SIG_IGN: u64 = 1;

/// `sa_flags`: no [`SIGCHLD`] when children stop.
pub const SA_NOCLDSTOP: u64 = 1;
/// Children leave nothing to wait for.
pub const SA_NOCLDWAIT: u64 = 2;
/// `sa_restorer` is set.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// On the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// System calls are begun again.
pub const SA_RESTART: u64 = 0x1000_0000;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// The handler runs once.
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// Flags that are kept.
pub const SA_KNOWN: u64 = 0xdc00_0807;

/// `ss_flags`: the task runs on it.
pub const SS_ONSTACK: u32 = 1;
/// There is none.
pub const SS_DISABLE: u32 = 2;
/// It is given up while a handler runs on it.
pub const SS_AUTODISARM: u32 = 1 << 31;
/// Least size of an alternate stack.
pub const MINSIGSTKSZ: u64 = 2048;

/// Bytes of the part of `siginfo_t` that is used, and of all of it.
pub const SIGINFO_USED: usize = 48;
/// Bytes of `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

/// `siginfo_t`: three numbers, and four words that mean what the first and the third say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SigInfo {
    /// `si_signo`.
    pub signal: u8,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The union.
    pub words: [u64; 4],
}

impl SigInfo {
    /// From the kernel itself, about nothing in particular.
    pub const fn kernel(signal: u8) -> Self {
        Self {
            signal,
            errno: 0,
            code: SI_KERNEL,
            words: [0; 4],
        }
    }

    /// About an address.
    pub const fn fault(signal: u8, code: i32, addr: u64) -> Self {
        Self {
            signal,
            errno: 0,
            code,
            words: [addr, 0, 0, 0],
        }
    }

    /// From a process.
    pub const fn sent(signal: u8, code: i32, pid: u32, uid: u32) -> Self {
        Self {
            signal,
            errno: 0,
            code,
            words: [pid as u64 | (uid as u64) << 32, 0, 0, 0],
        }
    }

    /// From a timer of `timer_create`: its number, how often it went off unnoticed, and its owner's word.
    pub const fn timer(signal: u8, timer: u32, overrun: u32, value: u64) -> Self {
        Self {
            signal,
            errno: 0,
            code: SI_TIMER,
            words: [timer as u64 | (overrun as u64) << 32, value, 0, 0],
        }
    }

    /// About a child; times in ticks of a hundredth of a second.
    pub const fn child(code: i32, pid: u32, uid: u32, status: i32, user: u64, system: u64) -> Self {
        Self {
            signal: SIGCHLD,
            errno: 0,
            code,
            words: [
                pid as u64 | (uid as u64) << 32,
                status as u32 as u64,
                user,
                system,
            ],
        }
    }

    /// Whether the kernel made it: then no other process can have.
    pub const fn is_from_kernel(&self) -> bool {
        self.code > 0
    }

    /// As it lies in memory.
    pub fn to_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = [0; SIGINFO_SIZE];
        bytes[..4].copy_from_slice(&u32::from(self.signal).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        for (at, word) in self.words.iter().enumerate() {
            bytes[16 + 8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From memory, as a signal with number `signal`. `None`: what lies behind the known part is not 0.
    pub fn from_bytes(signal: u8, bytes: &[u8; SIGINFO_SIZE]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let known = bytes[SIGINFO_USED..].iter().all(|byte| *byte == 0);
        known.then(|| Self {
            signal,
            errno: (word(0) >> 32) as i32,
            code: word(8) as i32,
            words: [word(16), word(24), word(32), word(40)],
        })
    }
}

/// Bytes of `struct sigaction` as the kernel has it.
pub const SIGACTION_SIZE: usize = 32;
/// Bytes of `stack_t`.
pub const STACK_SIZE: usize = 24;
