//! What the tree is made of: files as a file system knows them, whatever their names.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use super::entry::Entry;
use crate::abi::errno::Errno;
use crate::abi::stat::{DeviceNumber, S_IFDIR, S_IFLNK, S_IFMT, Stat, StatFs, Timestamp};
use crate::file::socket::Rendezvous;
use crate::file::{DirEntry, File, OpenFlags};
use crate::syscall::Error;

/// Where a symbolic link leads.
#[derive(Clone, Debug)]
pub enum Target {
    /// To this path.
    Path(Vec<u8>),
    /// To this very file, whatever its name is: the links of `/proc/PID/fd`.
    Entry(Arc<Entry>),
}

/// What to change of a file; what is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last read.
    pub accessed: Option<Timestamp>,
    /// Time of the last change of contents.
    pub modified: Option<Timestamp>,
}

/// What to make under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum New<'a> {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// The name of a socket.
    Socket,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// What becomes of a file that has the new name of another already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replace {
    /// It is replaced.
    Yes,
    /// The call fails (`RENAME_NOREPLACE`).
    No,
    /// The two exchange their names (`RENAME_EXCHANGE`).
    Exchange,
}

/// A file of a file system.
pub trait Inode: Any + Send + Sync {
    /// What is known about it. The bits of `S_IFMT` never change.
    fn stat(&self) -> Stat;

    /// What is known about its file system.
    fn stat_fs(&self) -> StatFs;

    /// Opens it; permission has been looked at. `entry` is the name by which it was found.
    ///
    /// # Errors
    /// What the kind of file says.
    fn open(&self, entry: &Arc<Entry>, flags: OpenFlags) -> Result<Arc<dyn File>, Error>;

    /// Its names, if it is a directory.
    fn directory(&self) -> Option<&dyn Directory> {
        None
    }

    /// Where the socket is found that is bound to it, if it is the name of one.
    fn rendezvous(&self) -> Option<&Rendezvous> {
        None
    }

    /// Where it leads.
    ///
    /// # Errors
    /// EINVAL: it is no symbolic link.
    fn target(&self) -> Result<Target, Errno> {
        Err(Errno::EINVAL)
    }

    /// Changes what is known about it.
    ///
    /// # Errors
    /// EPERM: not of this file system.
    fn change(&self, _change: &Change) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Changes its size.
    ///
    /// # Errors
    /// EISDIR, EINVAL: it has none.
    fn truncate(&self, _size: u64) -> Result<(), Errno> {
        Err(match self.directory() {
            Some(_) => Errno::EISDIR,
            None => Errno::EINVAL,
        })
    }
}

impl dyn Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.stat().mode & S_IFMT == S_IFDIR
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.stat().mode & S_IFMT == S_IFLNK
    }

    /// As a `T`, if it is one.
    pub fn as_kind<T: Inode>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}

/// The names of a directory. `.` and `..` are none of them. Changes come one after the other ([`super`]).
pub trait Directory {
    /// The file with a name.
    ///
    /// # Errors
    /// ENOENT.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno>;

    /// Whether names come and go by themselves, so that they are looked up each time.
    fn is_volatile(&self) -> bool {
        false
    }

    /// Makes a file, with these permissions.
    ///
    /// # Errors
    /// EEXIST; EACCES, EPERM and ENOENT: nothing can be made here.
    fn make(&self, _name: &[u8], new: New<'_>, _mode: u32) -> Result<Arc<dyn Inode>, Errno> {
        Err(match new {
            _ if self.is_volatile() => Errno::ENOENT,
            New::Regular => Errno::EACCES,
            _ => Errno::EPERM,
        })
    }

    /// Gives `inode`, of the same file system, one more name.
    ///
    /// # Errors
    /// EEXIST, EPERM.
    fn link(&self, _name: &[u8], _inode: &Arc<dyn Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Takes a name away, of a directory or of something else; that has been looked at.
    ///
    /// # Errors
    /// ENOTEMPTY, ENOENT, EPERM.
    fn remove(&self, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Moves a name to `to`, a directory of the same file system. What kinds the two files have has been looked at.
    ///
    /// # Errors
    /// ENOENT, EEXIST, ENOTEMPTY, EPERM.
    fn rename(&self, _name: &[u8], _to: &dyn Inode, _new: &[u8], _how: Replace) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// The names from position `at` on, handed to `take` until it wants no more. Positions below 2 are not used.
    ///
    /// # Errors
    /// ENOMEM.
    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno>;
}
