//! Descriptors: opening, closing, duplicating; pipes.

use crate::abi::errno::Errno;
use crate::file::pipe::Pipe;
use crate::file::{OpenFile, OpenFlags};
use crate::syscall::{Call, Error, Result, user};

/// `CLOSE_RANGE_UNSHARE`.
const UNSHARE: u64 = 2;
/// `CLOSE_RANGE_CLOEXEC`.
const AT_EXEC: u64 = 4;

/// Gives an open file a descriptor.
pub(in crate::syscall) fn install(
    call: &Call<'_>,
    open: alloc::sync::Arc<OpenFile>,
    flags: OpenFlags,
) -> Result {
    Ok(call.files.install(open, flags.contains(OpenFlags::CLOEXEC))?)
}

fn open_from(call: &Call<'_>, dirfd: Option<usize>, path: usize, flags: OpenFlags, mode: u64) -> Result {
    let flags = if flags.contains(OpenFlags::PATH) {
        flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC)
    } else {
        flags
    };
    if flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL.into());
    }
    let path = call.path(path)?;
    if !call.files.has_room() {
        return Err(Errno::EMFILE.into());
    }
    if path.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let start = call.start(dirfd, &path)?;
    let open = call.place().open(start.as_ref(), &path, flags, mode as u32)?;
    install(call, open, flags)
}

/// `open`.
pub fn open(call: &mut Call<'_>) -> Result {
    let flags = OpenFlags::from_bits_truncate(call.args[1] as u32);
    open_from(call, None, 0, flags, call.args[2])
}

/// `creat`.
pub fn creat(call: &mut Call<'_>) -> Result {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    open_from(call, None, 0, flags, call.args[1])
}

/// `openat`.
pub fn openat(call: &mut Call<'_>) -> Result {
    let flags = OpenFlags::from_bits_truncate(call.args[2] as u32);
    open_from(call, Some(0), 1, flags, call.args[3])
}

/// `openat2` with no restrictions on the way (`RESOLVE_*`).
pub fn openat2(call: &mut Call<'_>) -> Result {
    let [_, _, how, size, ..] = *call.args;
    if size < 24 {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let bytes = user::read_vec(how, size as usize)?;
    if bytes[24..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    let (flags, mode, resolve) = (
        user::read_u64(how)?,
        user::read_u64(how + 8)?,
        user::read_u64(how + 16)?,
    );
    if resolve & !0x3f != 0 {
        return Err(Errno::EINVAL.into());
    }
    if resolve != 0 {
        // RESOLVE_CACHED and the like: the caller tries something else.
        return Err(Errno::EAGAIN.into());
    }
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits);
    let flags = flags.ok_or(Errno::EINVAL)?;
    let makes = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    if mode & !0o7777 != 0 || (mode != 0 && !makes) {
        return Err(Errno::EINVAL.into());
    }
    open_from(call, Some(0), 1, flags, mode)
}

/// `close`.
pub fn close(call: &mut Call<'_>) -> Result {
    call.files.close(call.args[0])?;
    Ok(0)
}

/// `close_range`. The table is the process's own: there is nothing to unshare.
pub fn close_range(call: &mut Call<'_>) -> Result {
    let [first, last, flags, ..] = *call.args;
    let (first, last) = (first as u32, last as u32);
    super::only(flags, UNSHARE | AT_EXEC)?;
    if first > last {
        return Err(Errno::EINVAL.into());
    }
    call.files
        .close_range(first as usize, last as usize, flags & AT_EXEC != 0);
    Ok(0)
}

/// `dup`.
pub fn dup(call: &mut Call<'_>) -> Result {
    let open = call.any_file(0)?;
    Ok(call.files.install(open, false)?)
}

/// `dup2`.
pub fn dup2(call: &mut Call<'_>) -> Result {
    let [old, new, ..] = *call.args;
    if old as u32 == new as u32 {
        call.any_file(0)?;
        return Ok(u64::from(new as u32));
    }
    Ok(call.files.duplicate(old, new, false)?)
}

/// `dup3`.
pub fn dup3(call: &mut Call<'_>) -> Result {
    let [old, new, flags, ..] = *call.args;
    let cloexec = u64::from(OpenFlags::CLOEXEC.bits());
    super::only(flags, cloexec)?;
    if old as u32 == new as u32 {
        return Err(Errno::EINVAL.into());
    }
    Ok(call.files.duplicate(old, new, flags & cloexec != 0)?)
}

/// `pipe`.
pub fn pipe(call: &mut Call<'_>) -> Result {
    make_pipe(call, OpenFlags::empty())
}

/// `pipe2`.
pub fn pipe2(call: &mut Call<'_>) -> Result {
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    super::only(call.args[1], u64::from(known.bits()))?;
    make_pipe(call, OpenFlags::from_bits_truncate(call.args[1] as u32))
}

fn make_pipe(call: &Call<'_>, flags: OpenFlags) -> Result {
    let (reads, writes) = Pipe::pair(flags);
    install_pair(call, reads, writes, call.args[0], flags)
}

/// Gives two open files descriptors and tells the caller at `address`; neither is open if that fails.
pub(in crate::syscall) fn install_pair(
    call: &Call<'_>,
    first: alloc::sync::Arc<OpenFile>,
    second: alloc::sync::Arc<OpenFile>,
    address: u64,
    flags: OpenFlags,
) -> Result {
    let first = install(call, first, flags)?;
    let take_back = |fd, error: Error| {
        // It may have been closed by another thread meanwhile.
        let _ = call.files.close(fd);
        error
    };
    let second = install(call, second, flags).map_err(|error| take_back(first, error))?;
    let mut pair = [0; 8];
    pair[..4].copy_from_slice(&(first as u32).to_ne_bytes());
    pair[4..].copy_from_slice(&(second as u32).to_ne_bytes());
    user::write(address, &pair).map_err(|error| take_back(first, take_back(second, error)))?;
    Ok(0)
}
