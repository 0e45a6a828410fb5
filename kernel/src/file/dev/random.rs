//! `/dev/random` and `/dev/urandom`.

use core::fmt;

use crate::abi::errno::Errno;
use crate::file::random;
use crate::file::{File, Io, Notifier, OpenFile, OpenFlags, PIECE, Readiness, Seeking, Sink, Source};
use crate::sync::Once;
use crate::syscall::{Error, user};
use crate::task::WaitReason;

/// `RNDGETENTCNT`.
const RNDGETENTCNT: u32 = 0x8004_5200;

/// Random bytes without an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RandomFile {
    /// `/dev/random`, which can be polled: there are always some.
    Random,
    /// `/dev/urandom`, which Linux does not let wait.
    Urandom,
}

static NEVER: WaitReason = WaitReason::new("random bytes");

/// Nobody is ever told anything.
fn nobody() -> &'static Notifier {
    static NOBODY: Once<Notifier> = Once::new();
    NOBODY.call_once(|| Notifier::new(&NEVER))
}

impl File for RandomFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("random bytes")
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

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        match self {
            Self::Random => Readiness::READABLE,
            Self::Urandom => Readiness::ALWAYS,
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        (*self == Self::Random).then(nobody)
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
