//! The machine's standard streams.

use alloc::sync::Arc;
use core::fmt;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFIFO, Stat, StatFs};
use crate::drivers::stdio;
use crate::file::tree::{Entry, Inode};
use crate::file::{File, Io, Notifier, OpenFile, OpenFlags, PIECE, Readiness, Seeking, Sink, Source};
use crate::sync::Once;
use crate::syscall::Error;
use crate::task::WaitReason;

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Input.
    In,
    /// Output.
    Out,
    /// Error output.
    Err,
    /// Input, and output where standard output goes.
    Both,
}

static INPUT: WaitReason = WaitReason::new("standard input");

/// Those who wait for input.
fn readers() -> &'static Notifier {
    static READERS: Once<Notifier> = Once::new();
    READERS.call_once(|| Notifier::new(&INPUT))
}

/// A standard stream. It is no terminal: the host has pipes behind it.
#[derive(Debug)]
pub struct ConsoleFile {
    stream: Stream,
}

impl ConsoleFile {
    /// The stream.
    pub fn new(stream: Stream) -> Self {
        stdio::tell_of_input(|| readers().notify(Readiness::READABLE));
        // Made here, so that the interrupt handler finds it.
        let _ = readers();
        Self { stream }
    }

    fn reads(&self) -> bool {
        matches!(self.stream, Stream::In | Stream::Both)
    }
}

impl File for ConsoleFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "pipe:[{}]", number(self.stream))
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if !self.reads() {
            return Err(Errno::EINVAL.into());
        }
        if to.left() == 0 {
            return Ok(0);
        }
        let mut piece = [0; PIECE];
        let want = to.left().min(PIECE);
        let len = readers().wait_unless(io.nonblocking, || stdio::try_read(&mut piece[..want]))?;
        let ended = to.put(&piece[..len]).map_err(Error::from);
        to.outcome(ended)
    }

    fn write(&self, _io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        let write = match self.stream {
            Stream::Err => stdio::write_err,
            Stream::Out | Stream::Both => stdio::write_out,
            Stream::In => return Err(Errno::EINVAL.into()),
        };
        let mut piece = [0; PIECE];
        let mut ended = Ok(());
        while from.left() > 0 && ended.is_ok() {
            let (len, read) = from.take(&mut piece);
            write(&piece[..len]);
            ended = read.map_err(Error::from);
        }
        from.outcome(ended)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, self.reads() && stdio::is_readable());
        ready.set(Readiness::WRITABLE, self.stream != Stream::In);
        ready
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(readers())
    }

    fn ioctl(&self, _open: &OpenFile, _command: u32, _argument: u64) -> Result<u64, Error> {
        Err(Errno::ENOTTY.into())
    }
}

/// A standard stream as a file of a file system: what the links of `/proc/PID/fd` open.
pub struct StreamInode(Stream);

impl StreamInode {
    /// A stream, opened.
    pub fn open(stream: Stream) -> Arc<OpenFile> {
        let flags = match stream {
            Stream::In => OpenFlags::empty(),
            Stream::Out | Stream::Err => OpenFlags::WRONLY,
            Stream::Both => OpenFlags::RDWR,
        };
        let label = alloc::format!("pipe:[{}]", number(stream));
        let entry = Entry::unnamed(Arc::new(Self(stream)), label.as_bytes());
        OpenFile::named(Arc::new(ConsoleFile::new(stream)), entry, flags)
    }
}

/// The file's number.
fn number(stream: Stream) -> u64 {
    match stream {
        Stream::In => 1,
        Stream::Out => 2,
        Stream::Err => 3,
        Stream::Both => 4,
    }
}

impl Inode for StreamInode {
    fn stat(&self) -> Stat {
        Stat {
            ino: number(self.0),
            mode: S_IFIFO | 0o600,
            nlink: 1,
            block_size: 4096,
            ..Stat::default()
        }
    }

    fn stat_fs(&self) -> StatFs {
        StatFs::default()
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Ok(Arc::new(ConsoleFile::new(self.0)))
    }
}
