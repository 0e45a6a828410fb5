//! What is known about files and file systems.

use super::{AT_EACCESS, AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Named, last_of, only};
use crate::abi::errno::Errno;
use crate::abi::stat::{STATX_RESERVED, Stat, StatFs};
use crate::file::access::{MAY_EXECUTE, MAY_READ, MAY_WRITE, User};
use crate::file::tree::{Last, Target};
use crate::syscall::{Call, Error, Result, user};

/// `AT_STATX_FORCE_SYNC` and `AT_STATX_DONT_SYNC`, of which only one may be given.
const SYNC: u64 = 0x6000;

fn give(at: u64, stat: &Stat) -> Result {
    user::write(at, &stat.bytes())?;
    Ok(0)
}

/// `stat`.
pub fn stat(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    give(call.args[1], &entry.inode().stat())
}

/// `lstat`.
pub fn lstat(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Leave)?.existing()?;
    give(call.args[1], &entry.inode().stat())
}

/// `fstat`.
pub fn fstat(call: &mut Call<'_>) -> Result {
    let open = call.any_file(0)?;
    give(call.args[1], &open.stat())
}

fn stat_of(named: &Named) -> Stat {
    match named {
        Named::Entry(entry) => entry.inode().stat(),
        Named::Open(open) => open.stat(),
    }
}

/// `newfstatat`.
pub fn newfstatat(call: &mut Call<'_>) -> Result {
    let flags = call.args[3];
    only(flags, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)?;
    let named = call.named(0, 1, flags, last_of(flags))?;
    give(call.args[2], &stat_of(&named))
}

/// `statx`. Gives everything, whatever was asked for.
pub fn statx(call: &mut Call<'_>) -> Result {
    let [_, _, flags, mask, at, ..] = *call.args;
    if mask as u32 & STATX_RESERVED != 0 || flags & SYNC == SYNC {
        return Err(Errno::EINVAL.into());
    }
    only(
        flags,
        AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | SYNC,
    )?;
    let named = call.named(0, 1, flags, last_of(flags))?;
    user::write(at, &stat_of(&named).statx_bytes(1))?;
    Ok(0)
}

/// `statfs`.
pub fn statfs(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    user::write(call.args[1], &entry.inode().stat_fs().bytes())?;
    Ok(0)
}

/// `fstatfs`.
pub fn fstatfs(call: &mut Call<'_>) -> Result {
    let open = call.any_file(0)?;
    let known = match open.entry() {
        Some(entry) => entry.inode().stat_fs(),
        None => StatFs {
            magic: 0x0904_1934,
            block_size: 4096,
            ..StatFs::default()
        },
    };
    user::write(call.args[1], &known.bytes())?;
    Ok(0)
}

/// `access`.
pub fn access(call: &mut Call<'_>) -> Result {
    let wanted = checked_access(call.args[1])?;
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    User::real().may(&entry.inode().stat(), wanted)?;
    Ok(0)
}

/// `faccessat`.
pub fn faccessat(call: &mut Call<'_>) -> Result {
    access_at(call, 0)
}

/// `faccessat2`.
pub fn faccessat2(call: &mut Call<'_>) -> Result {
    access_at(call, call.args[3])
}

fn access_at(call: &Call<'_>, flags: u64) -> Result {
    let wanted = checked_access(call.args[2])?;
    only(flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let named = call.named(0, 1, flags, last_of(flags))?;
    let user = if flags & AT_EACCESS == 0 {
        User::real()
    } else {
        User::current()
    };
    user.may(&stat_of(&named), wanted)?;
    Ok(0)
}

fn checked_access(mode: u64) -> core::result::Result<u32, Error> {
    let mode = mode as u32;
    if mode & !(MAY_READ | MAY_WRITE | MAY_EXECUTE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(mode)
}

/// `readlink`.
pub fn readlink(call: &mut Call<'_>) -> Result {
    let [_, at, size, ..] = *call.args;
    checked_size(size)?;
    let entry = call.walk(None, 0, Last::Leave)?.existing()?;
    give_target(call, &entry, at, size)
}

/// `readlinkat`. An empty path is the link that a descriptor names.
pub fn readlinkat(call: &mut Call<'_>) -> Result {
    let [_, _, at, size, ..] = *call.args;
    checked_size(size)?;
    let named = call.named(0, 1, AT_EMPTY_PATH, Last::Leave)?;
    let from_descriptor = matches!(named, Named::Open(_));
    let entry = named.entry().map_err(|_| Errno::ENOENT)?;
    if from_descriptor && !entry.inode().is_symlink() {
        return Err(Errno::ENOENT.into());
    }
    give_target(call, &entry, at, size)
}

fn checked_size(size: u64) -> Result {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

fn give_target(
    call: &Call<'_>,
    link: &alloc::sync::Arc<crate::file::tree::Entry>,
    at: u64,
    size: u64,
) -> Result {
    let text = match link.inode().target()? {
        Target::Path(path) => path,
        Target::Entry(entry) => entry.shown(&call.place().root()),
    };
    let len = text.len().min(size as u32 as usize);
    user::write(at, &text[..len])?;
    Ok(len as u64)
}
