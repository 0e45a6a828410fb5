//! Pipes: bytes from those who write to those who read.
//!
//! A pipe has places for pages of bytes. A write adds to the last page if the bytes fit there, and takes further places; a
//! place is free again when its page is read to the end. So a pipe can be full with fewer bytes than its capacity, as on
//! Linux. A write of at most a page goes into one place and is never mixed with others (`PIPE_BUF`).
//!
//! Bytes are moved between the pages and the tasks' memory directly, and no spin lock is held meanwhile: a reader takes the
//! first page out of the state and puts it back with what is left, a writer fills a page that is not in it yet. There is one
//! lock to sleep on for readers and one for writers, never both: a reader whose memory must be waited for keeps other readers
//! out, and nobody else. A page that was read to the end is kept for the next write.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::tree::{Entry, Inode};
use super::{File, Io, Notifier, OpenFile, OpenFlags, Readiness, Seeking, Sink, Source, signals};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFIFO, Stat, StatFs, Timestamp};
use crate::mm::frame::allocator;
use crate::sync::SpinLock;
use crate::syscall::{Error, user};
use crate::task::{SleepGuard, SleepLock, WaitReason};

/// Bytes of a place.
const PAGE: usize = 4096;
/// Places of a new pipe.
const PLACES: usize = 16;
/// Most places that anybody may ask for (Linux: `fs.pipe-max-size`).
const MAX_PLACES: usize = 256;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

static WAITING: WaitReason = WaitReason::new("the other end of a pipe");
static READING: WaitReason = WaitReason::uninterruptible("another reader of the same pipe");
static WRITING: WaitReason = WaitReason::uninterruptible("another writer to the same pipe");

/// A pipe, or a named one.
pub struct Pipe {
    ino: u64,
    born: Timestamp,
    state: SpinLock<State>,
    notifier: Notifier,
    reading: SleepLock,
    writing: SleepLock,
}

struct State {
    pages: VecDeque<Page>,
    /// Bytes of the page before them, which a reader has at present.
    with_reader: Option<usize>,
    /// For the next write.
    spare: Option<Bytes>,
    places: usize,
    readers: usize,
    writers: usize,
    /// How often an end was opened: tells who waits for the other one that it came, even if it is gone again.
    reader_opens: u64,
    writer_opens: u64,
}

/// The memory of a page. What was never written is 0; what was read stays, and is not shown again.
type Bytes = Box<[u8; PAGE]>;

/// Bytes of a page that are not read yet.
struct Page {
    bytes: Bytes,
    start: usize,
    end: usize,
}

impl Page {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

/// A new page.
fn allocate() -> Result<Bytes, Errno> {
    if allocator().is_short() {
        return Err(Errno::ENOMEM);
    }
    let mut page = Vec::new();
    page.try_reserve_exact(PAGE).map_err(|_| Errno::ENOMEM)?;
    page.resize(PAGE, 0);
    let page: Box<[u8]> = page.into_boxed_slice();
    page.try_into().map_err(|_| Errno::ENOMEM)
}

impl State {
    fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.with_reader.is_none()
    }

    fn is_full(&self) -> bool {
        self.pages.len() + usize::from(self.with_reader.is_some()) >= self.places
    }

    fn bytes(&self) -> usize {
        let here: usize = self.pages.iter().map(|page| page.end - page.start).sum();
        here + self.with_reader.unwrap_or(0)
    }

    /// Room behind the last bytes in their page, if `len` bytes fit there.
    fn room_in_last(&self, len: usize) -> bool {
        let last = self.pages.back();
        last.is_some_and(|page| page.start < page.end && page.end + len <= PAGE)
    }

    /// Whether the next `len` bytes of a write, at most a page, have a place.
    fn takes(&self, len: usize) -> bool {
        !self.is_full() || self.room_in_last(len)
    }

    /// Appends the first `len` of `bytes`; says whether there was a place and memory for it.
    fn append(&mut self, bytes: Bytes, len: usize) -> Result<bool, Errno> {
        if len < PAGE && self.room_in_last(len) {
            if let Some(last) = self.pages.back_mut() {
                last.bytes[last.end..last.end + len].copy_from_slice(&bytes[..len]);
                last.end += len;
            }
            self.spare = Some(bytes);
            return Ok(true);
        }
        if self.is_full() {
            self.spare = Some(bytes);
            return Ok(false);
        }
        // The page that a reader has comes back without asking for memory.
        let more = 1 + usize::from(self.with_reader.is_some());
        self.pages.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        self.pages.push_back(Page {
            bytes,
            start: 0,
            end: len,
        });
        Ok(true)
    }

    /// Gives a reader the first page; its place is not free yet.
    fn lend(&mut self) -> Option<Page> {
        let page = self.pages.pop_front()?;
        self.with_reader = Some(page.end - page.start);
        Some(page)
    }

    /// Takes back what [`Self::lend`] gave.
    fn take_back(&mut self, page: Page) {
        self.with_reader = None;
        if page.start < page.end {
            self.pages.push_front(page);
        } else {
            self.spare = Some(page.bytes);
        }
    }
}

/// What a reader finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// Bytes.
    Bytes,
    /// Another reader.
    Reader,
    /// No bytes, and nobody who writes.
    End,
}

/// Which end of a pipe, or both of a named one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    reads: bool,
    writes: bool,
}

/// An open end of a pipe.
pub struct PipeFile {
    pipe: Arc<Pipe>,
    ends: Ends,
}

impl Pipe {
    /// A pipe that nobody has opened.
    pub fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        Arc::new(Self {
            ino: NEXT.fetch_add(1, Ordering::Relaxed),
            born: super::clock::now(),
            state: SpinLock::new(State {
                pages: VecDeque::new(),
                with_reader: None,
                spare: None,
                places: PLACES,
                readers: 0,
                writers: 0,
                reader_opens: 0,
                writer_opens: 0,
            }),
            notifier: Notifier::new(&WAITING),
            reading: SleepLock::new(&READING),
            writing: SleepLock::new(&WRITING),
        })
    }

    /// `pipe2`: the end to read from and the end to write to.
    pub fn pair(flags: OpenFlags) -> (Arc<OpenFile>, Arc<OpenFile>) {
        let pipe = Self::new();
        let label = alloc::format!("pipe:[{}]", pipe.ino);
        let inode = PipeInode(Arc::clone(&pipe));
        let entry = Entry::unnamed(Arc::new(inode), label.as_bytes());
        let status = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
        let open = |access: OpenFlags| {
            let file = pipe.end(access);
            OpenFile::named(file, Arc::clone(&entry), status | access)
        };
        (open(OpenFlags::empty()), open(OpenFlags::WRONLY))
    }

    /// An end, opened.
    fn end(self: &Arc<Self>, access: OpenFlags) -> Arc<dyn File> {
        let ends = Ends {
            reads: access.reads(),
            writes: access.writes(),
        };
        let mut state = self.state.lock();
        if ends.reads {
            state.readers += 1;
            state.reader_opens += 1;
        }
        if ends.writes {
            state.writers += 1;
            state.writer_opens += 1;
        }
        drop(state);
        self.notifier.notify(Readiness::ALWAYS);
        Arc::new(PipeFile {
            pipe: Arc::clone(self),
            ends,
        })
    }

    /// Opens a named one: waits for somebody at the other end.
    ///
    /// # Errors
    /// ENXIO: nobody reads, and the caller does not want to wait. A signal came first.
    pub fn open(self: &Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        let nonblocking = flags.contains(OpenFlags::NONBLOCK);
        let (reads, writes) = (flags.reads(), flags.writes());
        if writes && !reads && nonblocking && self.state.lock().readers == 0 {
            return Err(Errno::ENXIO.into());
        }
        let before = {
            let state = self.state.lock();
            (state.reader_opens, state.writer_opens)
        };
        let file = self.end(flags);
        if !nonblocking && reads != writes {
            self.notifier.wait(|| {
                let state = self.state.lock();
                let came = if reads {
                    state.writers > 0 || state.writer_opens != before.1
                } else {
                    state.readers > 0 || state.reader_opens != before.0
                };
                came.then_some(())
            })?;
        }
        Ok(file)
    }

    /// What is known about it, without a name.
    fn stat(&self) -> Stat {
        Stat {
            dev: crate::abi::stat::DeviceNumber::new(0, 13),
            ino: self.ino,
            mode: S_IFIFO | 0o600,
            nlink: 1,
            block_size: PAGE as u32,
            accessed: self.born,
            modified: self.born,
            changed: self.born,
            born: self.born,
            ..Stat::default()
        }
    }

    /// Bytes that it may hold (`F_GETPIPE_SZ`).
    pub fn capacity(&self) -> usize {
        self.state.lock().places * PAGE
    }

    /// Has it hold at least `bytes` (`F_SETPIPE_SZ`); how many it will.
    ///
    /// # Errors
    /// EINVAL; EPERM: more than anybody may have. EBUSY: it holds more now.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize, Errno> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let places = bytes.div_ceil(PAGE).max(1).next_power_of_two();
        if places > MAX_PLACES {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        if places < state.pages.len() + usize::from(state.with_reader.is_some()) {
            return Err(Errno::EBUSY);
        }
        state.places = places;
        drop(state);
        self.notifier.notify(Readiness::WRITABLE);
        Ok(places * PAGE)
    }

    fn read(&self, io: &Io, to: &mut Sink<'_>) -> Result<(), Error> {
        let Some((_reading, mut page)) = self.wait_for_page(io.nonblocking)? else {
            return Ok(());
        };
        loop {
            let before = to.done();
            // What cannot be given whole stays in the pipe (as on Linux).
            let put = to.put_all(page.unread());
            self.take_back(page, to.done() - before);
            put?;
            if to.left() == 0 {
                return Ok(());
            }
            // With some bytes in hand it does not wait for more.
            match self.lend() {
                Some(next) => page = next,
                None => return Ok(()),
            }
        }
    }

    /// Waits until there is something to read; gives the first page, and keeps other readers out. `None` when nobody will write
    /// any more.
    #[inline(always)]
    fn wait_for_page(&self, nonblocking: bool) -> Result<Option<(SleepGuard<'_>, Page)>, Error> {
        loop {
            let mut lent = None;
            let found = self.notifier.wait_unless(nonblocking, || {
                let mut state = self.state.lock();
                if state.is_empty() {
                    return (state.writers == 0).then_some(Found::End);
                }
                let Some(reading) = self.reading.try_lock() else {
                    return Some(Found::Reader);
                };
                lent = state.lend().map(|page| (reading, page));
                Some(Found::Bytes)
            })?;
            match found {
                Found::Bytes | Found::End => return Ok(lent),
                // What it leaves is found, or what comes then.
                Found::Reader => drop(self.reading.lock_unless_killed().ok_or(Errno::EINTR)?),
            }
        }
    }

    fn lend(&self) -> Option<Page> {
        self.state.lock().lend()
    }

    /// Takes back what [`Self::lend`] gave, of which `len` bytes more have been read.
    fn take_back(&self, mut page: Page, len: usize) {
        page.start += len;
        let mut state = self.state.lock();
        let was_full = state.is_full();
        state.take_back(page);
        // Nothing could be added to the page while it was away, if it is the last one.
        let has_room = was_full && state.takes(1);
        drop(state);
        if has_room {
            self.notifier.notify(Readiness::WRITABLE);
        }
    }

    /// Waits until there is something to read and offers some of it to `take`, which says how much it took. 0 when nobody
    /// will write any more.
    ///
    /// # Errors
    /// EAGAIN, a signal, and what `take` says.
    pub fn offer(
        &self,
        nonblocking: bool,
        max: usize,
        take: impl FnOnce(&[u8]) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let Some((_reading, page)) = self.wait_for_page(nonblocking)? else {
            return Ok(0);
        };
        let bytes = page.unread();
        let taken = take(&bytes[..bytes.len().min(max)]);
        self.take_back(page, taken.unwrap_or(0));
        taken
    }

    /// A copy of the first `max` bytes, which stay (`tee`). Empty when nobody will write any more.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM; a signal.
    pub fn copy_of(&self, nonblocking: bool, max: usize) -> Result<Vec<u8>, Error> {
        self.wait_for_bytes(nonblocking)?;
        let mut bytes = Vec::new();
        // No reader has a page then.
        let _reading = self.reading.lock_unless_killed().ok_or(Errno::EINTR)?;
        let state = self.state.lock();
        bytes
            .try_reserve(state.bytes().min(max))
            .map_err(|_| Errno::ENOMEM)?;
        for page in &state.pages {
            let rest = max - bytes.len();
            let part = page.unread();
            bytes.extend_from_slice(&part[..part.len().min(rest)]);
        }
        Ok(bytes)
    }

    /// Waits until there is something to read; false when nobody will write any more.
    fn wait_for_bytes(&self, nonblocking: bool) -> Result<bool, Error> {
        self.notifier.wait_unless(nonblocking, || {
            let state = self.state.lock();
            match (state.is_empty(), state.writers) {
                (false, _) => Some(true),
                (true, 0) => Some(false),
                (true, _) => None,
            }
        })
    }

    fn write(&self, io: &Io, from: &mut Source<'_>) -> Result<(), Error> {
        // What is left over a whole number of pages is added to the last page first, if it fits there.
        let odd = from.left() % PAGE;
        let mut first = match odd {
            0 => PAGE,
            odd if from.left() > PAGE && !self.state.lock().room_in_last(odd) => PAGE,
            odd => odd,
        };
        loop {
            let ended = self.write_what_fits(from, &mut first);
            if ended == Err(Errno::EPIPE) {
                signals::broken_pipe();
            }
            ended?;
            if from.left() == 0 {
                return Ok(());
            }
            let len = from.left().min(first);
            self.notifier.wait_unless(io.nonblocking, || {
                let state = self.state.lock();
                (state.takes(len) || state.readers == 0).then_some(())
            })?;
        }
    }

    /// Writes until there is no place; `next` is the length of the next piece.
    fn write_what_fits(&self, from: &mut Source<'_>, next: &mut usize) -> Result<(), Errno> {
        let _writing = self.writing.lock_unless_killed().ok_or(Errno::EINTR)?;
        loop {
            let len = from.left().min(*next);
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            if !state.takes(len) {
                return Ok(());
            }
            let spare = state.spare.take();
            drop(state);
            let mut bytes = match spare {
                Some(bytes) => bytes,
                None => allocate()?,
            };
            let (taken, read) = from.take(&mut bytes[..len]);
            let mut state = self.state.lock();
            let put = match read {
                Ok(()) => state.append(bytes, taken),
                Err(errno) => {
                    state.spare = Some(bytes);
                    Err(errno)
                }
            };
            drop(state);
            if put != Ok(true) {
                from.give_back(taken);
                return put.map(drop);
            }
            self.notifier.notify(Readiness::READABLE);
            *next = PAGE;
            if from.left() == 0 {
                return Ok(());
            }
        }
    }

    fn readiness(&self, ends: Ends) -> Readiness {
        let state = self.state.lock();
        let mut ready = Readiness::empty();
        if ends.reads {
            ready.set(Readiness::READABLE, !state.is_empty());
            // A named pipe that nobody has ever written to is not at its end.
            ready.set(Readiness::HUP, state.writers == 0 && state.writer_opens > 0);
        }
        if ends.writes {
            ready.set(Readiness::WRITABLE, !state.is_full());
            ready.set(Readiness::ERR, state.readers == 0);
        }
        ready
    }
}

impl File for PipeFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "pipe:[{}]", self.pipe.ino)
    }

    fn stat(&self) -> Stat {
        self.pipe.stat()
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() == 0 {
            return Ok(0);
        }
        let ended = self.pipe.read(io, to);
        to.outcome(ended)
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        if from.left() == 0 {
            return Ok(0);
        }
        let ended = self.pipe.write(io, from);
        from.outcome(ended)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        self.pipe.readiness(self.ends)
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.pipe.notifier)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        match command {
            FIONREAD => {
                let bytes = self.pipe.state.lock().bytes() as u32;
                user::write(argument, &bytes.to_ne_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }
}

impl PipeFile {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeFile {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.ends.reads);
        state.writers -= usize::from(self.ends.writes);
        let unused = (state.readers + state.writers == 0)
            .then(|| (core::mem::take(&mut state.pages), state.spare.take()));
        let last_of_its_kind = (state.readers == 0) != (state.writers == 0);
        drop(state);
        drop(unused);
        if last_of_its_kind {
            self.pipe
                .notifier
                .notify(Readiness::ALWAYS | Readiness::HUP | Readiness::ERR);
        }
    }
}

/// A pipe without a name as a file of a file system: what the links of `/proc/PID/fd` open.
struct PipeInode(Arc<Pipe>);

impl Inode for PipeInode {
    fn stat(&self) -> Stat {
        self.0.stat()
    }

    fn stat_fs(&self) -> StatFs {
        StatFs {
            magic: 0x5049_5045,
            block_size: PAGE as u64,
            ..StatFs::default()
        }
    }

    /// Waits for nobody: the other end was there when the pipe was made, and what was written stays when it has gone.
    fn open(&self, _entry: &Arc<Entry>, flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Ok(self.0.end(flags))
    }
}
