//! Descriptors of processes and threads. They can be polled, and name the process to calls; there is nothing to read.

use alloc::sync::Arc;
use core::fmt;

use super::{File, Notifier, OpenFile, OpenFlags, Readiness, Seeking};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFREG, Stat};
use crate::process::handle::{Handle, Life};

/// A descriptor of a process, or of a thread.
pub struct PidFile(Handle);

impl PidFile {
    /// Opens one; of `flags` only [`OpenFlags::NONBLOCK`] counts.
    pub fn open(handle: Handle, flags: OpenFlags) -> Arc<OpenFile> {
        // Linux shows a thread's by this bit, which means nothing else here.
        let kind = match handle.is_of_thread() {
            true => OpenFlags::EXCL,
            false => OpenFlags::empty(),
        };
        let status = OpenFlags::RDWR | (flags & OpenFlags::NONBLOCK);
        OpenFile::new(Arc::new(Self(handle)), status | kind)
    }

    /// Of whom.
    pub fn handle(&self) -> &Handle {
        &self.0
    }
}

impl File for PidFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[pidfd]")
    }

    fn stat(&self) -> Stat {
        Stat {
            ino: self.0.pid().as_u32().into(),
            mode: S_IFREG | 0o700,
            nlink: 1,
            block_size: 4096,
            ..Stat::default()
        }
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        match self.0.life() {
            Life::Living => Readiness::empty(),
            Life::Ended => Readiness::READABLE,
            Life::Gone => Readiness::READABLE | Readiness::HUP,
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(self.0.changes())
    }

    fn truncate(&self, _size: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let number = match self.0.life() {
            Life::Gone => -1,
            Life::Living | Life::Ended => i64::from(self.0.pid().as_u32()),
        };
        write!(f, "Pid:\t{number}\nNSpid:\t{number}\n")
    }
}
