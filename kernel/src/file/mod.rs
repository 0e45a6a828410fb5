//! Files: what descriptors stand for.
//!
//! ```text
//!   Table: descriptor ──► OpenFile { position, status } ──► dyn File      pipe, eventfd, epoll, memory object, device ...
//!                             │
//!                             └ Entry (a name in the tree) ──► dyn Inode   tmpfs, /dev, /proc, /sys
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `ops` | [`File`]: what can be done with an open file |
//! | `open` | [`OpenFile`]: what descriptors share that are copies of each other |
//! | `access` | who may do what |
//! | `flags` | the flags of `open` |
//! | `buffer` | where reads put bytes, where writes take them from |
//! | `readiness` | poll, select and epoll; waiting for a file |
//! | `table` | descriptors |
//! | `locks` | who keeps whom from a file |
//! | `tree` | names and paths; what file systems implement |
//! | `mounts` | what is mounted where |
//! | `tmpfs` | files in memory |
//! | `pseudo`, `proc`, `sys` | files that are made up when they are read |
//! | `dev` | devices |
//! | `pipe`, `eventfd`, `timerfd`, `signalfd`, `pidfd`, `secret`, `socket`, `epoll`, `directory` | other open files |
//! | `poll` | waiting for several files |
//! | `clock`, `random`, `signals` | what files have to do with the rest |
//!
//! A call on a file may sleep, in the file or at the caller's memory, so **no spin lock is held across one**.

pub mod access;
mod buffer;
pub mod clock;
pub mod dev;
mod directory;
pub mod epoll;
pub mod eventfd;
mod flags;
pub mod locks;
mod mounts;
mod open;
mod ops;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc;
mod pseudo;
pub mod random;
pub mod readiness;
pub mod secret;
pub mod signalfd;
pub(crate) mod signals;
pub mod socket;
mod sys;
pub mod table;
pub mod timerfd;
pub mod tmpfs;
pub mod tree;
pub mod userfault;

pub use buffer::{PIECE, Segment, Sink, Source};
pub use flags::OpenFlags;
pub use mounts::{FsKind, Mounts};
pub use open::{OpenFile, Whence};
pub use ops::{Content, DirEntry, File, Io, Mapped, Mapping, Running, Seeking, allocate};
pub use readiness::{Notifier, Readiness};
pub use table::Table;
pub use tree::Place;

use crate::abi::errno::Errno;
use dev::{Stream, StreamInode};

/// Opens the machine's standard streams as descriptors 0, 1 and 2 of a table that has none.
///
/// # Errors
/// ENOMEM.
pub fn open_standard(table: &Table) -> Result<(), Errno> {
    for stream in [Stream::In, Stream::Out, Stream::Err] {
        table.install(StreamInode::open(stream), false)?;
    }
    Ok(())
}
