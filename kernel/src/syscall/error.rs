//! How a system call fails.

use crate::abi::errno::Errno;

/// Why a system call did not do what it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It failed.
    Errno(Errno),
    /// A signal came while it waited, before it had done anything.
    Restart(Restart),
}

/// What becomes of a call that a signal has cut short: it is made again once the signal is dealt with, or answers EINTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Again if no handler ran, or if its action asks for that (Linux: ERESTARTSYS, `SA_RESTART`).
    IfAsked,
    /// Again if no handler ran (ERESTARTNOHAND).
    UnlessHandled,
    /// Again, for the time that is left, if no handler ran (ERESTART_RESTARTBLOCK).
    Block,
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Restart> for Error {
    fn from(restart: Restart) -> Self {
        Self::Restart(restart)
    }
}
