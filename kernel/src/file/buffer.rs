//! Where the bytes of a read go, and where those of a write come from: memory of the current task, in one part or several, or
//! memory of the kernel.
//!
//! Files are handed a [`Sink`] or a [`Source`] and move bytes piece by piece. A piece may touch the task's memory and so may
//! sleep: **no lock but a [`SleepLock`](crate::task::SleepLock) may be held.**

use crate::abi::errno::Errno;
use crate::mm::addr::VirtAddr;
use crate::mm::fault::FaultError;
use crate::mm::uaccess;
use crate::syscall::Error;
use crate::task;
use crate::uffd::linux::{OnBehalf, on_behalf};

/// Bytes that are moved in one piece where they have to be copied twice.
pub const PIECE: usize = 4096;

/// A part of the current task's memory, as it alleges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte.
    pub addr: VirtAddr,
    /// Bytes.
    pub len: usize,
}

/// Takes the bytes of a read.
#[derive(Debug)]
pub struct Sink<'a> {
    to: To<'a>,
    done: usize,
    len: usize,
}

#[derive(Debug)]
enum To<'a> {
    Kernel(&'a mut [u8]),
    Task(Segments<'a>),
}

/// Gives the bytes of a write.
#[derive(Debug)]
pub struct Source<'a> {
    from: From<'a>,
    done: usize,
    len: usize,
}

#[derive(Debug)]
enum From<'a> {
    Kernel(&'a [u8]),
    Task(Segments<'a>),
    Pages(Segments<'a>),
}

/// Parts of a task's memory, and how far they are used up.
#[derive(Debug)]
struct Segments<'a> {
    all: &'a [Segment],
    /// The one that comes next.
    index: usize,
    /// Bytes of it that are used up.
    within: usize,
}

impl<'a> Segments<'a> {
    fn new(all: &'a [Segment]) -> Self {
        Self {
            all,
            index: 0,
            within: 0,
        }
    }

    /// The next part, at most `max` bytes of it.
    #[inline]
    fn next(&mut self, max: usize) -> Option<Segment> {
        while let Some(first) = self.all.get(self.index) {
            if self.within < first.len {
                return Some(Segment {
                    addr: VirtAddr::new(first.addr.as_u64().wrapping_add(self.within as u64)),
                    len: max.min(first.len - self.within),
                });
            }
            self.index += 1;
            self.within = 0;
        }
        None
    }

    /// The next `len` bytes, if they are some and lie in one part, as they mostly do.
    #[inline]
    fn next_whole(&mut self, len: usize) -> Option<Segment> {
        self.next(len).filter(|part| part.len == len && len > 0)
    }

    /// Goes to the byte with this number.
    fn seek(&mut self, bytes: usize) {
        (self.index, self.within) = (0, bytes);
        while let Some(segment) = self.all.get(self.index)
            && self.within >= segment.len
        {
            self.within -= segment.len;
            self.index += 1;
        }
    }
}

fn total(segments: &[Segment]) -> usize {
    segments
        .iter()
        .fold(0, |sum: usize, segment| sum.saturating_add(segment.len))
}

/// What is known of a copy that failed: bytes that were copied, and the error.
#[cold]
fn failed(part: Segment, error: uaccess::AccessError) -> (usize, Errno) {
    let done = error.addr.as_u64().saturating_sub(part.addr.as_u64());
    let done = usize::try_from(done).unwrap_or(0).min(part.len);
    (done, on_behalf(OnBehalf::Copy, error.why))
}

/// Copies to or from all of a part of the current task's memory, by `access`: how many bytes, and why not all.
#[inline(always)]
fn transferred(
    part: Segment,
    access: impl FnOnce() -> Result<(), uaccess::AccessError>,
) -> (usize, Result<(), Errno>) {
    if task::current().is_killed() {
        return (0, Err(Errno::EINTR));
    }
    match uaccess::on_behalf(access) {
        Ok(()) => (part.len, Ok(())),
        Err(error) => {
            let (count, errno) = failed(part, error);
            (count, Err(errno))
        }
    }
}

/// Copies `bytes` to a part of the current task's memory that is as long: how many, and why not all.
#[inline(always)]
fn store(part: Segment, bytes: &[u8]) -> (usize, Result<(), Errno>) {
    transferred(part, || uaccess::write(part.addr, bytes))
}

/// Fills `out` from a part of the current task's memory that is as long: how many bytes of it, and why not all.
#[inline(always)]
fn fetch(part: Segment, out: &mut [u8]) -> (usize, Result<(), Errno>) {
    transferred(part, || uaccess::read(part.addr, out))
}

/// [`fetch`] by way of the tables.
fn look_up(part: Segment, out: &mut [u8]) -> (usize, Result<(), Errno>) {
    let task = task::current();
    transferred(part, || match task.space() {
        Some(space) => space.read_pinned(part.addr, out),
        None => Err(uaccess::AccessError {
            addr: part.addr,
            why: FaultError::Unmapped,
        }),
    })
}

impl<'a> Sink<'a> {
    /// Into memory of the kernel.
    pub fn kernel(out: &'a mut [u8]) -> Self {
        let len = out.len();
        Self {
            to: To::Kernel(out),
            done: 0,
            len,
        }
    }

    /// Into memory of the current task.
    pub fn task(segments: &'a [Segment]) -> Self {
        Self {
            len: total(segments),
            to: To::Task(Segments::new(segments)),
            done: 0,
        }
    }

    /// Bytes that have been taken.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes that have room.
    pub fn left(&self) -> usize {
        self.len - self.done
    }

    /// Takes `bytes`, or as many as have room. May sleep.
    ///
    /// # Errors
    /// EFAULT: the task's memory could not be written. EINTR: the task is to end. The bytes before count as taken.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut bytes = &bytes[..bytes.len().min(self.left())];
        while !bytes.is_empty() {
            let count = match &mut self.to {
                To::Kernel(out) => {
                    out[self.done..self.done + bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }
                To::Task(segments) => {
                    let Some(part) = segments.next(bytes.len()) else {
                        break;
                    };
                    let (count, stored) = store(part, &bytes[..part.len]);
                    segments.within += count;
                    if stored.is_err() {
                        self.done += count;
                        return stored;
                    }
                    count
                }
            };
            self.done += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Takes all of `bytes`, as far as there is room, or nothing: what lies before the byte that could not be written has been
    /// written, and does not count. May sleep.
    ///
    /// # Errors
    /// As for [`Self::put`].
    #[inline(always)]
    pub fn put_all(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let len = bytes.len().min(self.left());
        if let To::Task(segments) = &mut self.to
            && let Some(part) = segments.next_whole(len)
        {
            let (_, stored) = store(part, &bytes[..len]);
            if stored.is_ok() {
                segments.within += len;
                self.done += len;
            }
            return stored;
        }
        self.put_all_parts(bytes)
    }

    #[inline(never)]
    fn put_all_parts(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let before = self.done;
        let put = self.put(bytes);
        if put.is_err() {
            self.done = before;
            if let To::Task(segments) = &mut self.to {
                segments.seek(before);
            }
        }
        put
    }

    /// [`Self::put`] of a few bytes, which have room; mostly in one part of a task's memory.
    ///
    /// # Errors
    /// As for [`Self::put`].
    #[inline]
    pub fn put_record<const N: usize>(&mut self, record: &[u8; N]) -> Result<(), Errno> {
        if let To::Task(segments) = &mut self.to
            && let Some(part) = segments.next_whole(N)
        {
            let (count, stored) = store(part, record);
            segments.within += count;
            self.done += count;
            return stored;
        }
        self.put(record)
    }

    /// The answer of a read that ended like this: an error counts only if nothing was read before.
    ///
    /// # Errors
    /// That one.
    pub fn outcome(&self, ended: Result<(), Error>) -> Result<usize, Error> {
        answer(self.done, ended)
    }
}

impl<'a> Source<'a> {
    /// Memory of the kernel.
    pub fn kernel(bytes: &'a [u8]) -> Self {
        Self {
            from: From::Kernel(bytes),
            done: 0,
            len: bytes.len(),
        }
    }

    /// Memory of the current task.
    pub fn task(segments: &'a [Segment]) -> Self {
        Self {
            len: total(segments),
            from: From::Task(Segments::new(segments)),
            done: 0,
        }
    }

    /// Pages of the current task's memory, which are looked up: whoever would keep them waits for them as such (Linux: `vmsplice`).
    pub fn pages(segments: &'a [Segment]) -> Self {
        Self {
            len: total(segments),
            from: From::Pages(Segments::new(segments)),
            done: 0,
        }
    }

    /// Bytes that have been given.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes that there are still.
    pub fn left(&self) -> usize {
        self.len - self.done
    }

    /// Fills `out`, or as much of it as there is; says how much. May sleep.
    ///
    /// # Errors
    /// EFAULT: the task's memory could not be read. EINTR: the task is to end. What lay before is in `out` and counts as given.
    #[inline(always)]
    pub fn take(&mut self, out: &mut [u8]) -> (usize, Result<(), Errno>) {
        let len = out.len().min(self.left());
        if let From::Task(segments) = &mut self.from
            && let Some(part) = segments.next_whole(len)
        {
            let (count, read) = fetch(part, &mut out[..len]);
            segments.within += count;
            self.done += count;
            return (count, read);
        }
        self.take_parts(out, len)
    }

    #[inline(never)]
    fn take_parts(&mut self, out: &mut [u8], len: usize) -> (usize, Result<(), Errno>) {
        let mut at = 0;
        while at < len {
            let rest = &mut out[at..len];
            let (count, read) = match &mut self.from {
                From::Kernel(bytes) => {
                    rest.copy_from_slice(&bytes[self.done..self.done + rest.len()]);
                    (rest.len(), Ok(()))
                }
                From::Task(segments) => {
                    let Some(part) = segments.next(rest.len()) else {
                        break;
                    };
                    let (count, read) = fetch(part, &mut rest[..part.len]);
                    segments.within += count;
                    (count, read)
                }
                From::Pages(segments) => {
                    let Some(part) = segments.next(rest.len()) else {
                        break;
                    };
                    let (count, read) = look_up(part, &mut rest[..part.len]);
                    segments.within += count;
                    (count, read)
                }
            };
            self.done += count;
            at += count;
            if read.is_err() {
                return (at, read);
            }
        }
        (at, Ok(()))
    }

    /// All of `out`, or nothing.
    ///
    /// # Errors
    /// EINVAL: there are fewer bytes. EFAULT: they could not be read.
    pub fn take_exactly(&mut self, out: &mut [u8]) -> Result<(), Errno> {
        if self.left() < out.len() {
            return Err(Errno::EINVAL);
        }
        let (count, read) = self.take(out);
        if read.is_err() {
            self.give_back(count);
        }
        read
    }

    /// Goes back over the last `bytes` that were taken: they were not used.
    pub fn give_back(&mut self, bytes: usize) {
        self.done -= bytes;
        if let From::Task(segments) | From::Pages(segments) = &mut self.from {
            segments.seek(self.done);
        }
    }

    /// The answer of a write that ended like this: an error counts only if nothing was written before.
    ///
    /// # Errors
    /// That one.
    pub fn outcome(&self, ended: Result<(), Error>) -> Result<usize, Error> {
        answer(self.done, ended)
    }
}

fn answer(done: usize, ended: Result<(), Error>) -> Result<usize, Error> {
    match ended {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}
