//! From file to file, through the kernel's hands.

use alloc::sync::Arc;

use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFDIR, S_IFMT, S_IFREG};
use crate::file::{OpenFile, PIECE, Seeking, Sink, Source};
use crate::syscall::{Call, Error, Result, user};

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
        if want == 0 {
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
    let [_, _, offset, count, ..] = call.args;
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
    let [_, in_offset, _, out_offset, count, flags] = call.args;
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
    if output.status().contains(crate::file::OpenFlags::APPEND) {
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
