//! Making files, giving them further names, moving names and taking them away. The errors come in Linux's order.

use alloc::sync::Arc;

use super::entry::Entry;
use super::inode::{New, Replace};
use super::walk::{Found, Name};
use crate::abi::errno::Errno;
use crate::file::access::{MAY_EXECUTE, MAY_WRITE, User};

/// Whether the caller may add names to a directory.
fn may_add(dir: &Arc<Entry>) -> Result<(), Errno> {
    User::current().may(&dir.inode().stat(), MAY_WRITE | MAY_EXECUTE)
}

/// Whether the caller may take the name of `entry` out of a directory.
fn may_remove(dir: &Arc<Entry>, entry: &Arc<Entry>) -> Result<(), Errno> {
    User::current().may_remove(&dir.inode().stat(), &entry.inode().stat())
}

/// Makes a file where `found` leads, with these permissions.
///
/// # Errors
/// EEXIST, ENOENT, and what the file system says.
pub fn make(found: &Found, new: New<'_>, mode: u32) -> Result<Arc<Entry>, Errno> {
    let Name::Plain(name) = &found.name else {
        return Err(Errno::EEXIST);
    };
    if found.entry.is_some() {
        return Err(Errno::EEXIST);
    }
    if found.slash && new != New::Directory {
        return Err(Errno::ENOENT);
    }
    let _changing = found.dir.change();
    match found.dir.lookup_locked(name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    if found.dir.is_gone() {
        return Err(Errno::ENOENT);
    }
    may_add(&found.dir)?;
    found.dir.directory()?.make(name, new, mode)?;
    found.dir.lookup_locked(name)
}

/// Gives `old` the name where `found` leads.
///
/// # Errors
/// EEXIST, ENOENT, EXDEV; EPERM: `old` is a directory.
pub fn link(old: &Arc<Entry>, found: &Found) -> Result<(), Errno> {
    let Name::Plain(name) = &found.name else {
        return Err(Errno::EEXIST);
    };
    if found.entry.is_some() {
        return Err(Errno::EEXIST);
    }
    if found.slash {
        return Err(Errno::ENOENT);
    }
    if old.inode().stat().dev != found.dir.inode().stat().dev {
        return Err(Errno::EXDEV);
    }
    let _changing = found.dir.change();
    if old.inode().is_directory() {
        return Err(Errno::EPERM);
    }
    if found.dir.is_gone() {
        return Err(Errno::ENOENT);
    }
    may_add(&found.dir)?;
    found.dir.directory()?.link(name, old.inode())
}

/// Takes a name away: of a directory (`rmdir`) or of anything else (`unlink`).
///
/// # Errors
/// ENOENT, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL, EBUSY.
pub fn remove(found: &Found, directory: bool) -> Result<(), Errno> {
    let name = match (&found.name, directory) {
        (Name::Plain(name), _) => name,
        (Name::Dot, true) => return Err(Errno::EINVAL),
        (Name::DotDot, true) => return Err(Errno::ENOTEMPTY),
        (Name::Root, true) => return Err(Errno::EBUSY),
        (_, false) => return Err(Errno::EISDIR),
    };
    let _changing = found.dir.change();
    let entry = found.dir.lookup_locked(name)?;
    may_remove(&found.dir, &entry)?;
    let is_directory = entry.inode().is_directory();
    match (directory, is_directory) {
        (false, true) => return Err(Errno::EISDIR),
        (true, false) => return Err(Errno::ENOTDIR),
        (false, false) if found.slash => return Err(Errno::ENOTDIR),
        _ => {}
    }
    if entry.is_mount() {
        return Err(Errno::EBUSY);
    }
    found.dir.directory()?.remove(name)?;
    entry.forget();
    Ok(())
}

/// Moves the name where `from` leads to where `to` leads.
///
/// # Errors
/// ENOENT, EEXIST, EBUSY, EXDEV, EISDIR, ENOTDIR, ENOTEMPTY; EINVAL: a directory would be below itself.
pub fn rename(from: &Found, to: &Found, how: Replace) -> Result<(), Errno> {
    if from.dir.inode().stat().dev != to.dir.inode().stat().dev {
        return Err(Errno::EXDEV);
    }
    let Name::Plain(old_name) = &from.name else {
        return Err(Errno::EBUSY);
    };
    let Name::Plain(new_name) = &to.name else {
        return Err(if how == Replace::No {
            Errno::EEXIST
        } else {
            Errno::EBUSY
        });
    };
    let _changing = from.dir.change();
    let old = from.dir.lookup_locked(old_name)?;
    let new = match to.dir.lookup_locked(new_name) {
        Ok(new) => Some(new),
        Err(Errno::ENOENT) if how != Replace::Exchange => None,
        Err(error) => return Err(error),
    };
    if how == Replace::No && new.is_some() {
        return Err(Errno::EEXIST);
    }
    may_remove(&from.dir, &old)?;
    match &new {
        Some(new) => may_remove(&to.dir, new)?,
        None => may_add(&to.dir)?,
    }
    let is_directory = old.inode().is_directory();
    if !is_directory && (from.slash || (to.slash && how != Replace::Exchange)) {
        return Err(Errno::ENOTDIR);
    }
    if to.dir.is_within(&old) {
        return Err(Errno::EINVAL);
    }
    if let Some(new) = &new {
        if from.dir.is_within(new) {
            return Err(match how {
                Replace::Exchange => Errno::EINVAL,
                Replace::Yes | Replace::No => Errno::ENOTEMPTY,
            });
        }
        // Two names of the same file: nothing happens.
        if Arc::ptr_eq(old.inode(), new.inode()) {
            return Ok(());
        }
        match (is_directory, new.inode().is_directory()) {
            (true, false) if how != Replace::Exchange => return Err(Errno::ENOTDIR),
            (false, true) if how != Replace::Exchange => return Err(Errno::EISDIR),
            _ => {}
        }
        if new.is_mount() {
            return Err(Errno::EBUSY);
        }
    }
    if old.is_mount() {
        return Err(Errno::EBUSY);
    }
    if to.dir.is_gone() {
        return Err(Errno::ENOENT);
    }
    let directory = from.dir.directory()?;
    directory.rename(old_name, &**to.dir.inode(), new_name, how)?;
    match new {
        Some(new) if how == Replace::Exchange => {
            new.moved(&from.dir, old_name);
            old.moved(&to.dir, new_name);
        }
        Some(new) => {
            new.forget();
            old.moved(&to.dir, new_name);
        }
        None => old.moved(&to.dir, new_name),
    }
    Ok(())
}
