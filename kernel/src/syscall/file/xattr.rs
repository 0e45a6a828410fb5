//! Extended attributes: no file system has any, and each call says so after it has found its file (`xattr(7)`).

use crate::abi::errno::Errno;
use crate::file::tree::Last;
use crate::syscall::{Call, Result};

/// `setxattr`, `getxattr`, `listxattr`, `removexattr`.
pub fn of_path(call: &mut Call<'_>) -> Result {
    call.walk(None, 0, Last::Follow)?.existing()?;
    Err(Errno::EOPNOTSUPP.into())
}

/// The same of a link itself.
pub fn of_link(call: &mut Call<'_>) -> Result {
    call.walk(None, 0, Last::Leave)?.existing()?;
    Err(Errno::EOPNOTSUPP.into())
}

/// The same of an open file.
pub fn of_descriptor(call: &mut Call<'_>) -> Result {
    call.file(0)?;
    Err(Errno::EOPNOTSUPP.into())
}
