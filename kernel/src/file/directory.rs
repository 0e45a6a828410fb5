//! A directory that is open. Its positions are those of its file system; `.` and `..` come first.

use alloc::sync::Arc;
use core::fmt;

use super::tree::Entry;
use super::{DirEntry, File, Io, Seeking, Sink};
use crate::abi::errno::Errno;
use crate::abi::stat::S_IFDIR;
use crate::syscall::Error;

/// An open directory.
pub struct DirectoryFile {
    entry: Arc<Entry>,
}

impl DirectoryFile {
    /// The directory at `entry`.
    pub fn of(entry: &Arc<Entry>) -> Arc<dyn File> {
        Arc::new(Self {
            entry: Arc::clone(entry),
        })
    }
}

impl File for DirectoryFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("a directory")
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positions
    }

    fn end(&self) -> u64 {
        i64::MAX as u64
    }

    fn read(&self, _io: &mut Io, _to: &mut Sink<'_>) -> Result<usize, Error> {
        Err(Errno::EISDIR.into())
    }

    fn entries(&self, at: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let above = self.entry.parent().unwrap_or_else(|| Arc::clone(&self.entry));
        let dots = [(&b"."[..], &self.entry), (&b".."[..], &above)];
        for (place, (name, entry)) in (0..).zip(dots) {
            let dot = || DirEntry {
                ino: entry.inode().stat().ino,
                mode: S_IFDIR,
                name: name.to_vec(),
                next: place + 1,
            };
            if at <= place && !take(dot()) {
                return Ok(());
            }
        }
        self.entry.directory()?.entries(at.max(2), take)
    }

    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }
}
