//! An open file description: what descriptors share that are copies of each other, also across fork.

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::buffer::{Sink, Source};
use super::flags::OpenFlags;
use super::locks;
use super::ops::{Content, DirEntry, File, Io, Seeking};
use super::readiness::{Readiness, Watcher};
use super::tree::{Entry, Inode};
use crate::abi::errno::Errno;
use crate::abi::stat::Stat;
use crate::sync::SpinLock;
use crate::syscall::Error;
use crate::task::{SleepLock, WaitReason};

static POSITION: WaitReason =
    WaitReason::uninterruptible("a call that uses the position of the same open file");

/// Largest position.
const MAX_POSITION: u64 = i64::MAX as u64;

/// From where `lseek` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    /// The beginning.
    Start,
    /// The position.
    Current,
    /// The end.
    End,
    /// From the given offset to the next data, or the next hole.
    Next(Content),
}

impl Whence {
    /// From Linux's number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn from_number(number: u32) -> Result<Self, Errno> {
        Ok(match number {
            0 => Self::Start,
            1 => Self::Current,
            2 => Self::End,
            3 => Self::Next(Content::Data),
            4 => Self::Next(Content::Hole),
            _ => return Err(Errno::EINVAL),
        })
    }
}

/// An open file description.
pub struct OpenFile {
    file: Arc<dyn File>,
    /// The name by which it was opened.
    entry: Option<Arc<Entry>>,
    status: AtomicU32,
    /// Whether the file has positions.
    has_positions: bool,
    position: AtomicU64,
    /// Held by calls that use and move the position.
    moving: SleepLock,
    /// Who is told when it is closed for good.
    watchers: SpinLock<Vec<Weak<dyn Watcher>>>,
    /// Whether locks were ever taken for it.
    locks: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        for watcher in core::mem::take(self.watchers.get_mut()) {
            if let Some(watcher) = watcher.upgrade() {
                watcher.closing(self);
            }
        }
        if *self.locks.get_mut() {
            locks::forget(self, self.owner());
        }
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenFile(")?;
        self.file.label(f)?;
        write!(f, ", {:?})", self.status())
    }
}

impl OpenFile {
    /// `file`, which has no name, opened with `flags`.
    pub fn new(file: Arc<dyn File>, flags: OpenFlags) -> Arc<Self> {
        Self::make(file, None, flags - OpenFlags::CLOEXEC)
    }

    /// `file`, found as `entry` and opened with `flags`.
    pub fn named(file: Arc<dyn File>, entry: Arc<Entry>, flags: OpenFlags) -> Arc<Self> {
        Self::make(file, Some(entry), flags - OpenFlags::ONCE)
    }

    /// The name `entry` and nothing else (`O_PATH`).
    pub fn of_path(entry: &Arc<Entry>, flags: OpenFlags) -> Arc<Self> {
        let kept = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW;
        Self::make(Arc::new(PathOnly), Some(Arc::clone(entry)), flags & kept)
    }

    fn make(file: Arc<dyn File>, entry: Option<Arc<Entry>>, flags: OpenFlags) -> Arc<Self> {
        Arc::new(Self {
            has_positions: file.seeking() == Seeking::Positions,
            file,
            entry,
            status: AtomicU32::new(flags.bits()),
            position: AtomicU64::new(0),
            moving: SleepLock::new(&POSITION),
            watchers: SpinLock::new(Vec::new()),
            locks: AtomicBool::new(false),
        })
    }

    /// What it is.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// What it is, if it is a `T`.
    pub fn as_file<T: File>(&self) -> Option<&T> {
        let any: &dyn core::any::Any = &*self.file;
        any.downcast_ref()
    }

    /// Has `watcher` told when it is closed for good.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) -> Result<(), Errno> {
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        watchers.push(watcher);
        Ok(())
    }

    /// Who it is, as an owner of locks.
    pub fn owner(&self) -> locks::Owner {
        locks::Owner::Description(locks::description(self))
    }

    /// It may have locks from now on.
    pub fn note_locks(&self) {
        self.locks.store(true, Ordering::Relaxed);
    }

    /// How it was opened, and what was changed since.
    #[inline]
    pub fn status(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.status.load(Ordering::Relaxed))
    }

    /// `F_SETFL`: takes the flags that can be changed from `flags` and ignores the others.
    pub fn set_status(&self, flags: OpenFlags) {
        let changed = (flags & OpenFlags::CHANGEABLE).bits();
        let kept = !OpenFlags::CHANGEABLE.bits();
        let _ = self
            .status
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                Some((old & kept) | changed)
            });
    }

    /// Turns `O_NONBLOCK` on or off (`FIONBIO`).
    pub fn set_nonblocking(&self, on: bool) {
        let bit = OpenFlags::NONBLOCK.bits();
        if on {
            self.status.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.status.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// The position.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// The name by which it was opened, if it has one.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.entry.as_ref()
    }

    /// Its file in a file system.
    ///
    /// # Errors
    /// EINVAL: it is in none.
    pub fn inode(&self) -> Result<&Arc<dyn Inode>, Errno> {
        self.entry
            .as_ref()
            .map(|entry| entry.inode())
            .ok_or(Errno::EINVAL)
    }

    /// What is known about it.
    pub fn stat(&self) -> Stat {
        match &self.entry {
            Some(entry) => entry.inode().stat(),
            None => self.file.stat(),
        }
    }

    /// What `/proc/PID/fd` shows to somebody whose root is `root`.
    pub fn shown(&self, root: &Arc<Entry>) -> Vec<u8> {
        if let Some(entry) = &self.entry {
            return entry.shown(root);
        }
        let mut label = String::new();
        // Writing to a string does not fail.
        let _ = self.file.label(&mut label);
        label.into_bytes()
    }

    /// What would not wait.
    pub fn readiness(&self) -> Readiness {
        self.file.readiness(self.status())
    }

    /// Moves the position there.
    pub fn move_to(&self, position: u64) {
        if let Some(_moving) = self.moving.lock_unless_killed() {
            self.position.store(position, Ordering::Relaxed);
        }
    }

    #[inline]
    fn io(&self, at: u64, nowait: bool) -> Io {
        let status = self.status();
        Io {
            at,
            nonblocking: nowait || status.contains(OpenFlags::NONBLOCK),
            append: status.contains(OpenFlags::APPEND),
        }
    }

    /// Whether it may be read.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn must_read(&self) -> Result<(), Errno> {
        if self.status().reads() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    /// Whether it may be written.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn must_write(&self) -> Result<(), Errno> {
        if self.status().writes() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    /// Reads at the position and moves it; `nowait` as if the file were non-blocking.
    ///
    /// # Errors
    /// EBADF: not open for reading; what the file says.
    pub fn read(&self, to: &mut Sink<'_>, nowait: bool) -> Result<usize, Error> {
        self.must_read()?;
        self.read_allowed(to, nowait)
    }

    /// [`Self::read`] for somebody who knows that it may be read.
    ///
    /// # Errors
    /// What the file says.
    #[inline(always)]
    pub fn read_allowed(&self, to: &mut Sink<'_>, nowait: bool) -> Result<usize, Error> {
        self.moved(nowait, |io| self.file.read(io, to))
    }

    /// Writes at the position, or at the end, and moves it.
    ///
    /// # Errors
    /// EBADF: not open for writing; what the file says.
    pub fn write(&self, from: &mut Source<'_>, nowait: bool) -> Result<usize, Error> {
        self.must_write()?;
        self.write_allowed(from, nowait)
    }

    /// [`Self::write`] for somebody who knows that it may be written.
    ///
    /// # Errors
    /// What the file says.
    #[inline(always)]
    pub fn write_allowed(&self, from: &mut Source<'_>, nowait: bool) -> Result<usize, Error> {
        self.moved(nowait, |io| self.file.write(io, from))
    }

    /// Reads at `offset`.
    ///
    /// # Errors
    /// ESPIPE: the file has no positions; as [`Self::read`].
    pub fn read_at(&self, offset: u64, to: &mut Sink<'_>, nowait: bool) -> Result<usize, Error> {
        self.must_have_positions()?;
        self.must_read()?;
        self.file.read(&mut self.io(offset, nowait), to)
    }

    /// Writes at `offset`; at the end if it was opened for appending (as on Linux).
    ///
    /// # Errors
    /// ESPIPE: the file has no positions; as [`Self::write`].
    pub fn write_at(&self, offset: u64, from: &mut Source<'_>, nowait: bool) -> Result<usize, Error> {
        self.must_have_positions()?;
        self.must_write()?;
        self.file.write(&mut self.io(offset, nowait), from)
    }

    fn must_have_positions(&self) -> Result<(), Errno> {
        match self.file.seeking() {
            Seeking::Positions | Seeking::Pretended => Ok(()),
            Seeking::Never | Seeking::Ignored => Err(Errno::ESPIPE),
        }
    }

    /// Runs one call at the position, if there are any.
    #[inline(always)]
    fn moved(
        &self,
        nowait: bool,
        call: impl FnOnce(&mut Io) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        if self.has_positions {
            self.at_position(nowait, call)
        } else {
            call(&mut self.io(0, nowait))
        }
    }

    #[inline(never)]
    fn at_position(
        &self,
        nowait: bool,
        call: impl FnOnce(&mut Io) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let _moving = self.moving.lock_unless_killed().ok_or(Errno::EINTR)?;
        let mut io = self.io(self.position(), nowait);
        let answer = call(&mut io);
        if answer.is_ok() {
            self.position.store(io.at, Ordering::Relaxed);
        }
        answer
    }

    /// Hands the names of a directory from the position on to `take` until it wants no more, and moves the position behind the
    /// last one that it took.
    ///
    /// # Errors
    /// ENOTDIR; ENOENT: the directory is gone.
    pub fn entries(&self, mut take: impl FnMut(&DirEntry) -> bool) -> Result<(), Errno> {
        if self.entry.as_ref().is_some_and(|entry| entry.is_gone()) {
            return Err(Errno::ENOENT);
        }
        let _moving = self.moving.lock_unless_killed().ok_or(Errno::EINTR)?;
        self.file.entries(self.position(), &mut |entry| {
            let taken = take(&entry);
            if taken {
                self.position.store(entry.next, Ordering::Relaxed);
            }
            taken
        })
    }

    /// Moves the position; where it is then.
    ///
    /// # Errors
    /// ESPIPE: the file has none. EINVAL: it would be negative. ENXIO: there is no data or hole from there on. EOVERFLOW: the
    /// sum cannot be told.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64, Errno> {
        match self.file.seeking() {
            Seeking::Never => return Err(Errno::ESPIPE),
            Seeking::Ignored | Seeking::Pretended => return Ok(0),
            Seeking::Positions => {}
        }
        let _moving = self.moving.lock_unless_killed().ok_or(Errno::EINTR)?;
        let base = match whence {
            Whence::Start => 0,
            Whence::Current => self.position(),
            Whence::End => self.file.end(),
            Whence::Next(what) => {
                let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if at >= self.file.end() {
                    return Err(Errno::ENXIO);
                }
                let found = self.file.find(at, what)?;
                self.position.store(found, Ordering::Relaxed);
                return Ok(found);
            }
        };
        let sum = base.checked_add_signed(offset);
        let position = sum.filter(|sum| *sum <= MAX_POSITION).ok_or(Errno::EINVAL)?;
        self.position.store(position, Ordering::Relaxed);
        Ok(position)
    }
}

/// What a descriptor for a name can do: nothing.
struct PathOnly;

impl File for PathOnly {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("a name")
    }
}
