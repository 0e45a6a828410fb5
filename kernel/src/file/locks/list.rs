//! The locks of one sort that a file has.
//!
//! An owner's locks do not overlap, those of one kind that touch are one, and they stand together, by their first byte; owners
//! stand as they came. So a lock that is asked for replaces what its owner had of the same bytes, and nothing else.

use alloc::vec::Vec;

use crate::abi::errno::Errno;
use crate::mm::reserve::reserve;

/// Most locks of one sort that a file can have.
const MOST: usize = 4096;

/// What others may do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Read (`F_RDLCK`, `LOCK_SH`).
    Read,
    /// Nothing (`F_WRLCK`, `LOCK_EX`).
    Write,
}

/// Some bytes of a file: the first and the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// The last; [`Range::END`] for all that may ever come.
    pub last: u64,
}

impl Range {
    /// Number of the last byte that a file can have.
    pub const END: u64 = i64::MAX as u64;
    /// The whole file.
    pub const ALL: Self = Self {
        first: 0,
        last: Self::END,
    };

    /// `len` bytes from `start` on, which counts from `base`; no length: all the rest; a negative one: those before `start`.
    ///
    /// # Errors
    /// EOVERFLOW: it goes beyond the last byte that there can be. EINVAL: it begins before the first.
    pub fn new(base: u64, start: i64, len: i64) -> Result<Self, Errno> {
        let start = (base as i64).checked_add(start).ok_or(Errno::EOVERFLOW)?;
        if start < 0 {
            return Err(Errno::EINVAL);
        }
        let (first, last) = match len {
            0 => (start, i64::MAX),
            1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
            _ => (start + len, start - 1),
        };
        Ok(Self {
            first: u64::try_from(first).map_err(|_| Errno::EINVAL)?,
            last: last as u64,
        })
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the two are one.
    fn touches(self, other: Self) -> bool {
        self.first <= other.last + 1 && other.first <= self.last + 1
    }
}

/// Who has a lock: an address that stays as long as the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// All who share a table of descriptors.
    Table(usize),
    /// All who share an open file description.
    Description(usize),
}

/// A lock that somebody has, or wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Who.
    pub owner: Owner,
    /// The open file description through which.
    pub description: usize,
    /// The number of the process that asked for it.
    pub pid: u32,
    /// What others may do.
    pub kind: Kind,
    /// To which bytes.
    pub range: Range,
}

impl Lock {
    /// Whether nobody can have the one while somebody has the other.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner
            && (self.kind == Kind::Write || other.kind == Kind::Write)
            && self.range.overlaps(other.range)
    }
}

/// There is no room for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Locks of one sort.
#[derive(Default, Debug)]
pub struct List(Vec<Lock>);

impl List {
    /// All of them.
    pub fn all(&self) -> &[Lock] {
        &self.0
    }

    /// The first that is in the way of `wanted`.
    pub fn obstacle(&self, wanted: &Lock) -> Option<&Lock> {
        self.0.iter().find(|lock| lock.conflicts(wanted))
    }

    /// The first of `owner`'s with a byte of `range`.
    pub fn own(&self, owner: Owner, range: Range) -> Option<&Lock> {
        self.0
            .iter()
            .find(|lock| lock.owner == owner && lock.range.overlaps(range))
    }

    /// Gives `lock`, which has no obstacle, to its owner, if that takes no more than `room` locks.
    ///
    /// # Errors
    /// [`Full`]: nothing was changed.
    pub fn set(&mut self, lock: Lock, room: usize) -> Result<(), Full> {
        self.change(lock.owner, lock.range, Some(lock), room)
    }

    /// Takes what `owner` has of `range`.
    ///
    /// # Errors
    /// [`Full`]: a lock is to become two, and there is no room; nothing was changed.
    pub fn clear(&mut self, owner: Owner, range: Range, room: usize) -> Result<(), Full> {
        self.change(owner, range, None, room)
    }

    /// Takes all that `owner` has; says whether that was anything.
    pub fn forget(&mut self, owner: Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|lock| lock.owner != owner);
        self.0.len() < before
    }

    fn change(&mut self, owner: Owner, range: Range, new: Option<Lock>, room: usize) -> Result<(), Full> {
        let differs = |old: &Lock| new.is_none_or(|new| new.kind != old.kind);
        let splits = |old: &Lock| {
            old.owner == owner && differs(old) && old.range.first < range.first && old.range.last > range.last
        };
        let more = usize::from(new.is_some()) + usize::from(self.0.iter().any(splits));
        if more > room.min(MOST.saturating_sub(self.0.len())) {
            return Err(Full);
        }
        reserve(&mut self.0, more).map_err(|_| Full)?;
        let is_own = |lock: &Lock| lock.owner == owner;
        let group = self.0.iter().position(is_own).unwrap_or(self.0.len());
        let (mut new, mut joined, mut behind) = (new, false, None);
        self.0.retain_mut(|old| {
            if old.owner != owner {
                return true;
            }
            if let Some(new) = &mut new
                && new.kind == old.kind
            {
                if !new.range.touches(old.range) {
                    return true;
                }
                let whole = Range {
                    first: new.range.first.min(old.range.first),
                    last: new.range.last.max(old.range.last),
                };
                // The one that was there first grows, so that it stays whose it was.
                if !joined {
                    *new = *old;
                    joined = true;
                }
                new.range = whole;
                return false;
            }
            if !old.range.overlaps(range) {
                return true;
            }
            let mut rest = *old;
            rest.range.first = range.last.wrapping_add(1);
            let has_rest = old.range.last > range.last;
            if old.range.first < range.first {
                old.range.last = range.first - 1;
                behind = has_rest.then_some(rest);
                true
            } else {
                *old = rest;
                has_rest
            }
        });
        let from = new.map_or(range.first, |new| new.range.first);
        let before = |lock: &&Lock| is_own(lock) && lock.range.first < from;
        let at = group + self.0[group..].iter().take_while(before).count();
        // There is room for both.
        if let Some(rest) = behind {
            self.0.insert(at, rest);
        }
        if let Some(new) = new {
            self.0.insert(at, new);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::host::{Config, SoftMachine};
    use proptest::prelude::*;

    const ME: Owner = Owner::Table(1);
    const YOU: Owner = Owner::Table(2);

    fn range(first: u64, last: u64) -> Range {
        Range { first, last }
    }

    fn lock(owner: Owner, kind: Kind, first: u64, last: u64) -> Lock {
        Lock {
            owner,
            description: 0,
            pid: 1,
            kind,
            range: range(first, last),
        }
    }

    fn shown(list: &List, owner: Owner) -> Vec<(Kind, u64, u64)> {
        let own = list.all().iter().filter(|lock| lock.owner == owner);
        own.map(|lock| (lock.kind, lock.range.first, lock.range.last))
            .collect()
    }

    #[test]
    fn ranges_are_counted_as_linux_does() {
        let max = i64::MAX;
        assert_eq!(Range::new(0, 5, 0), Ok(range(5, Range::END)));
        assert_eq!(Range::new(10, 5, 1), Ok(range(15, 15)));
        assert_eq!(Range::new(0, 5, -5), Ok(range(0, 4)));
        assert_eq!(Range::new(0, 5, -6), Err(Errno::EINVAL));
        assert_eq!(Range::new(0, 0, -1), Err(Errno::EINVAL));
        assert_eq!(Range::new(0, max, 1), Ok(range(Range::END, Range::END)));
        assert_eq!(Range::new(0, max, 2), Err(Errno::EOVERFLOW));
        assert_eq!(Range::new(1, max, 1), Err(Errno::EOVERFLOW));
        assert_eq!(Range::new(0, -1, max), Err(Errno::EINVAL));
        assert_eq!(Range::new(0, i64::MIN, -1), Err(Errno::EINVAL));
        assert_eq!(Range::new(0, max, i64::MIN), Err(Errno::EINVAL));
    }

    #[test]
    fn locks_of_a_kind_that_touch_become_one() {
        let _machine = SoftMachine::start(Config { memory: 1 << 20 });
        let mut list = List::default();
        assert_eq!(list.set(lock(ME, Kind::Read, 0, 9), MOST), Ok(()));
        assert_eq!(list.set(lock(ME, Kind::Read, 20, 29), MOST), Ok(()));
        assert_eq!(list.set(lock(ME, Kind::Read, 40, 49), MOST), Ok(()));
        assert_eq!(list.set(lock(ME, Kind::Read, 10, 19), MOST), Ok(()));
        assert_eq!(shown(&list, ME), [(Kind::Read, 0, 29), (Kind::Read, 40, 49)]);
    }

    #[test]
    fn one_in_the_middle_of_another_kind_splits_it() {
        let _machine = SoftMachine::start(Config { memory: 1 << 20 });
        let mut list = List::default();
        assert_eq!(list.set(lock(ME, Kind::Write, 0, Range::END), MOST), Ok(()));
        assert_eq!(list.set(lock(YOU, Kind::Read, 3, 4), MOST), Ok(()));
        assert_eq!(list.set(lock(ME, Kind::Read, 10, 19), MOST), Ok(()));
        assert_eq!(list.clear(ME, range(14, 14), MOST), Ok(()));
        let parts = [
            (Kind::Write, 0, 9),
            (Kind::Read, 10, 13),
            (Kind::Read, 15, 19),
            (Kind::Write, 20, Range::END),
        ];
        assert_eq!(shown(&list, ME), parts);
        assert_eq!(shown(&list, YOU), [(Kind::Read, 3, 4)], "others keep theirs");
    }

    #[test]
    fn a_list_is_full_some_time_and_unlocks_all_the_same() {
        let _machine = SoftMachine::start(Config { memory: 4 << 20 });
        let mut list = List::default();
        for at in 0..MOST as u64 {
            assert_eq!(list.set(lock(ME, Kind::Read, 2 * at, 2 * at), MOST), Ok(()));
        }
        assert_eq!(list.set(lock(YOU, Kind::Read, 0, 0), MOST), Err(Full));
        assert_eq!(list.clear(ME, range(0, 7), MOST), Ok(()));
        assert_eq!(list.set(lock(YOU, Kind::Read, 0, 0), MOST), Ok(()));
        assert!(list.forget(ME));
        assert!(!list.forget(ME));
        assert_eq!(list.all().len(), 1);
    }

    proptest! {
        /// Byte by byte an owner has what it asked for last, in as few locks as can be, and others keep theirs.
        #[test]
        fn bytes_have_the_kind_that_was_asked_for_last(
            steps in prop::collection::vec((any::<bool>(), 0u64..24, 0u64..8, 0u8..3), 1..40)
        ) {
            let _machine = SoftMachine::start(Config { memory: 1 << 20 });
            let mut list = List::default();
            let mut bytes = [[None; 32]; 2];
            for (me, first, more, kind) in steps {
                let (owner, which) = if me { (ME, 0) } else { (YOU, 1) };
                let last = first + more;
                let kind = [None, Some(Kind::Read), Some(Kind::Write)][usize::from(kind)];
                let done = match kind {
                    Some(kind) => list.set(lock(owner, kind, first, last), MOST),
                    None => list.clear(owner, range(first, last), MOST),
                };
                prop_assert_eq!(done, Ok(()));
                bytes[which][first as usize..=last as usize].fill(kind);
                for (owner, bytes) in [(ME, &bytes[0]), (YOU, &bytes[1])] {
                    let mut pieces = Vec::new();
                    for (at, kind) in (0u64..).zip(bytes) {
                        let Some(kind) = *kind else { continue };
                        match pieces.last_mut() {
                            Some((before, _, last)) if *before == kind && *last + 1 == at => *last = at,
                            _ => pieces.push((kind, at, at)),
                        }
                    }
                    prop_assert_eq!(shown(&list, owner), pieces);
                }
                let turns = list.all().chunk_by(|a, b| a.owner == b.owner).count();
                prop_assert!(turns <= 2, "an owner's locks stand together");
            }
        }
    }
}
