//! Calls on files.
//!
//! | file | what |
//! | --- | --- |
//! | `transfer` | read and write in all their forms, lseek |
//! | `between` | from file to file: sendfile, splice, copy_file_range |
//! | `open` | open, close, dup, pipe |
//! | `control` | fcntl, ioctl |
//! | `locks` | flock, and what fcntl does about locks |
//! | `stat` | what is known about a file |
//! | `names` | making, moving and taking away names; directories |
//! | `attributes` | modes, owners, times |
//! | `size` | truncate, fallocate, sync |
//! | `program` | the file of `execve` |
//! | `special` | files that are no files: memfd, eventfd |

pub mod attributes;
pub mod between;
pub mod control;
pub mod locks;
pub mod mount;
pub mod names;
pub mod open;
mod program;
pub mod size;
pub mod special;
pub mod stat;
pub mod transfer;
pub mod xattr;

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Call, Error, user};
use crate::abi::errno::Errno;
use crate::file::tree::{Entry, Found, Last, PATH_MAX};
use crate::file::{OpenFile, Place};

pub(super) use program::named_program;

/// `AT_FDCWD`: from the working directory.
const AT_FDCWD: u32 = -100_i32 as u32;
/// `AT_SYMLINK_NOFOLLOW`.
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
/// `AT_REMOVEDIR`.
const AT_REMOVEDIR: u64 = 0x200;
/// `AT_EACCESS`.
const AT_EACCESS: u64 = 0x200;
/// `AT_SYMLINK_FOLLOW`.
const AT_SYMLINK_FOLLOW: u64 = 0x400;
/// `AT_NO_AUTOMOUNT`: there is nothing to mount by itself.
const AT_NO_AUTOMOUNT: u64 = 0x800;
/// `AT_EMPTY_PATH`.
const AT_EMPTY_PATH: u64 = 0x1000;

impl Call<'_> {
    /// Where it stands in the tree.
    pub(super) fn place(&self) -> Arc<Place> {
        self.thread.process().place()
    }

    /// The open file behind argument number `at`.
    pub(super) fn file(&self, at: usize) -> Result<Arc<OpenFile>, Error> {
        self.file_at_hand(at)
    }

    /// The same, compiled into calls that are made often.
    #[inline(always)]
    fn file_at_hand(&self, at: usize) -> Result<Arc<OpenFile>, Error> {
        Ok(self.files.get(self.args[at])?)
    }

    /// The same, if it may be read.
    #[inline(always)]
    fn file_to_read(&self, at: usize) -> Result<Arc<OpenFile>, Error> {
        Ok(self.files.get_to_read(self.args[at])?)
    }

    /// The same, if it may be written.
    #[inline(always)]
    fn file_to_write(&self, at: usize) -> Result<Arc<OpenFile>, Error> {
        Ok(self.files.get_to_write(self.args[at])?)
    }

    /// The same, a name only (`O_PATH`) included.
    fn any_file(&self, at: usize) -> Result<Arc<OpenFile>, Error> {
        Ok(self.files.get_any(self.args[at])?)
    }

    /// The path that argument number `at` points to.
    fn path(&self, at: usize) -> Result<Vec<u8>, Error> {
        user::read_string(self.args[at], PATH_MAX)
    }

    /// Walks the path of argument `path`, from the directory of argument `dirfd` if there is one.
    fn walk(&self, dirfd: Option<usize>, path: usize, last: Last) -> Result<Found, Error> {
        let path = self.path(path)?;
        let start = self.start(dirfd, &path)?;
        Ok(self.place().walk(start.as_ref(), &path, last)?)
    }

    /// Where a path begins: `None` for the working directory, or where that does not matter.
    fn start(&self, dirfd: Option<usize>, path: &[u8]) -> Result<Option<Arc<Entry>>, Error> {
        let Some(dirfd) = dirfd else { return Ok(None) };
        if self.args[dirfd] as u32 == AT_FDCWD || path.first() == Some(&b'/') || path.is_empty() {
            return Ok(None);
        }
        let open = self.any_file(dirfd)?;
        match open.entry() {
            Some(entry) if entry.inode().is_directory() => Ok(Some(Arc::clone(entry))),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    /// The file of a call that takes a directory, a path and `AT_` flags: the path's, or with an empty path and
    /// [`AT_EMPTY_PATH`] the directory's descriptor itself.
    fn named(&self, dirfd: usize, path: usize, flags: u64, last: Last) -> Result<Named, Error> {
        let empty_allowed = flags & AT_EMPTY_PATH != 0;
        let name = if empty_allowed && self.args[path] == 0 {
            Vec::new()
        } else {
            self.path(path)?
        };
        if !name.is_empty() || !empty_allowed {
            let start = self.start(Some(dirfd), &name)?;
            return Ok(Named::Entry(self.place().find(start.as_ref(), &name, last)?));
        }
        if self.args[dirfd] as u32 == AT_FDCWD {
            return Ok(Named::Entry(self.place().cwd()));
        }
        Ok(Named::Open(self.any_file(dirfd)?))
    }
}

/// What a directory and a path lead to.
enum Named {
    /// A file with a name.
    Entry(Arc<Entry>),
    /// A descriptor.
    Open(Arc<OpenFile>),
}

impl Named {
    /// As a name.
    ///
    /// # Errors
    /// EINVAL: the descriptor's file has none.
    fn entry(self) -> Result<Arc<Entry>, Errno> {
        match self {
            Self::Entry(entry) => Ok(entry),
            Self::Open(open) => open.entry().cloned().ok_or(Errno::EINVAL),
        }
    }
}

/// How the last component of a path is treated, by `AT_SYMLINK_NOFOLLOW`.
fn last_of(flags: u64) -> Last {
    if flags & AT_SYMLINK_NOFOLLOW == 0 {
        Last::Follow
    } else {
        Last::Leave
    }
}

/// Refuses bits that mean nothing.
fn only(flags: u64, known: u64) -> Result<(), Errno> {
    // They are ints: the upper half does not count.
    if flags as u32 & !(known as u32) == 0 {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
