//! Sockets between the programs of this machine (`AF_UNIX`): bytes or messages, with open files in them if wanted.
//!
//! ```text
//!   SocketFile ──► Socket ── sends ──► its peer's line of messages ── reads ──► SocketFile, and the other way round
//!                    ▲
//!                    └── a path's inode, or an abstract name: who connects finds it there
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `endpoint` | [`Socket`]: its line of messages and what state it is in |
//! | `transfer` | sending and receiving |
//! | `passed` | open files on their way in messages |
//! | `name` | what sockets are bound to, and how they are found |
//! | `connect` | listening, connecting, accepting; pairs |
//! | `options` | what `setsockopt` sets |
//!
//! What waits for a socket, to read or to write, is told by its own notifier; who waits for room at another socket is in that
//! one's list of those who want it. The file owns the socket: when it is closed, the socket lets go of its peer, of its
//! messages and of those who wait to be accepted, and so no circle of sockets stays.
//!
//! Locks: those of names, that of `connect`, then one socket's state; of two states, that of the socket that is connected to first.

mod connect;
mod endpoint;
mod name;
mod options;
mod passed;
#[cfg(all(test, not(loom)))]
mod tests;
mod transfer;

use alloc::sync::Arc;
use core::fmt;

pub use endpoint::{Identity, Socket};
pub use name::{Address, NAME_MAX, Rendezvous};
pub use options::{Switch, Timeout};
pub use transfer::{Message, Receive, Received};

use super::tree::{Entry, Inode};
use super::{File, Io, Notifier, OpenFile, OpenFlags, Readiness, Seeking, Sink, Source};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFSOCK, Stat, StatFs};
use crate::syscall::{Error, user};

/// Bytes that one socket may have on their way, unless it asks for others (Linux: `net.core.wmem_default`).
const ROOM: usize = 212_992;
/// What a message counts beside its bytes, about as on Linux: lines of empty ones have an end too.
const OVERHEAD: usize = 768;
/// `FIONREAD`: bytes that can be read.
const FIONREAD: u32 = 0x541b;
/// `SIOCOUTQ`: what was sent and nobody has read.
const SIOCOUTQ: u32 = 0x5411;

/// What sockets carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages.
    Datagram,
    /// Messages, and an end.
    SeqPacket,
}

impl Kind {
    /// Whether two of them make a connection, which one listens for and which ends.
    pub fn connects(self) -> bool {
        self != Self::Datagram
    }
}

/// A socket as an open file.
pub struct SocketFile {
    socket: Arc<Socket>,
}

impl SocketFile {
    /// A socket that is neither bound nor connected.
    pub fn open(kind: Kind, flags: OpenFlags) -> Arc<OpenFile> {
        Self::of(Socket::new(kind), flags)
    }

    /// Two sockets that are connected.
    pub fn pair(kind: Kind, flags: OpenFlags) -> [Arc<OpenFile>; 2] {
        connect::pair(kind).map(|socket| Self::of(socket, flags))
    }

    /// Opens the first connection that waits at this socket.
    ///
    /// # Errors
    /// EOPNOTSUPP; EINVAL: it does not listen, or no more; EAGAIN, a signal.
    pub fn accept(&self, nonblocking: bool, flags: OpenFlags) -> Result<Arc<OpenFile>, Error> {
        Ok(Self::of(self.socket.accept(nonblocking)?, flags))
    }

    /// What it is.
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    fn of(socket: Arc<Socket>, flags: OpenFlags) -> Arc<OpenFile> {
        let number = socket.ino;
        let label = alloc::format!("socket:[{number}]");
        let entry = Entry::unnamed(Arc::new(SocketInode(number)), label.as_bytes());
        let status = (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR;
        OpenFile::named(Arc::new(Self { socket }), entry, status)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.socket.release();
    }
}

impl File for SocketFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "socket:[{}]", self.socket.ino)
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() == 0 {
            return Ok(0);
        }
        let how = Receive {
            nonblocking: io.nonblocking,
            ..Receive::default()
        };
        // Files that nobody asked for are closed.
        self.socket.receive(to, how)?;
        Ok(to.done())
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        self.socket.send(from, Message::default(), io.nonblocking)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        self.socket.readiness()
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.socket.notifier)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        let count = match command {
            FIONREAD => self.socket.readable()?,
            SIOCOUTQ => self.socket.unread(),
            _ => return Err(Errno::ENOTTY.into()),
        };
        user::write_u32(argument, count as u32)?;
        Ok(0)
    }
}

/// A socket as a file of a file system: it can be looked at, and not opened again.
struct SocketInode(u64);

impl Inode for SocketInode {
    fn stat(&self) -> Stat {
        Stat {
            dev: crate::abi::stat::DeviceNumber::new(0, 8),
            ino: self.0,
            mode: S_IFSOCK | 0o777,
            nlink: 1,
            block_size: 4096,
            ..Stat::default()
        }
    }

    fn stat_fs(&self) -> StatFs {
        StatFs {
            magic: 0x534f_434b,
            block_size: 4096,
            ..StatFs::default()
        }
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Err(Errno::ENXIO.into())
    }
}
