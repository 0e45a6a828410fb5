//! Making, moving and taking away names; directories.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, only};
use crate::abi::errno::Errno;
use crate::abi::stat::{DeviceNumber, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};
use crate::file::DirEntry;
use crate::file::access::{MAY_EXECUTE, User};
use crate::file::tree::{self, Entry, Last, New, Replace};
use crate::syscall::{Call, Error, Result, user};

/// Bytes of a `linux_dirent` before the name; the kind is the record's last byte, behind the name's end.
const OLD_DIRENT: usize = 18;
/// Bytes of a `linux_dirent64` before the name; the kind is the last of them.
const DIRENT: usize = 19;
/// Most bytes of names that one call gives.
const DIRENTS: usize = 32 << 10;

/// Makes something at the path of argument `path`.
fn make(call: &Call<'_>, dirfd: Option<usize>, path: usize, new: New<'_>, mode: u64) -> Result {
    let path = call.path(path)?;
    let start = call.start(dirfd, &path)?;
    call.place().make(start.as_ref(), &path, new, mode as u32)?;
    Ok(0)
}

/// `mkdir`.
pub fn mkdir(call: &mut Call<'_>) -> Result {
    make(call, None, 0, New::Directory, call.args[1])
}

/// `mkdirat`.
pub fn mkdirat(call: &mut Call<'_>) -> Result {
    make(call, Some(0), 1, New::Directory, call.args[2])
}

/// `mknod`.
pub fn mknod(call: &mut Call<'_>) -> Result {
    let [_, mode, dev, ..] = *call.args;
    make(call, None, 0, kind(mode, dev)?, mode)
}

/// `mknodat`.
pub fn mknodat(call: &mut Call<'_>) -> Result {
    let [_, _, mode, dev, ..] = *call.args;
    make(call, Some(0), 1, kind(mode, dev)?, mode)
}

/// What `mknod` is to make.
fn kind(mode: u64, dev: u64) -> core::result::Result<New<'static>, Errno> {
    let number = DeviceNumber::from_word(u64::from(dev as u32));
    match mode as u32 & S_IFMT {
        0 | S_IFREG => Ok(New::Regular),
        S_IFIFO => Ok(New::Fifo),
        S_IFSOCK => Ok(New::Socket),
        S_IFCHR => Ok(New::CharDevice(number)),
        S_IFBLK => Ok(New::BlockDevice(number)),
        S_IFDIR => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// `symlink`.
pub fn symlink(call: &mut Call<'_>) -> Result {
    let target = target(call)?;
    make(call, None, 1, New::Symlink(&target), 0)
}

/// `symlinkat`.
pub fn symlinkat(call: &mut Call<'_>) -> Result {
    let target = target(call)?;
    make(call, Some(1), 2, New::Symlink(&target), 0)
}

fn target(call: &Call<'_>) -> core::result::Result<Vec<u8>, Error> {
    let target = call.path(0)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    Ok(target)
}

/// `link`.
pub fn link(call: &mut Call<'_>) -> Result {
    let old = call.walk(None, 0, Last::Leave)?.existing()?;
    tree::link(&old, &call.walk(None, 1, Last::Name)?)?;
    Ok(0)
}

/// `linkat`.
pub fn linkat(call: &mut Call<'_>) -> Result {
    let flags = call.args[4];
    only(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    let last = if flags & AT_SYMLINK_FOLLOW == 0 {
        Last::Leave
    } else {
        Last::Follow
    };
    let old = call.named(0, 1, flags, last)?.entry()?;
    tree::link(&old, &call.walk(Some(2), 3, Last::Name)?)?;
    Ok(0)
}

/// `unlink`.
pub fn unlink(call: &mut Call<'_>) -> Result {
    tree::remove(&call.walk(None, 0, Last::Name)?, false)?;
    Ok(0)
}

/// `rmdir`.
pub fn rmdir(call: &mut Call<'_>) -> Result {
    tree::remove(&call.walk(None, 0, Last::Name)?, true)?;
    Ok(0)
}

/// `unlinkat`.
pub fn unlinkat(call: &mut Call<'_>) -> Result {
    let flags = call.args[2];
    only(flags, AT_REMOVEDIR)?;
    tree::remove(&call.walk(Some(0), 1, Last::Name)?, flags & AT_REMOVEDIR != 0)?;
    Ok(0)
}

/// `rename`.
pub fn rename(call: &mut Call<'_>) -> Result {
    let from = call.walk(None, 0, Last::Name)?;
    tree::rename(&from, &call.walk(None, 1, Last::Name)?, Replace::Yes)?;
    Ok(0)
}

/// `renameat`.
pub fn renameat(call: &mut Call<'_>) -> Result {
    rename_at(call, Replace::Yes)
}

/// `renameat2`.
pub fn renameat2(call: &mut Call<'_>) -> Result {
    let how = match call.args[4] as u32 {
        0 => Replace::Yes,
        1 => Replace::No,
        2 => Replace::Exchange,
        _ => return Err(Errno::EINVAL.into()),
    };
    rename_at(call, how)
}

fn rename_at(call: &Call<'_>, how: Replace) -> Result {
    let from = call.walk(Some(0), 1, Last::Name)?;
    tree::rename(&from, &call.walk(Some(2), 3, Last::Name)?, how)?;
    Ok(0)
}

/// `getdents`.
pub fn getdents(call: &mut Call<'_>) -> Result {
    let bytes_without_name = OLD_DIRENT + 2;
    list(call, bytes_without_name, |entry, end, bytes| {
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end - 1, 0);
        bytes.push(record_kind(entry));
    })
}

/// `getdents64`.
pub fn getdents64(call: &mut Call<'_>) -> Result {
    let bytes_without_name = DIRENT + 1;
    list(call, bytes_without_name, |entry, end, bytes| {
        bytes.push(record_kind(entry));
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end, 0);
    })
}

/// The kind of file, as records have it.
fn record_kind(entry: &DirEntry) -> u8 {
    (entry.mode >> 12) as u8
}

/// Gives a record for each name of a directory, as many as have room. `rest` puts into a record what comes behind its length: it
/// gets the name and where the record is to end.
fn list(call: &Call<'_>, bytes_without_name: usize, rest: impl Fn(&DirEntry, usize, &mut Vec<u8>)) -> Result {
    let [_, at, size, ..] = *call.args;
    let open = call.file(0)?;
    let room = (size as u32 as usize).min(DIRENTS);
    let mut bytes = Vec::new();
    let mut too_small = false;
    open.entries(|entry| {
        let len = (bytes_without_name + entry.name.len()).next_multiple_of(8);
        let end = bytes.len() + len;
        if end > room {
            too_small = bytes.is_empty();
            return false;
        }
        bytes.extend_from_slice(&entry.ino.to_ne_bytes());
        bytes.extend_from_slice(&entry.next.to_ne_bytes());
        bytes.extend_from_slice(&(len as u16).to_ne_bytes());
        rest(entry, end, &mut bytes);
        true
    })?;
    if too_small {
        return Err(Errno::EINVAL.into());
    }
    user::write(at, &bytes)?;
    Ok(bytes.len() as u64)
}

/// `getcwd`.
pub fn getcwd(call: &mut Call<'_>) -> Result {
    let [at, size, ..] = *call.args;
    let place = call.place();
    let cwd = place.cwd();
    if cwd.is_gone() {
        return Err(Errno::ENOENT.into());
    }
    let (path, reachable) = cwd.path_from(&place.root());
    let mut text = if reachable {
        path
    } else {
        [&b"(unreachable)"[..], &path].concat()
    };
    text.push(0);
    if text.len() as u64 > size {
        return Err(Errno::ERANGE.into());
    }
    user::write(at, &text)?;
    Ok(text.len() as u64)
}

/// `chdir`.
pub fn chdir(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    enter(call, entry)
}

/// `fchdir`.
pub fn fchdir(call: &mut Call<'_>) -> Result {
    let open = call.any_file(0)?;
    let entry = open.entry().cloned().ok_or(Errno::ENOTDIR)?;
    enter(call, entry)
}

fn enter(call: &Call<'_>, entry: Arc<Entry>) -> Result {
    entry.directory()?;
    User::current().may(&entry.inode().stat(), MAY_EXECUTE)?;
    call.place().set_cwd(entry)?;
    Ok(0)
}

/// `chroot`.
pub fn chroot(call: &mut Call<'_>) -> Result {
    let found = call.walk(None, 0, Last::Follow)?;
    call.place().set_root(found.existing()?)?;
    Ok(0)
}

/// `umask`.
pub fn umask(call: &mut Call<'_>) -> Result {
    Ok(call.place().set_umask(call.args[0] as u32).into())
}
