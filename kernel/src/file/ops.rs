//! What can be done with an open file. Each kind of file is one implementation; what it does not say, it cannot do.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

use super::buffer::{Sink, Source};
use super::flags::OpenFlags;
use super::open::OpenFile;
use super::readiness::{Notifier, Readiness};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFMT, S_IFREG, Stat};
use crate::mm::cache::Object;
use crate::syscall::Error;

/// One read or write.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// Where it begins; the file moves it behind the last byte. Means nothing to files without positions.
    pub at: u64,
    /// Fail with EAGAIN rather than wait: `O_NONBLOCK` as it stands at the moment, or `RWF_NOWAIT`.
    pub nonblocking: bool,
    /// Write at the end.
    pub append: bool,
}

/// Whether a file has positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seeking {
    /// Every byte has one.
    Positions,
    /// None: `lseek` and `pread` are refused (ESPIPE).
    Never,
    /// None, but `lseek` pretends and stays at 0; `pread` is refused.
    Ignored,
    /// None, but `lseek` pretends and stays at 0; `pread` works like `read`.
    Pretended,
}

/// What `mmap` of a file maps.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The memory.
    pub memory: Mapped,
    /// Whether a shared mapping may ever be written; not if the file is sealed (EPERM).
    pub may_share_to_write: bool,
}

/// The memory behind a file.
#[derive(Clone, Debug)]
pub enum Mapped {
    /// Pages of this object.
    Object(Arc<Object>),
    /// Anonymous memory: `/dev/zero`.
    Anonymous,
}

/// Bits of `fallocate`'s mode.
pub mod allocate {
    /// The size stays.
    pub const KEEP_SIZE: u32 = 1;
    /// A hole is made.
    pub const PUNCH_HOLE: u32 = 2;
}

/// A name in a directory, as `getdents64` gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Number of the file.
    pub ino: u64,
    /// Its kind: the bits of `S_IFMT`.
    pub mode: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// The position behind it.
    pub next: u64,
}

/// Beginnings and ends of data: `SEEK_DATA` and `SEEK_HOLE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The next byte that is not in a hole.
    Data,
    /// The next that is.
    Hole,
}

/// A file runs: as long as somebody has this, it is not opened for writing (ETXTBSY).
pub type Running = Arc<dyn Any + Send + Sync>;

/// An open file.
///
/// `read` and `write` answer with what they moved; an error means that nothing was (see [`Sink::outcome`]).
pub trait File: Any + Send + Sync {
    /// What `/proc/PID/fd` shows for files without a name in the tree, like `anon_inode:[eventfd]` or `pipe:[7]`.
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result;

    /// What `fstat` shows for files without a name in the tree.
    fn stat(&self) -> Stat {
        Stat {
            mode: 0o600,
            nlink: 1,
            block_size: 4096,
            ..Stat::default()
        }
    }

    /// Whether it has positions.
    fn seeking(&self) -> Seeking {
        Seeking::Ignored
    }

    /// Its size, for `SEEK_END`.
    fn end(&self) -> u64 {
        0
    }

    /// Where the next data or hole is from `at` on, which lies before the end.
    ///
    /// # Errors
    /// ENXIO: there is no data any more.
    fn find(&self, at: u64, what: Content) -> Result<u64, Errno> {
        Ok(match what {
            Content::Data => at,
            Content::Hole => self.end(),
        })
    }

    /// Reads.
    ///
    /// # Errors
    /// EINVAL: it cannot be read.
    fn read(&self, _io: &mut Io, _to: &mut Sink<'_>) -> Result<usize, Error> {
        Err(Errno::EINVAL.into())
    }

    /// Writes.
    ///
    /// # Errors
    /// EINVAL: it cannot be written.
    fn write(&self, _io: &mut Io, _from: &mut Source<'_>) -> Result<usize, Error> {
        Err(Errno::EINVAL.into())
    }

    /// What would not wait, through a descriptor with this status.
    fn readiness(&self, _status: OpenFlags) -> Readiness {
        Readiness::ALWAYS
    }

    /// Tells of changes of that; `None` for files whose readiness never changes, which epoll refuses.
    fn notifier(&self) -> Option<&Notifier> {
        None
    }

    /// A device's own command.
    ///
    /// # Errors
    /// ENOTTY: it has no such command.
    fn ioctl(&self, _open: &OpenFile, _command: u32, _argument: u64) -> Result<u64, Error> {
        Err(Errno::ENOTTY.into())
    }

    /// What `mmap` maps.
    ///
    /// # Errors
    /// ENODEV: it cannot be mapped.
    fn mapping(&self) -> Result<Mapping, Errno> {
        Err(Errno::ENODEV)
    }

    /// Changes the size.
    ///
    /// # Errors
    /// EINVAL: it has none.
    fn truncate(&self, _size: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `fallocate`, with bits of [`allocate`].
    ///
    /// # Errors
    /// ENODEV: it is no regular file.
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }

    /// A program is made of it, for as long as the answer lives; `None` for files where that makes no difference.
    ///
    /// # Errors
    /// ETXTBSY: it is open for writing.
    fn run(&self) -> Result<Option<Running>, Errno> {
        Ok(None)
    }

    /// Has what was written on the disk.
    ///
    /// # Errors
    /// EINVAL: that means nothing for it.
    fn sync(&self) -> Result<(), Errno> {
        if self.stat().mode & S_IFMT == S_IFREG {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The names of a directory from position `at` on, handed to `take` until it wants no more.
    ///
    /// # Errors
    /// ENOTDIR: it is none.
    fn entries(&self, _at: u64, _take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// The lines of `/proc/PID/fdinfo` that only files of this kind have.
    fn describe(&self, _f: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}
