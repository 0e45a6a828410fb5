//! Locks on files: `fcntl`'s record locks and `flock`'s. They bind those who ask for locks, and nobody else.
//!
//! | sort | owner | gone with |
//! | --- | --- | --- |
//! | POSIX record locks | the table of descriptors | any of the table's descriptors of the file |
//! | record locks of an open file description (OFD) | that | its last descriptor |
//! | `flock` | that | its last descriptor |
//!
//! Record locks of both sorts are in each other's way; `flock`'s are in the way of `flock`'s only. A file is what `fstat` shows it
//! to be, so several opens of it meet, by whatever name.
//!
//! ```text
//!   Registry ── Locked { key, records: List, whole: List }     files with locks, by key
//!          └─── line: InLine { waiter, behind }, ...           who waits, for locks of all files, as they came
//! ```
//!
//! Whoever gives a lock up goes along the line, and gives those who can have theirs now the lock before it wakes them: who came
//! first is served first, and nobody who comes later can be quicker. The line is no obstacle itself: a lock that is free is
//! given at once, as on Linux. A waiter is in the line as long as its lock has an obstacle.
//!
//! Lock order: `LOCKS`, then the queue of a waiter. Tables and open file descriptions only remember that they may have locks, so
//! that closing others costs nothing.

mod list;
mod shown;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

pub use list::{Kind, Lock, Owner, Range};
pub use shown::{Shown, all, through};

use super::{OpenFile, signals};
use crate::abi::errno::Errno;
use crate::abi::stat::DeviceNumber;
use crate::mm::reserve::reserve;
use crate::sync::SpinLock;
use crate::syscall::{Error, Restart};
use crate::task::{WaitQueue, WaitReason};
use list::{Full, List};

static A_LOCK: WaitReason = WaitReason::new("a lock on a file");

/// Most files that can have locks at a time.
const MOST_FILES: usize = 16384;
/// Most locks that there can be.
const MOST: usize = 65536;
/// Owners that are looked at for a circle, as on Linux.
const LONGEST_CIRCLE: usize = 11;

/// Whose locks are in whose way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// `fcntl`'s.
    Record,
    /// `flock`'s.
    Whole,
}

/// Which file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    device: u64,
    ino: u64,
}

impl Key {
    fn of(open: &OpenFile) -> Self {
        let stat = open.stat();
        Self {
            device: stat.dev.word(),
            ino: stat.ino,
        }
    }

    fn device(self) -> DeviceNumber {
        DeviceNumber::from_word(self.device)
    }
}

/// A file with locks.
#[derive(Debug)]
struct Locked {
    key: Key,
    records: List,
    whole: List,
}

impl Locked {
    fn list(&self, sort: Sort) -> &List {
        match sort {
            Sort::Record => &self.records,
            Sort::Whole => &self.whole,
        }
    }

    fn list_mut(&mut self, sort: Sort) -> &mut List {
        match sort {
            Sort::Record => &mut self.records,
            Sort::Whole => &mut self.whole,
        }
    }

    fn count(&self) -> usize {
        self.records.all().len() + self.whole.all().len()
    }
}

/// What becomes of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Outcome {
    Waits,
    Given,
    /// It would wait for itself.
    Circle,
    NoRoom,
}

impl Outcome {
    fn result(self) -> Result<(), Errno> {
        match self {
            Self::Waits => Err(Errno::EAGAIN),
            Self::Given => Ok(()),
            Self::Circle => Err(Errno::EDEADLK),
            Self::NoRoom => Err(Errno::ENOLCK),
        }
    }
}

/// Somebody who waits for a lock.
#[derive(Debug)]
struct Waiter {
    key: Key,
    sort: Sort,
    wanted: Lock,
    /// An [`Outcome`]; it changes once, under `LOCKS`.
    outcome: AtomicU8,
    told: WaitQueue,
}

impl Waiter {
    fn outcome(&self) -> Option<Outcome> {
        const OUTCOMES: [Outcome; 3] = [Outcome::Given, Outcome::Circle, Outcome::NoRoom];
        let number = self.outcome.load(Ordering::Acquire);
        OUTCOMES.into_iter().find(|outcome| *outcome as u8 == number)
    }

    fn tell(&self, outcome: Outcome) {
        self.outcome.store(outcome as u8, Ordering::Release);
        self.told.wake_all();
    }
}

/// All locks there are.
#[derive(Debug)]
struct Registry {
    /// By key; none without locks.
    files: Vec<Locked>,
    /// Locks of all of them.
    count: usize,
    /// Who waits, as they came.
    line: Vec<InLine>,
}

/// A place in the line.
#[derive(Clone, Debug)]
struct InLine {
    waiter: Arc<Waiter>,
    /// Whose lock was in the way when that was looked at last. While it stays the same one, no circle can have come of it.
    behind: Owner,
}

static LOCKS: SpinLock<Registry> = SpinLock::new(Registry {
    files: Vec::new(),
    count: 0,
    line: Vec::new(),
});

impl Registry {
    fn find(&self, key: Key) -> Result<usize, usize> {
        self.files.binary_search_by_key(&key, |file| file.key)
    }

    fn get(&self, key: Key) -> Option<&Locked> {
        self.find(key).ok().map(|at| &self.files[at])
    }

    /// Changes a file's locks, and keeps the books.
    fn change<R>(&mut self, key: Key, change: impl FnOnce(&mut Locked) -> R) -> Option<R> {
        let at = self.find(key).ok()?;
        let file = &mut self.files[at];
        let before = file.count();
        let answer = change(file);
        let after = file.count();
        self.count = self.count - before + after;
        if after == 0 {
            self.files.remove(at);
        }
        Some(answer)
    }

    fn obstacle(&self, key: Key, sort: Sort, wanted: &Lock) -> Option<Lock> {
        self.get(key)?.list(sort).obstacle(wanted).copied()
    }

    /// Gives a lock that has no obstacle.
    fn give(&mut self, key: Key, sort: Sort, lock: Lock) -> Result<(), Full> {
        let room = MOST.saturating_sub(self.count);
        if let Err(at) = self.find(key) {
            if room == 0 || self.files.len() == MOST_FILES {
                return Err(Full);
            }
            reserve(&mut self.files, 1).map_err(|_| Full)?;
            let fresh = Locked {
                key,
                records: List::default(),
                whole: List::default(),
            };
            self.files.insert(at, fresh);
        }
        let set = |file: &mut Locked| file.list_mut(sort).set(lock, room);
        self.change(key, set).unwrap_or(Err(Full))
    }

    /// Gives `wanted` unless it has an obstacle, which comes back then.
    fn attempt(&mut self, key: Key, sort: Sort, wanted: &Lock) -> Result<Outcome, Lock> {
        match self.obstacle(key, sort, wanted) {
            None => Ok(match self.give(key, sort, *wanted) {
                Ok(()) => Outcome::Given,
                Err(Full) => Outcome::NoRoom,
            }),
            Some(obstacle) => Err(obstacle),
        }
    }

    /// Has somebody stand at the end of the line, unless it would wait for itself.
    fn stand(&mut self, key: Key, sort: Sort, wanted: Lock, obstacle: &Lock) -> Result<Arc<Waiter>, Errno> {
        if sort == Sort::Record && self.is_circle(wanted.owner, obstacle.owner) {
            return Err(Errno::EDEADLK);
        }
        reserve(&mut self.line, 1).map_err(|_| Errno::ENOLCK)?;
        let waiter = Arc::new(Waiter {
            key,
            sort,
            wanted,
            outcome: AtomicU8::new(Outcome::Waits as u8),
            told: WaitQueue::new(&A_LOCK),
        });
        self.line.push(InLine {
            waiter: Arc::clone(&waiter),
            behind: obstacle.owner,
        });
        Ok(waiter)
    }

    /// Whether the owner of an obstacle waits, by others or not, for `owner`. Open file descriptions wait for nobody: whoever uses
    /// them can let go of them while another waits.
    fn is_circle(&self, owner: Owner, obstacle: Owner) -> bool {
        let mut last = obstacle;
        for _ in 0..LONGEST_CIRCLE {
            if !matches!((owner, last), (Owner::Table(_), Owner::Table(_))) {
                return false;
            }
            let mut waiters = self.line.iter().map(|place| &place.waiter);
            let waiter = waiters.find(|waiter| waiter.sort == Sort::Record && waiter.wanted.owner == last);
            let next = waiter.and_then(|waiter| self.obstacle(waiter.key, waiter.sort, &waiter.wanted));
            match next {
                Some(next) if next.owner == owner => return true,
                Some(next) => last = next.owner,
                None => return false,
            }
        }
        false
    }

    /// Something was given up: goes along the line. A lock that is given may take the place of one that was in somebody's way, so
    /// that is done until nothing changes.
    fn serve(&mut self, key: Key) {
        let mut goes_on = true;
        while goes_on {
            goes_on = false;
            let mut at = 0;
            while let Some(InLine { waiter, behind }) = self.line.get(at).cloned() {
                at += 1;
                if waiter.key != key {
                    continue;
                }
                let outcome = match self.attempt(key, waiter.sort, &waiter.wanted) {
                    Ok(outcome) => outcome,
                    Err(obstacle) if obstacle.owner == behind => continue,
                    Err(obstacle) => {
                        self.line[at - 1].behind = obstacle.owner;
                        let owner = waiter.wanted.owner;
                        if waiter.sort == Sort::Whole || !self.is_circle(owner, obstacle.owner) {
                            continue;
                        }
                        Outcome::Circle
                    }
                };
                at -= 1;
                self.line.remove(at);
                waiter.tell(outcome);
                goes_on = true;
            }
        }
    }

    /// Takes all that `owner` has of a file.
    fn forget(&mut self, key: Key, owner: Owner) {
        let forget = |file: &mut Locked| file.records.forget(owner) | file.whole.forget(owner);
        if self.change(key, forget) == Some(true) {
            self.serve(key);
        }
    }
}

/// The open file description, as locks have it.
pub fn description(open: &OpenFile) -> usize {
    ptr::from_ref(open).addr()
}

/// Takes `wanted` on `open`'s file; if it `waits`, when nobody has a lock in its way any more. The owner knows that it may have
/// locks. A `flock` of another kind that it had is given up before.
///
/// # Errors
/// EAGAIN: somebody has, and it is not to wait. EDEADLK: it would wait for itself. ENOLCK: there are too many.
/// A signal: [`Restart::IfAsked`].
pub fn lock(open: &OpenFile, sort: Sort, wanted: Lock, waits: bool) -> Result<(), Error> {
    let key = Key::of(open);
    let waiter = {
        let mut locks = LOCKS.lock();
        let had = locks
            .get(key)
            .and_then(|file| file.list(sort).own(wanted.owner, wanted.range))
            .copied();
        if sort == Sort::Whole && had.is_some_and(|had| had.kind != wanted.kind) {
            locks.change(key, |file| file.whole.forget(wanted.owner));
        }
        let outcome = match locks.attempt(key, sort, &wanted) {
            Ok(outcome) => outcome.result().map(|()| None),
            Err(obstacle) if waits => locks.stand(key, sort, wanted, &obstacle).map(Some),
            Err(_) => Err(Errno::EAGAIN),
        };
        // What it had may have been in others' way.
        if had.is_some() {
            locks.serve(key);
        }
        match outcome? {
            Some(waiter) => waiter,
            None => return Ok(()),
        }
    };
    let ends = || match waiter.outcome() {
        Some(outcome) => Some(Some(outcome)),
        None => signals::is_pending().then_some(None),
    };
    if let Some(outcome) = waiter.told.wait_until(ends) {
        return Ok(outcome.result()?);
    }
    let mut locks = LOCKS.lock();
    // It may have been told at the last moment.
    if let Some(outcome) = waiter.outcome() {
        return Ok(outcome.result()?);
    }
    locks.line.retain(|place| !Arc::ptr_eq(&place.waiter, &waiter));
    Err(Restart::IfAsked.into())
}

/// Takes away what `owner` has of `range` of `open`'s file.
///
/// # Errors
/// ENOLCK: a lock is to become two, and there are too many.
pub fn unlock(open: &OpenFile, sort: Sort, owner: Owner, range: Range) -> Result<(), Errno> {
    let key = Key::of(open);
    let mut locks = LOCKS.lock();
    let room = MOST.saturating_sub(locks.count);
    match locks.change(key, |file| file.list_mut(sort).clear(owner, range, room)) {
        Some(Err(Full)) => Err(Errno::ENOLCK),
        Some(Ok(())) => {
            locks.serve(key);
            Ok(())
        }
        None => Ok(()),
    }
}

/// The first record lock that is in the way of `wanted` on `open`'s file.
pub fn obstacle(open: &OpenFile, wanted: &Lock) -> Option<Lock> {
    let key = Key::of(open);
    LOCKS.lock().obstacle(key, Sort::Record, wanted)
}

/// The first record lock that `owner` has in `range` of `open`'s file.
pub fn own(open: &OpenFile, owner: Owner, range: Range) -> Option<Lock> {
    let key = Key::of(open);
    LOCKS.lock().get(key)?.records.own(owner, range).copied()
}

/// `owner` has no locks on `open`'s file any more: the descriptor, or the description, is gone.
#[cold]
pub fn forget(open: &OpenFile, owner: Owner) {
    let key = Key::of(open);
    LOCKS.lock().forget(key, owner);
}
