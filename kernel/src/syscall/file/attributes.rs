//! Modes, owners and times of files.

use alloc::sync::Arc;

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, last_of, only};
use crate::abi::errno::Errno;
use crate::abi::stat::Timestamp;
use crate::file::access::User;
use crate::file::clock;
use crate::file::tree::{Change, Entry, Last};
use crate::syscall::{Call, Error, Result, user};

/// Applies a change, if the caller may make it.
fn apply(entry: &Arc<Entry>, change: &Change) -> Result {
    let (user, stat) = (User::current(), entry.inode().stat());
    if change.uid.is_some() || change.gid.is_some() {
        user.may_give(&stat, change.uid, change.gid)?;
    } else {
        user.must_own(&stat)?;
    }
    entry.inode().change(change)?;
    Ok(0)
}

fn mode(word: u64) -> Change {
    Change {
        mode: Some(word as u32 & 0o7777),
        ..Change::default()
    }
}

/// -1 leaves an owner as it is.
fn owners(uid: u64, gid: u64) -> Change {
    let number = |word: u64| Some(word as u32).filter(|number| *number != u32::MAX);
    Change {
        uid: number(uid),
        gid: number(gid),
        ..Change::default()
    }
}

/// `chmod`.
pub fn chmod(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    apply(&entry, &mode(call.args[1]))
}

/// `fchmod`. What has no name keeps what is done to it to itself.
pub fn fchmod(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    match open.entry() {
        Some(entry) => apply(entry, &mode(call.args[1])),
        None => Ok(0),
    }
}

/// `fchmodat`.
pub fn fchmodat(call: &mut Call<'_>) -> Result {
    let entry = call.walk(Some(0), 1, Last::Follow)?.existing()?;
    apply(&entry, &mode(call.args[2]))
}

/// `fchmodat2`.
pub fn fchmodat2(call: &mut Call<'_>) -> Result {
    let flags = call.args[3];
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let entry = call.named(0, 1, flags, last_of(flags))?.entry()?;
    if entry.inode().is_symlink() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    apply(&entry, &mode(call.args[2]))
}

/// `chown`.
pub fn chown(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Follow)?.existing()?;
    apply(&entry, &owners(call.args[1], call.args[2]))
}

/// `lchown`.
pub fn lchown(call: &mut Call<'_>) -> Result {
    let entry = call.walk(None, 0, Last::Leave)?.existing()?;
    apply(&entry, &owners(call.args[1], call.args[2]))
}

/// `fchown`.
pub fn fchown(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    match open.entry() {
        Some(entry) => apply(entry, &owners(call.args[1], call.args[2])),
        None => Ok(0),
    }
}

/// `fchownat`.
pub fn fchownat(call: &mut Call<'_>) -> Result {
    let flags = call.args[4];
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let entry = call.named(0, 1, flags, last_of(flags))?.entry()?;
    apply(&entry, &owners(call.args[2], call.args[3]))
}

/// A `struct timespec` of `utimensat`; `None` leaves the time as it is.
fn time(at: u64) -> core::result::Result<Option<Timestamp>, Error> {
    const NOW: u64 = 0x3fff_ffff;
    const OMIT: u64 = 0x3fff_fffe;
    let (seconds, nanos) = (user::read_u64(at)?, user::read_u64(at.wrapping_add(8))?);
    match nanos {
        NOW => Ok(Some(clock::now())),
        OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(Timestamp {
            seconds: seconds as i64,
            nanos: nanos as u32,
        })),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// A change of the times of last access and change; `None` leaves one as it is.
fn times(accessed: Option<Timestamp>, modified: Option<Timestamp>) -> Change {
    Change {
        accessed,
        modified,
        ..Change::default()
    }
}

/// Now, for both.
fn both_now() -> Change {
    let now = Some(clock::now());
    times(now, now)
}

/// Two of `struct timeval`; none is now.
fn timevals(at: u64) -> core::result::Result<Change, Error> {
    let time = |at: u64| -> core::result::Result<Option<Timestamp>, Error> {
        let (seconds, micros) = (user::read_u64(at)?, user::read_u64(at.wrapping_add(8))?);
        Ok(Some(Timestamp {
            seconds: seconds as i64,
            nanos: match micros {
                0..1_000_000 => micros as u32 * 1000,
                _ => return Err(Errno::EINVAL.into()),
            },
        }))
    };
    match at {
        0 => Ok(both_now()),
        _ => Ok(times(time(at)?, time(at.wrapping_add(16))?)),
    }
}

/// `utime`.
pub fn utime(call: &mut Call<'_>) -> Result {
    let at = call.args[1];
    let change = match at {
        0 => both_now(),
        _ => {
            let [accessed, modified] = [at, at.wrapping_add(8)].map(|at| {
                let seconds = user::read_u64(at)? as i64;
                Ok::<_, Error>(Some(Timestamp { seconds, nanos: 0 }))
            });
            times(accessed?, modified?)
        }
    };
    apply(&call.walk(None, 0, Last::Follow)?.existing()?, &change)
}

/// `utimes`.
pub fn utimes(call: &mut Call<'_>) -> Result {
    let change = timevals(call.args[1])?;
    apply(&call.walk(None, 0, Last::Follow)?.existing()?, &change)
}

/// `futimesat`.
pub fn futimesat(call: &mut Call<'_>) -> Result {
    let change = timevals(call.args[2])?;
    if call.args[1] == 0 && call.args[0] as u32 != AT_FDCWD {
        return apply_to_open(call, &change);
    }
    apply(&call.walk(Some(0), 1, Last::Follow)?.existing()?, &change)
}

/// Applies a change to the file of argument 0. What has no name keeps its times to itself.
fn apply_to_open(call: &Call<'_>, change: &Change) -> Result {
    match call.file(0)?.entry() {
        Some(entry) => apply(entry, change),
        None => Ok(0),
    }
}

/// `utimensat`.
pub fn utimensat(call: &mut Call<'_>) -> Result {
    let [dirfd, path, at, flags, ..] = *call.args;
    let change = match at {
        0 => both_now(),
        _ => times(time(at)?, time(at.wrapping_add(16))?),
    };
    if change.accessed.is_none() && change.modified.is_none() {
        return Ok(0);
    }
    if path == 0 && dirfd as u32 != AT_FDCWD {
        only(flags, 0)?;
        return apply_to_open(call, &change);
    }
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let entry = call.named(0, 1, flags, last_of(flags))?.entry()?;
    apply(&entry, &change)
}
