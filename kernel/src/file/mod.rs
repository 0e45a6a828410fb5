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
//! | `flags` | the flags of `open` |
//! | `buffer` | where reads put bytes, where writes take them from |
//! | `readiness` | poll, select and epoll; waiting for a file |
//!
//! A call on a file may sleep, in the file or at the caller's memory, so **no spin lock is held across one**.

mod buffer;
mod flags;
mod open;
mod ops;
pub mod readiness;

pub use buffer::{PIECE, Segment, Sink, Source};
pub use flags::OpenFlags;
pub use open::{OpenFile, Whence};
pub use ops::{Content, DirEntry, File, Io, Mapping, Seeking, allocate};
pub use readiness::{Notifier, Readiness};
