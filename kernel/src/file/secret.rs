//! `memfd_secret`: a file whose contents are reached by mapping it, and in no other way.

use alloc::sync::Arc;
use core::fmt;

use super::{File, Mapped, Mapping, Seeking};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFREG, Stat};
use crate::mm::cache::{Object, TruncateError};
use crate::mm::memtype::secret::SECRET;
use crate::task::{SleepLock, WaitReason};

static SIZING: WaitReason = WaitReason::uninterruptible("the size of secret memory");

/// A file of secret memory.
pub struct SecretFile {
    object: Arc<Object>,
    /// Held by whoever gives it its size, which is done once.
    sizing: SleepLock,
}

impl SecretFile {
    /// One without a size.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            object: Object::new(&SECRET, 0),
            sizing: SleepLock::new(&SIZING),
        })
    }
}

impl File for SecretFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("/secretmem (deleted)")
    }

    fn stat(&self) -> Stat {
        Stat {
            ino: 1,
            mode: S_IFREG | 0o600,
            nlink: 1,
            size: self.object.size(),
            block_size: 4096,
            ..Stat::default()
        }
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        Ok(Mapping {
            memory: Mapped::Object(Arc::clone(&self.object)),
            may_share_to_write: true,
        })
    }

    /// A size that is not 0 stays.
    fn truncate(&self, size: u64) -> Result<(), Errno> {
        let _sizing = self.sizing.lock_unless_killed().ok_or(Errno::EINTR)?;
        if self.object.size() != 0 {
            return Err(Errno::EINVAL);
        }
        self.object.truncate(size).map_err(|error| match error {
            TruncateError::TooLarge => Errno::EFBIG,
            TruncateError::FixedSize | TruncateError::Unaligned => Errno::EINVAL,
        })
    }

    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn sync(&self) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}
