//! Locks as `/proc/locks` and `/proc/PID/fdinfo` show them.

use alloc::vec::Vec;
use core::fmt;

use super::{InLine, Key, Kind, LOCKS, Lock, Locked, Owner, Range, Sort};
use crate::abi::errno::Errno;
use crate::file::OpenFile;
use crate::mm::reserve::reserve;

/// A lock that somebody has, or waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Whether somebody waits for it, whom the one before it is in the way of that nobody waits for.
    pub waits: bool,
    key: Key,
    sort: Sort,
    lock: Lock,
}

impl fmt::Display for Shown {
    /// As Linux writes it, without the number before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sort, pid) = match (self.sort, self.lock.owner) {
            (Sort::Whole, _) => ("FLOCK ", i64::from(self.lock.pid)),
            (Sort::Record, Owner::Table(_)) => ("POSIX ", i64::from(self.lock.pid)),
            (Sort::Record, Owner::Description(_)) => ("OFDLCK", -1),
        };
        let kind = match self.lock.kind {
            Kind::Read => "READ",
            Kind::Write => "WRITE",
        };
        let (device, range) = (self.key.device(), self.lock.range);
        write!(
            f,
            "{sort} ADVISORY  {kind} {pid} {:02x}:{:02x}:{} {} ",
            device.major, device.minor, self.key.ino, range.first
        )?;
        match range.last {
            Range::END => f.write_str("EOF"),
            last => write!(f, "{last}"),
        }
    }
}

impl Locked {
    /// Its locks, `flock`'s first.
    fn shown(&self) -> impl Iterator<Item = Shown> {
        [Sort::Whole, Sort::Record].into_iter().flat_map(move |sort| {
            self.list(sort).all().iter().map(move |lock| Shown {
                waits: false,
                key: self.key,
                sort,
                lock: *lock,
            })
        })
    }
}

/// All locks, each with those who wait for it behind it.
///
/// # Errors
/// ENOMEM.
pub fn all() -> Result<Vec<Shown>, Errno> {
    let (mut shown, mut waiting) = (Vec::new(), Vec::new());
    {
        let locks = LOCKS.lock();
        reserve(&mut shown, locks.count + locks.line.len()).map_err(|_| Errno::ENOMEM)?;
        reserve(&mut waiting, locks.line.len()).map_err(|_| Errno::ENOMEM)?;
        shown.extend(locks.files.iter().flat_map(Locked::shown));
        for InLine { waiter, .. } in &locks.line {
            let obstacle = locks.obstacle(waiter.key, waiter.sort, &waiter.wanted);
            let lock = Shown {
                waits: true,
                key: waiter.key,
                sort: waiter.sort,
                lock: waiter.wanted,
            };
            waiting.extend(obstacle.map(|obstacle| (obstacle, lock)));
        }
    }
    for (obstacle, waiter) in waiting {
        let is_it = |shown: &Shown| {
            let same = (shown.key, shown.sort) == (waiter.key, waiter.sort);
            same && !shown.waits && shown.lock == obstacle
        };
        if let Some(at) = shown.iter().position(is_it) {
            let others = shown[at + 1..].iter().take_while(|shown| shown.waits);
            let behind = at + 1 + others.count();
            shown.insert(behind, waiter);
        }
    }
    Ok(shown)
}

/// The locks that were taken through `open`, by a table of descriptors or by itself.
///
/// # Errors
/// ENOMEM.
pub fn through(open: &OpenFile, table: Owner) -> Result<Vec<Shown>, Errno> {
    let key = Key::of(open);
    let description = super::description(open);
    let mut shown = Vec::new();
    let locks = LOCKS.lock();
    let Some(file) = locks.get(key) else {
        return Ok(shown);
    };
    reserve(&mut shown, file.count()).map_err(|_| Errno::ENOMEM)?;
    let is_meant = |shown: &Shown| {
        let by = [table, Owner::Description(description)];
        shown.lock.description == description && by.contains(&shown.lock.owner)
    };
    shown.extend(file.shown().filter(is_meant));
    Ok(shown)
}
