//! `/dev/random` and `/dev/urandom`.

use core::fmt;

use crate::abi::errno::Errno;
use crate::file::random;
use crate::file::{File, Io, OpenFile, PIECE, Seeking, Sink, Source};
use crate::syscall::{Error, user};

/// `RNDGETENTCNT`.
const RNDGETENTCNT: u32 = 0x8004_5200;

/// Random bytes without an end.
pub struct RandomFile;

impl File for RandomFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("/dev/urandom")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Pretended
    }

    fn read(&self, _io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while to.left() > 0 && ended.is_ok() {
            let len = to.left().min(PIECE);
            random::fill(&mut piece[..len]);
            ended = to.put(&piece[..len]).map_err(Error::from);
        }
        to.outcome(ended)
    }

    /// What is written is taken and does not change what is read: the same run gives the same numbers.
    fn write(&self, _io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while from.left() > 0 && ended.is_ok() {
            ended = from.take(&mut piece).1.map_err(Error::from);
        }
        from.outcome(ended)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        match command {
            RNDGETENTCNT => {
                user::write(argument, &256_u32.to_ne_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
