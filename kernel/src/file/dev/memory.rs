//! `/dev/null`, `/dev/zero` and `/dev/full`.

use core::fmt;

use crate::abi::errno::Errno;
use crate::file::{File, Io, Mapped, Mapping, Seeking, Sink, Source};
use crate::syscall::Error;

/// A device that has no state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryFile {
    /// Always at its end; takes everything.
    Null,
    /// Zeros; takes everything.
    Zero,
    /// Zeros; takes nothing.
    Full,
}

impl File for MemoryFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "/dev/null",
            Self::Zero => "/dev/zero",
            Self::Full => "/dev/full",
        })
    }

    /// `lseek` answers 0 whatever it is asked for; `pread` works.
    fn seeking(&self) -> Seeking {
        Seeking::Pretended
    }

    fn read(&self, _io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if *self == Self::Null {
            return Ok(0);
        }
        let zeros = [0; 512];
        let mut ended = Ok(());
        while to.left() > 0 && ended.is_ok() {
            ended = to.put(&zeros).map_err(Error::from);
            if crate::file::signals::is_pending() {
                break;
            }
        }
        to.outcome(ended)
    }

    fn write(&self, _io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        match self {
            // The bytes are not even looked at.
            Self::Null | Self::Zero => Ok(from.left()),
            Self::Full => Err(Errno::ENOSPC.into()),
        }
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        match self {
            Self::Zero => Ok(Mapping {
                memory: Mapped::Anonymous,
                may_share_to_write: true,
            }),
            Self::Null | Self::Full => Err(Errno::ENODEV),
        }
    }
}
