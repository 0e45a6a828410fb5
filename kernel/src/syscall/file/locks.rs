//! `flock`, and `fcntl`'s commands about locks.

use alloc::sync::Arc;

use crate::abi::errno::Errno;
use crate::abi::lock::{F_RDLCK, F_UNLCK, F_WRLCK, Flock};
use crate::file::locks::{self, Kind, Lock, Owner, Range, Sort};
use crate::file::{OpenFile, Table};
use crate::syscall::{Call, Result, user};

/// Who shares a record lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sharing {
    /// Who shares the descriptors (`F_SETLK`).
    Table,
    /// Who shares the open file description (`F_OFD_SETLK`).
    Description,
}

impl Sharing {
    fn owner(self, files: &Table, open: &OpenFile) -> Owner {
        match self {
            Self::Table => files.owner(),
            Self::Description => open.owner(),
        }
    }
}

/// What kind of lock a number of `struct flock` means: `None` for no lock.
fn kind_of(number: u16) -> core::result::Result<Option<Kind>, Errno> {
    Ok(match number {
        F_RDLCK => Some(Kind::Read),
        F_WRLCK => Some(Kind::Write),
        F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    })
}

/// The bytes that are meant, and the kind.
fn meant(open: &OpenFile, lock: &Flock) -> core::result::Result<(Range, Option<Kind>), Errno> {
    let base = match lock.whence {
        0 => 0,
        1 => open.position(),
        2 => open.file().end(),
        _ => return Err(Errno::EINVAL),
    };
    let range = Range::new(base, lock.start, lock.len)?;
    Ok((range, kind_of(lock.kind)?))
}

/// A lock that the calling process wants.
fn wanted(call: &Call<'_>, open: &OpenFile, owner: Owner, kind: Kind, range: Range) -> Lock {
    Lock {
        owner,
        description: locks::description(open),
        pid: call.thread.process().pid().as_u32(),
        kind,
        range,
    }
}

/// `F_GETLK` and `F_OFD_GETLK`: who is in the way. The latter may ask for no lock, and is told of the description's own.
pub(super) fn show(call: &Call<'_>, open: &OpenFile, sharing: Sharing, at: u64) -> Result {
    let mut bytes = user::read_array::<{ Flock::SIZE }>(at)?;
    let mut flock = Flock::from_bytes(&bytes);
    if sharing == Sharing::Table && kind_of(flock.kind)?.is_none() {
        return Err(Errno::EINVAL.into());
    }
    let (range, kind) = meant(open, &flock)?;
    if sharing == Sharing::Description && flock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let owner = sharing.owner(call.files, open);
    let found = match kind {
        Some(kind) => locks::obstacle(open, &wanted(call, open, owner, kind, range)),
        None => locks::own(open, owner, range),
    };
    match found {
        Some(found) => {
            flock = Flock {
                kind: match found.kind {
                    Kind::Read => F_RDLCK,
                    Kind::Write => F_WRLCK,
                },
                whence: 0,
                start: found.range.first as i64,
                len: match found.range.last {
                    Range::END => 0,
                    last => (last - found.range.first + 1) as i64,
                },
                pid: match found.owner {
                    Owner::Table(_) => found.pid as i32,
                    Owner::Description(_) => -1,
                },
            };
        }
        None => flock.kind = F_UNLCK,
    }
    flock.store(&mut bytes);
    user::write(at, &bytes)?;
    Ok(0)
}

/// `F_SETLK`, `F_SETLKW` and those of open file descriptions.
pub(super) fn set(call: &Call<'_>, open: &Arc<OpenFile>, sharing: Sharing, at: u64, waits: bool) -> Result {
    let flock = Flock::from_bytes(&user::read_array(at)?);
    let (range, kind) = meant(open, &flock)?;
    match kind {
        Some(Kind::Read) => open.must_read()?,
        Some(Kind::Write) => open.must_write()?,
        None => {}
    }
    if sharing == Sharing::Description && flock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let files = call.files;
    let owner = sharing.owner(files, open);
    let Some(kind) = kind else {
        locks::unlock(open, Sort::Record, owner, range)?;
        return Ok(0);
    };
    match sharing {
        Sharing::Table => files.note_locks(),
        Sharing::Description => open.note_locks(),
    }
    locks::lock(open, Sort::Record, wanted(call, open, owner, kind, range), waits)?;
    // Another thread that closed the descriptor meanwhile found no lock to take away.
    let is_open = || {
        files
            .get_any(call.args[0])
            .is_ok_and(|now| Arc::ptr_eq(&now, open))
    };
    if sharing == Sharing::Table && !is_open() {
        locks::unlock(open, Sort::Record, owner, range)?;
        return Err(Errno::EBADF.into());
    }
    Ok(0)
}

/// `flock`.
pub fn flock(call: &mut Call<'_>) -> Result {
    const SHARED: u32 = 1;
    const EXCLUSIVE: u32 = 2;
    const NONBLOCKING: u32 = 4;
    const UNLOCK: u32 = 8;
    /// Asked for Windows' locks once, and does nothing any more, whatever else is asked for.
    const MANDATORY: u32 = 32;

    let command = call.args[1] as u32;
    if command & MANDATORY != 0 {
        return Ok(0);
    }
    let kind = match command & !NONBLOCKING {
        SHARED => Some(Kind::Read),
        EXCLUSIVE => Some(Kind::Write),
        UNLOCK => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let open = call.file(0)?;
    let owner = open.owner();
    let Some(kind) = kind else {
        locks::unlock(&open, Sort::Whole, owner, Range::ALL)?;
        return Ok(0);
    };
    if !open.status().reads() && !open.status().writes() {
        return Err(Errno::EBADF.into());
    }
    open.note_locks();
    let wanted = wanted(call, &open, owner, kind, Range::ALL);
    locks::lock(&open, Sort::Whole, wanted, command & NONBLOCKING == 0)?;
    Ok(0)
}
