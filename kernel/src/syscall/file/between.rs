//! From file to file, and between memory and pipes, through the kernel's hands.

use alloc::sync::Arc;

use super::transfer::segments;
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFDIR, S_IFMT, S_IFREG};
use crate::file::pipe::{Pipe, PipeFile};
use crate::file::{OpenFile, OpenFlags, PIECE, Seeking, Sink, Source};
use crate::syscall::{Call, Error, Result, user};
use crate::task;

/// Where one side of a copy begins.
#[derive(Clone, Copy)]
struct Side {
    /// Where the caller keeps the offset; 0: at the open file's position.
    pointer: u64,
    offset: u64,
}

impl Side {
    fn of(pointer: u64) -> core::result::Result<Self, Error> {
        let offset = if pointer == 0 { 0 } else { user::read_u64(pointer)? };
        if offset > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        Ok(Self { pointer, offset })
    }

    fn at(&self, done: u64) -> Option<u64> {
        (self.pointer != 0).then_some(self.offset + done)
    }

    fn tell(&self, done: u64) -> core::result::Result<(), Error> {
        match self.at(done) {
            Some(offset) => user::write(self.pointer, &offset.to_ne_bytes()),
            None => Ok(()),
        }
    }
}

/// Copies up to `count` bytes. What was read and could not be written is given back: the source has positions.
fn copy(input: &OpenFile, from: Side, output: &OpenFile, to: Side, count: u64) -> Result {
    let mut piece = [0; PIECE];
    let mut done = 0;
    let ended = loop {
        let want = (count - done).min(PIECE as u64) as usize;
        if want == 0 || task::current().is_killed() {
            break Ok(());
        }
        let start = from.at(done).unwrap_or_else(|| input.position());
        let len = match input.read_at(start, &mut Sink::kernel(&mut piece[..want]), false) {
            Ok(0) => break Ok(()),
            Ok(len) => len,
            Err(error) => break Err(error),
        };
        let mut bytes = Source::kernel(&piece[..len]);
        let written = match to.at(done) {
            Some(offset) => output.write_at(offset, &mut bytes, false),
            None => output.write(&mut bytes, false),
        };
        let written = match written {
            Ok(written) => written,
            Err(error) => break Err(error),
        };
        done += written as u64;
        if from.pointer == 0 {
            input.move_to(start + written as u64);
        }
        if written < len {
            break Ok(());
        }
    };
    from.tell(done)?;
    to.tell(done)?;
    match ended {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

/// `sendfile`.
pub fn sendfile(call: &mut Call<'_>) -> Result {
    let [_, _, offset, count, ..] = *call.args;
    let from = Side::of(offset)?;
    let input = call.file(1)?;
    input.must_read()?;
    if input.file().seeking() != Seeking::Positions {
        let errno = if offset == 0 { Errno::EINVAL } else { Errno::ESPIPE };
        return Err(errno.into());
    }
    let output = call.file(0)?;
    output.must_write()?;
    let here = Side {
        pointer: 0,
        offset: 0,
    };
    copy(&input, from, &output, here, count.min(0x7fff_f000))
}

/// `copy_file_range`.
pub fn copy_file_range(call: &mut Call<'_>) -> Result {
    let [_, in_offset, _, out_offset, count, flags] = *call.args;
    let (input, output) = (call.file(0)?, call.file(2)?);
    let (from, to) = (Side::of(in_offset)?, Side::of(out_offset)?);
    super::only(flags, 0)?;
    for open in [&input, &output] {
        match open.stat().mode & S_IFMT {
            S_IFREG => {}
            S_IFDIR => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    input.must_read()?;
    output.must_write()?;
    if output.status().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    let count = count.min(0x7fff_f000);
    if overlaps(&input, from, &output, to, count) {
        return Err(Errno::EINVAL.into());
    }
    copy(&input, from, &output, to, count)
}

fn overlaps(input: &Arc<OpenFile>, from: Side, output: &Arc<OpenFile>, to: Side, count: u64) -> bool {
    let same = match (input.entry(), output.entry()) {
        (Some(one), Some(other)) => Arc::ptr_eq(one.inode(), other.inode()),
        _ => false,
    };
    let start = |side: Side, open: &OpenFile| side.at(0).unwrap_or_else(|| open.position());
    let (from, to) = (start(from, input), start(to, output));
    same && from < to.saturating_add(count) && to < from.saturating_add(count)
}

/// Flags of `splice` and its like: all but `SPLICE_F_NONBLOCK` are hints.
const SPLICE_FLAGS: u64 = 0xf;
/// `SPLICE_F_NONBLOCK`.
const NONBLOCK: u64 = 2;

fn pipe_of(open: &OpenFile) -> Option<&Arc<Pipe>> {
    open.as_file::<PipeFile>().map(PipeFile::pipe)
}

fn waits_not(open: &OpenFile, flags: u64) -> bool {
    flags & NONBLOCK != 0 || open.status().contains(OpenFlags::NONBLOCK)
}

/// `splice`.
pub fn splice(call: &mut Call<'_>) -> Result {
    let [_, in_offset, _, out_offset, len, flags] = *call.args;
    if len == 0 {
        return Ok(0);
    }
    super::only(flags, SPLICE_FLAGS)?;
    let (input, output) = (call.file(0)?, call.file(2)?);
    input.must_read()?;
    output.must_write()?;
    let (from, to) = (pipe_of(&input), pipe_of(&output));
    if (from.is_some() && in_offset != 0) || (to.is_some() && out_offset != 0) {
        return Err(Errno::ESPIPE.into());
    }
    let len = len.min(0x7fff_f000);
    match (from, to) {
        (Some(from), to) => {
            if to.is_some_and(|to| Arc::ptr_eq(from, to)) {
                return Err(Errno::EINVAL.into());
            }
            let side = Side::of(out_offset)?;
            out_of_pipe(from, waits_not(&input, flags), &output, side, len, flags)
        }
        (None, Some(_)) => {
            if input.file().seeking() != Seeking::Positions {
                return Err(Errno::EINVAL.into());
            }
            let here = Side {
                pointer: 0,
                offset: 0,
            };
            copy(&input, Side::of(in_offset)?, &output, here, len)
        }
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

/// Moves what a pipe has; waits for the first bytes only.
fn out_of_pipe(from: &Pipe, nonblocking: bool, output: &OpenFile, to: Side, len: u64, flags: u64) -> Result {
    let nowait = flags & NONBLOCK != 0;
    let mut done = 0;
    let ended = loop {
        let left = (len - done) as usize;
        if left == 0 {
            break Ok(());
        }
        let moved = from.offer(nonblocking || done > 0, left, |bytes| {
            let mut bytes = Source::kernel(bytes);
            match to.at(done) {
                Some(offset) => output.write_at(offset, &mut bytes, nowait),
                None => output.write(&mut bytes, nowait),
            }
        });
        match moved {
            Ok(0) => break Ok(()),
            Ok(moved) => done += moved as u64,
            Err(error) => break Err(error),
        }
    };
    to.tell(done)?;
    match ended {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

/// `tee`.
pub fn tee(call: &mut Call<'_>) -> Result {
    let [_, _, len, flags, ..] = *call.args;
    super::only(flags, SPLICE_FLAGS)?;
    if len == 0 {
        return Ok(0);
    }
    let (input, output) = (call.file(0)?, call.file(1)?);
    input.must_read()?;
    output.must_write()?;
    let (Some(from), Some(to)) = (pipe_of(&input), pipe_of(&output)) else {
        return Err(Errno::EINVAL.into());
    };
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL.into());
    }
    let bytes = from.copy_of(waits_not(&input, flags), (len as usize).min(to.capacity()))?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let written = output.write(&mut Source::kernel(&bytes), flags & NONBLOCK != 0)?;
    Ok(written as u64)
}

/// `vmsplice`: what the pages hold goes into the pipe, not the pages.
pub fn vmsplice(call: &mut Call<'_>) -> Result {
    let [_, array, count, flags, ..] = *call.args;
    super::only(flags, SPLICE_FLAGS)?;
    let open = call.file(0)?;
    if pipe_of(&open).is_none() {
        return Err(Errno::EBADF.into());
    }
    let parts = segments(array, count)?;
    let nowait = flags & NONBLOCK != 0;
    let moved = if open.status().writes() {
        open.write(&mut Source::pages(&parts), nowait)?
    } else {
        open.read(&mut Sink::task(&parts), nowait)?
    };
    Ok(moved as u64)
}
