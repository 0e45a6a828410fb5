//! Sizes of files, and what is written for good.

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFDIR, S_IFIFO, S_IFMT, S_IFREG};
use crate::file::access::{MAY_WRITE, User};
use crate::file::tree::Last;
use crate::syscall::{Call, Error, Result};

fn size(word: u64) -> core::result::Result<u64, Error> {
    if word > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    Ok(word)
}

/// `truncate`.
pub fn truncate(call: &mut Call<'_>) -> Result {
    let size = size(call.args[1])?;
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    User::current().may(&entry.inode().stat(), MAY_WRITE)?;
    entry.inode().truncate(size)?;
    Ok(0)
}

/// `ftruncate`.
pub fn ftruncate(call: &mut Call<'_>) -> Result {
    let size = size(call.args[1])?;
    let open = call.file(0)?;
    if open.stat().mode & S_IFMT != S_IFREG || !open.status().writes() {
        return Err(Errno::EINVAL.into());
    }
    open.file().truncate(size)?;
    Ok(0)
}

/// `fallocate`.
pub fn fallocate(call: &mut Call<'_>) -> Result {
    /// Modes that Linux knows.
    const KNOWN: u64 = 0x7f;
    let [_, mode, offset, len, ..] = *call.args;
    let open = call.file(0)?;
    let (offset, len) = (size(offset)?, size(len)?);
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    if mode as u32 & !(KNOWN as u32) != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    open.must_write()?;
    match open.stat().mode & S_IFMT {
        S_IFREG => {}
        S_IFIFO => return Err(Errno::ESPIPE.into()),
        S_IFDIR => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    if offset + len > i64::MAX as u64 {
        return Err(Errno::EFBIG.into());
    }
    open.file().allocate(mode as u32, offset, len)?;
    Ok(0)
}

/// `fsync`, `fdatasync`, `syncfs`.
pub fn fsync(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    open.file().sync()?;
    Ok(0)
}

/// `syncfs`.
pub fn syncfs(call: &mut Call<'_>) -> Result {
    call.file(0)?;
    Ok(0)
}

/// `sync`: files are in memory.
pub fn sync(_call: &mut Call<'_>) -> Result {
    Ok(0)
}
