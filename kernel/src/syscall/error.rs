//! What a system call that does not succeed comes to.

use crate::abi::errno::Errno;

/// Why a call has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It answers with this number.
    Errno(Errno),
    /// A signal cut it short: what it comes to depends on what becomes of the signal.
    Restart(Restart),
}

/// What becomes of a call that a signal cut short. Without a handler for the signal it goes on as if nothing had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Begun again if the handler asks for it (`SA_RESTART`), else EINTR (Linux: `ERESTARTSYS`).
    IfAsked,
    /// EINTR if a handler runs (`ERESTARTNOHAND`).
    UnlessHandled,
    /// Begun again whatever happens (`ERESTARTNOINTR`).
    Always,
    /// EINTR if a handler runs; otherwise goes on with the time that is left (`ERESTART_RESTARTBLOCK`).
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
