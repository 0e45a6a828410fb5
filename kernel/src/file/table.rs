//! Descriptors: a process's numbers for its open files.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{OpenFile, OpenFlags, locks};
use crate::abi::errno::Errno;
use crate::mm::reserve::reserve;
use crate::sync::SpinLock;

/// Descriptors that a process may have if it does not ask for more (Linux: `RLIMIT_NOFILE`).
pub const DEFAULT_LIMIT: usize = 1024;
/// Most that it may ask for.
pub const MAX_LIMIT: usize = 1 << 20;

/// A descriptor.
#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    closes_on_exec: bool,
}

/// The descriptors of a process. Threads share one; a fork copies it.
pub struct Table {
    slots: SpinLock<Vec<Option<Slot>>>,
    /// `RLIMIT_NOFILE`: numbers are below it.
    limit: AtomicUsize,
    /// Whether record locks were ever taken for it.
    locks: AtomicBool,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.close_all();
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("open", &self.list().len()).finish()
    }
}

/// A descriptor as arguments of system calls have it: the lower half counts.
fn index(fd: u64) -> Result<usize, Errno> {
    usize::try_from(fd as u32 as i32).map_err(|_| Errno::EBADF)
}

impl Table {
    /// No descriptors.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: SpinLock::new(Vec::new()),
            limit: AtomicUsize::new(DEFAULT_LIMIT),
            locks: AtomicBool::new(false),
        })
    }

    /// The same descriptors for another process.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn copy(&self) -> Result<Arc<Self>, Errno> {
        let mut copy = Vec::new();
        let len = self.slots.lock().len();
        reserve(&mut copy, len).map_err(|_| Errno::ENOMEM)?;
        copy.extend(self.slots.lock().iter().cloned());
        Ok(Arc::new(Self {
            slots: SpinLock::new(copy),
            limit: AtomicUsize::new(self.limit()),
            locks: AtomicBool::new(false),
        }))
    }

    /// Who it is, as an owner of record locks.
    pub fn owner(&self) -> locks::Owner {
        locks::Owner::Table(ptr::from_ref(self).addr())
    }

    /// It may have record locks from now on.
    pub fn note_locks(&self) {
        self.locks.store(true, Ordering::Relaxed);
    }

    /// Closes descriptors that it has no more. As POSIX wants it, the table's record locks of a file are gone with any of its
    /// descriptors; those that are names only do not count.
    #[inline]
    fn let_go(&self, closed: impl IntoIterator<Item = Slot>) {
        for closed in closed {
            // Who takes a lock looks for the descriptor afterwards.
            if self.locks.load(Ordering::Relaxed) && !closed.file.status().contains(OpenFlags::PATH) {
                locks::forget(&closed.file, self.owner());
            }
        }
    }

    /// `RLIMIT_NOFILE`.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets it; descriptors above it stay open.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit.min(MAX_LIMIT), Ordering::Relaxed);
    }

    /// The open file behind `fd`, a name only (`O_PATH`) included.
    ///
    /// # Errors
    /// EBADF.
    pub fn get_any(&self, fd: u64) -> Result<Arc<OpenFile>, Errno> {
        self.get_if(fd, |_| true)
    }

    #[inline(always)]
    fn get_if(&self, fd: u64, suits: impl FnOnce(&OpenFile) -> bool) -> Result<Arc<OpenFile>, Errno> {
        let at = index(fd)?;
        let slots = self.slots.lock();
        match slots.get(at) {
            Some(Some(slot)) if suits(&slot.file) => Ok(Arc::clone(&slot.file)),
            _ => Err(Errno::EBADF),
        }
    }

    /// The open file behind `fd`.
    ///
    /// # Errors
    /// EBADF: there is none, or only a name.
    #[inline]
    pub fn get(&self, fd: u64) -> Result<Arc<OpenFile>, Errno> {
        self.get_if(fd, |file| !file.status().contains(OpenFlags::PATH))
    }

    /// The open file behind `fd`, if it may be read.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn get_to_read(&self, fd: u64) -> Result<Arc<OpenFile>, Errno> {
        self.get_if(fd, |file| file.status().reads())
    }

    /// The open file behind `fd`, if it may be written.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub fn get_to_write(&self, fd: u64) -> Result<Arc<OpenFile>, Errno> {
        self.get_if(fd, |file| file.status().writes())
    }

    /// Gives `file` the lowest free number.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn install(&self, file: Arc<OpenFile>, closes_on_exec: bool) -> Result<u64, Errno> {
        self.install_from(0, file, closes_on_exec)
    }

    /// Gives `file` the lowest free number from `lowest` on.
    ///
    /// # Errors
    /// EMFILE, ENOMEM; EINVAL: numbers do not go up to `lowest`.
    pub fn install_from(
        &self,
        lowest: usize,
        file: Arc<OpenFile>,
        closes_on_exec: bool,
    ) -> Result<u64, Errno> {
        let limit = self.limit();
        if lowest > 0 && lowest >= limit {
            return Err(Errno::EINVAL);
        }
        let mut slots = self.slots.lock();
        let free = (lowest..).find(|at| slots.get(*at).is_none_or(Option::is_none));
        let at = free.filter(|at| *at < limit).ok_or(Errno::EMFILE)?;
        make_place(&mut slots, at)?;
        slots[at] = Some(Slot { file, closes_on_exec });
        Ok(at as u64)
    }

    /// Whether one more could be installed.
    pub fn has_room(&self) -> bool {
        let slots = self.slots.lock();
        slots.len() < self.limit() || slots.iter().take(self.limit()).any(Option::is_none)
    }

    /// Gives the file behind `old` the number `new` as well (`dup3`, `dup2`); what `new` was is closed.
    ///
    /// # Errors
    /// EBADF: there is no `old`, or `new` cannot be. ENOMEM.
    pub fn duplicate(&self, old: u64, new: u64, closes_on_exec: bool) -> Result<u64, Errno> {
        let at = index(new)?;
        if at >= self.limit() {
            return Err(Errno::EBADF);
        }
        let file = self.get_any(old)?;
        let slot = Slot { file, closes_on_exec };
        let mut slots = self.slots.lock();
        make_place(&mut slots, at)?;
        let closed = slots[at].replace(slot);
        drop(slots);
        // Without the lock: closing may take any.
        self.let_go(closed);
        Ok(at as u64)
    }

    /// Takes `fd` away.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&self, fd: u64) -> Result<(), Errno> {
        let at = index(fd)?;
        let closed = self.slots.lock().get_mut(at).and_then(Option::take);
        closed.map(|closed| self.let_go([closed])).ok_or(Errno::EBADF)
    }

    /// Takes `fd` away, if it is still this file's.
    pub fn close_if(&self, fd: u64, file: &Arc<OpenFile>) {
        let Ok(at) = index(fd) else { return };
        let is_it = |slot: &mut Slot| Arc::ptr_eq(&slot.file, file);
        let mut slots = self.slots.lock();
        let closed = slots.get_mut(at).and_then(|slot| slot.take_if(is_it));
        drop(slots);
        self.let_go(closed);
    }

    /// Takes all descriptors from `first` to `last` away, or marks them to be closed at exec.
    pub fn close_range(&self, first: usize, last: usize, at_exec: bool) {
        let mut at = first;
        loop {
            let mut slots = self.slots.lock();
            let end = slots.len().min(last.saturating_add(1));
            let next = (at..end).find(|at| slots[*at].is_some());
            let Some(found) = next else { return };
            let closed = if at_exec {
                if let Some(slot) = &mut slots[found] {
                    slot.closes_on_exec = true;
                }
                None
            } else {
                slots[found].take()
            };
            drop(slots);
            self.let_go(closed);
            at = found + 1;
        }
    }

    /// Takes those away that are closed at exec.
    pub fn close_on_exec(&self) {
        let mut at = 0;
        loop {
            let mut slots = self.slots.lock();
            let closes = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.closes_on_exec);
            let next = slots.iter().skip(at).position(closes);
            let Some(found) = next.map(|offset| at + offset) else {
                return;
            };
            let closed = slots[found].take();
            drop(slots);
            self.let_go(closed);
            at = found + 1;
        }
    }

    /// Takes all away: the process ends.
    pub fn close_all(&self) {
        let all = core::mem::take(&mut *self.slots.lock());
        self.let_go(all.into_iter().flatten());
    }

    /// Whether `fd` is closed at exec.
    ///
    /// # Errors
    /// EBADF.
    pub fn closes_on_exec(&self, fd: u64) -> Result<bool, Errno> {
        let slots = self.slots.lock();
        let slot = slots.get(index(fd)?).and_then(Option::as_ref);
        slot.map(|slot| slot.closes_on_exec).ok_or(Errno::EBADF)
    }

    /// Says whether it is.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_closes_on_exec(&self, fd: u64, closes: bool) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(index(fd)?).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.closes_on_exec = closes;
        Ok(())
    }

    /// The numbers in use.
    pub fn list(&self) -> Vec<u64> {
        let slots = self.slots.lock();
        let used = slots.iter().enumerate().filter(|(_, slot)| slot.is_some());
        used.map(|(at, _)| at as u64).collect()
    }

    /// Numbers that there is room for without more memory, as `FDSize` in `/proc/PID/status` shows.
    pub fn size(&self) -> usize {
        self.slots.lock().len().next_multiple_of(64).max(64)
    }
}

/// Has slots up to number `at`.
fn make_place(slots: &mut Vec<Option<Slot>>, at: usize) -> Result<(), Errno> {
    if at >= slots.len() {
        let more = at + 1 - slots.len();
        reserve(slots, more).map_err(|_| Errno::ENOMEM)?;
        slots.resize(at + 1, None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::host::{Config, Running, SoftMachine};
    use crate::file::OpenFlags;
    use crate::file::dev::MemoryFile;

    fn file() -> Arc<OpenFile> {
        OpenFile::new(Arc::new(MemoryFile::Null), OpenFlags::RDWR)
    }

    fn machine() -> Running {
        SoftMachine::start(Config { memory: 1 << 20 })
    }

    #[test]
    fn the_lowest_free_number_is_given() {
        let _machine = machine();
        let table = Table::new();
        assert_eq!(table.install(file(), false), Ok(0));
        assert_eq!(table.install(file(), false), Ok(1));
        assert_eq!(table.install(file(), false), Ok(2));
        assert_eq!(table.close(1), Ok(()));
        assert_eq!(table.close(1), Err(Errno::EBADF));
        assert_eq!(table.install(file(), false), Ok(1));
        assert_eq!(table.install_from(10, file(), false), Ok(10));
        assert_eq!(table.install_from(2, file(), false), Ok(3));
    }

    #[test]
    fn a_number_that_another_file_has_by_now_stays_open() {
        let _machine = machine();
        let table = Table::new();
        let (first, second) = (file(), file());
        assert_eq!(table.install(Arc::clone(&first), false), Ok(0));
        assert_eq!(table.close(0), Ok(()));
        table.close_if(0, &first);
        assert_eq!(table.install(Arc::clone(&second), false), Ok(0));
        table.close_if(0, &first);
        assert!(table.get(0).is_ok_and(|file| Arc::ptr_eq(&file, &second)));
        table.close_if(0, &second);
        table.close_if(1, &second);
        assert!(table.list().is_empty());
    }

    #[test]
    fn numbers_end_at_the_limit() {
        let _machine = machine();
        let table = Table::new();
        table.set_limit(2);
        assert_eq!(table.install(file(), false), Ok(0));
        assert!(table.has_room());
        assert_eq!(table.install(file(), false), Ok(1));
        assert!(!table.has_room());
        assert_eq!(table.install(file(), false), Err(Errno::EMFILE));
        assert_eq!(table.install_from(2, file(), false), Err(Errno::EINVAL));
        assert_eq!(table.duplicate(0, 2, false), Err(Errno::EBADF));
    }

    #[test]
    fn a_number_is_an_int_and_negative_ones_are_never_open() {
        let _machine = machine();
        let table = Table::new();
        assert_eq!(table.install(file(), false), Ok(0));
        assert!(table.get(0xffff_ffff).is_err());
        assert!(table.get(0x1_0000_0000).is_ok(), "the upper half does not count");
    }

    #[test]
    fn duplicates_share_the_open_file_and_not_the_mark() {
        let _machine = machine();
        let table = Table::new();
        assert_eq!(table.install(file(), true), Ok(0));
        assert_eq!(table.duplicate(0, 5, false), Ok(5));
        let (first, second) = (table.get(0).unwrap(), table.get(5).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(table.closes_on_exec(0), Ok(true));
        assert_eq!(table.closes_on_exec(5), Ok(false));
        table.close_on_exec();
        assert_eq!(table.list(), [5]);
    }

    #[test]
    fn a_copy_has_the_same_files_and_its_own_numbers() {
        let _machine = machine();
        let table = Table::new();
        assert_eq!(table.install(file(), false), Ok(0));
        let copy = table.copy().unwrap();
        assert!(Arc::ptr_eq(&table.get(0).unwrap(), &copy.get(0).unwrap()));
        assert_eq!(copy.close(0), Ok(()));
        assert!(table.get(0).is_ok());
    }

    #[test]
    fn ranges_are_closed_or_marked() {
        let _machine = machine();
        let table = Table::new();
        (0..6).for_each(|fd| assert_eq!(table.install(file(), false), Ok(fd)));
        table.close_range(4, usize::MAX, false);
        table.close_range(1, 2, true);
        assert_eq!(table.list(), [0, 1, 2, 3]);
        table.close_on_exec();
        assert_eq!(table.list(), [0, 3]);
    }

    #[test]
    fn a_name_is_no_file() {
        let _machine = machine();
        let table = Table::new();
        let name = OpenFile::new(Arc::new(MemoryFile::Null), OpenFlags::PATH);
        assert_eq!(table.install(name, false), Ok(0));
        assert_eq!(table.get(0).err(), Some(Errno::EBADF));
        assert!(table.get_any(0).is_ok());
    }
}
