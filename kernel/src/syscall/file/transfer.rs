//! Reading and writing.

use alloc::vec::Vec;

use crate::abi::errno::Errno;
use crate::file::{OpenFile, Seeking, Segment, Sink, Source, Whence};
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::syscall::{Call, Error, Result, user};

/// Most bytes of one call (Linux: `MAX_RW_COUNT`).
const MAX: usize = 0x7fff_f000;
/// Most parts of one call (`UIO_MAXIOV`).
const MAX_PARTS: u64 = 1024;

/// `RWF_NOWAIT`.
const NOWAIT: u64 = 8;
/// `RWF_APPEND`.
const APPEND: u64 = 0x10;
/// All flags of `preadv2` and `pwritev2`: `RWF_HIPRI`, `RWF_DSYNC`, `RWF_SYNC` change nothing here.
const KNOWN: u64 = 1 | 2 | 4 | NOWAIT | APPEND;

/// A part of the caller's memory, if it can be one.
pub(in crate::syscall) fn segment(addr: u64, len: u64) -> core::result::Result<Segment, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
    match VirtAddr::new(addr).checked_add(len as u64) {
        Some(end) if end <= USER_TOP => Ok(Segment {
            addr: VirtAddr::new(addr),
            len: len.min(MAX),
        }),
        _ => Err(Errno::EFAULT),
    }
}

/// The parts that an array of `iovec` names.
pub(in crate::syscall) fn segments(array: u64, count: u64) -> core::result::Result<Vec<Segment>, Error> {
    // It is an unsigned long, but compared after it became an unsigned int.
    if count > MAX_PARTS {
        return Err(Errno::EINVAL.into());
    }
    let bytes = user::read_vec(array, count as usize * 16)?;
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let mut parts = Vec::new();
    let mut left = MAX;
    for at in (0..bytes.len()).step_by(16) {
        let len = word(at + 8);
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        let mut part = segment(word(at), len)?;
        part.len = part.len.min(left);
        left -= part.len;
        parts.push(part);
    }
    Ok(parts)
}

/// Where a transfer takes place.
#[derive(Clone, Copy)]
enum At {
    /// At the position of the open file.
    Position,
    /// There.
    Offset(u64),
}

/// The offset that `pread` and its like are given.
fn offset(word: u64) -> core::result::Result<At, Errno> {
    if word > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(At::Offset(word))
}

/// Reads a file that may be read.
#[inline]
fn read_into(open: &OpenFile, parts: &[Segment], at: At, nowait: bool) -> Result {
    let mut to = Sink::task(parts);
    let read = match at {
        At::Position => open.read_allowed(&mut to, nowait),
        At::Offset(offset) => open.read_at(offset, &mut to, nowait),
    };
    Ok(read? as u64)
}

/// Writes a file that may be written.
#[inline]
fn write_from(open: &OpenFile, parts: &[Segment], at: At, nowait: bool) -> Result {
    let mut from = Source::task(parts);
    let written = match at {
        At::Position => open.write_allowed(&mut from, nowait),
        At::Offset(offset) => open.write_at(offset, &mut from, nowait),
    };
    Ok(written? as u64)
}

/// `read`.
pub fn read(call: &mut Call<'_>) -> Result {
    let open = call.file_to_read(0)?;
    let part = segment(call.args[1], call.args[2])?;
    read_into(&open, &[part], At::Position, false)
}

/// `write`.
pub fn write(call: &mut Call<'_>) -> Result {
    let open = call.file_to_write(0)?;
    let part = segment(call.args[1], call.args[2])?;
    write_from(&open, &[part], At::Position, false)
}

/// The file of a call that gives an offset.
fn with_offsets(call: &Call<'_>) -> core::result::Result<alloc::sync::Arc<OpenFile>, Error> {
    let open = call.file(0)?;
    match open.file().seeking() {
        Seeking::Positions | Seeking::Pretended => Ok(open),
        Seeking::Never | Seeking::Ignored => Err(Errno::ESPIPE.into()),
    }
}

/// `pread64`.
pub fn pread(call: &mut Call<'_>) -> Result {
    let at = offset(call.args[3])?;
    let open = with_offsets(call)?;
    open.must_read()?;
    let part = segment(call.args[1], call.args[2])?;
    read_into(&open, &[part], at, false)
}

/// `pwrite64`.
pub fn pwrite(call: &mut Call<'_>) -> Result {
    let at = offset(call.args[3])?;
    let open = with_offsets(call)?;
    open.must_write()?;
    let part = segment(call.args[1], call.args[2])?;
    write_from(&open, &[part], at, false)
}

/// `readv`.
pub fn readv(call: &mut Call<'_>) -> Result {
    let open = call.file_to_read(0)?;
    read_into(&open, &segments(call.args[1], call.args[2])?, At::Position, false)
}

/// `writev`.
pub fn writev(call: &mut Call<'_>) -> Result {
    let open = call.file_to_write(0)?;
    write_from(&open, &segments(call.args[1], call.args[2])?, At::Position, false)
}

/// `preadv`.
pub fn preadv(call: &mut Call<'_>) -> Result {
    let at = offset(call.args[3])?;
    let open = with_offsets(call)?;
    open.must_read()?;
    read_into(&open, &segments(call.args[1], call.args[2])?, at, false)
}

/// `pwritev`.
pub fn pwritev(call: &mut Call<'_>) -> Result {
    let at = offset(call.args[3])?;
    let open = with_offsets(call)?;
    open.must_write()?;
    write_from(&open, &segments(call.args[1], call.args[2])?, at, false)
}

/// Flags of `preadv2` and `pwritev2`: whether to wait.
fn nowait(flags: u64) -> core::result::Result<bool, Errno> {
    if flags as u32 & !(KNOWN as u32) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(flags & NOWAIT != 0)
}

/// `preadv2`; an offset of -1 is the position.
pub fn preadv2(call: &mut Call<'_>) -> Result {
    let (at, open) = at_or_position(call)?;
    open.must_read()?;
    let parts = segments(call.args[1], call.args[2])?;
    if call.args[5] & APPEND != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    read_into(&open, &parts, at, nowait(call.args[5])?)
}

/// `pwritev2`; an offset of -1 is the position.
pub fn pwritev2(call: &mut Call<'_>) -> Result {
    let (at, open) = at_or_position(call)?;
    open.must_write()?;
    let parts = segments(call.args[1], call.args[2])?;
    let nowait = nowait(call.args[5])?;
    let at = match at {
        At::Offset(_) if call.args[5] & APPEND != 0 => At::Offset(open.file().end()),
        at => at,
    };
    write_from(&open, &parts, at, nowait)
}

fn at_or_position(call: &Call<'_>) -> core::result::Result<(At, alloc::sync::Arc<OpenFile>), Error> {
    if call.args[3] == u64::MAX {
        return Ok((At::Position, call.file(0)?));
    }
    Ok((offset(call.args[3])?, with_offsets(call)?))
}

/// `lseek`.
pub fn lseek(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    let whence = Whence::from_number(call.args[2] as u32)?;
    Ok(open.seek(call.args[1] as i64, whence)?)
}

/// `readahead`, `fadvise64`: nothing is ever far away.
pub fn advise(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    if open.file().seeking() == Seeking::Never {
        return Err(Errno::ESPIPE.into());
    }
    if call.args[3] as u32 > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// `readahead`.
pub fn readahead(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    open.must_read()?;
    open.file().mapping().map_err(|_| Errno::EINVAL)?;
    Ok(0)
}
