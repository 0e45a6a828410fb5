//! Changing entries while others do: how long the tables stay locked, and when a change is through.
//!
//! The contents of areas change with the areas locked shared, in **turns**: pieces of so many nodes at most, each under one
//! hold of the tables. Stretches without nodes are passed over, except where nodes shall be made.
//!
//! What a turn restricts is flushed after the tables are let go of. In between another operation may find an entry as it
//! wants it, change nothing, and have nothing to flush, while a CPU still goes by what the entry was. So a change that is
//! not flushed yet is **counted**, before the tables are let go of; who finds the count above zero flushes all of its turn,
//! whatever it changed (Linux: `tlb_flush_pending`). Not counted are
//!
//! * what changes with the areas locked exclusively, or is flushed with the tables locked: nobody comes in between;
//! * faults: they grant, or replace what could not be written.

use core::sync::atomic::Ordering;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::VirtAddr;
use crate::mm::pt::{Cursor, Entry, Flush, Level};
use crate::mm::range::VirtRange;

/// Bytes of a turn: eight nodes of base pages.
const TURN: u64 = 8 * Level::MID.size();

/// The turns of a part of an area, by address.
#[derive(Debug)]
pub(super) struct Turns<'a> {
    /// Where stretches without nodes are passed over.
    sparse: Option<&'a Space>,
    rest: VirtRange,
}

impl Iterator for Turns<'_> {
    type Item = VirtRange;

    #[inline]
    fn next(&mut self) -> Option<VirtRange> {
        while !self.rest.is_empty() {
            let VirtRange { start, end } = self.rest;
            let turn = VirtRange::new(start, (start.align_down(TURN) + TURN).min(end));
            // The last turn is looked at by whoever changes it.
            let empty = self.sparse.filter(|_| turn.end < end);
            let next = empty.and_then(|space| space.bare_until(start));
            self.rest.start = next.unwrap_or(turn.end).min(end);
            if next.is_none() {
                return Some(turn);
            }
        }
        None
    }
}

impl Space {
    /// The turns of `part` for a change of what is there. Where there is nothing at all, there are none.
    #[inline]
    pub(super) fn turns(&self, part: VirtRange) -> Turns<'_> {
        Turns {
            sparse: Some(self),
            rest: part,
        }
    }

    /// The turns of `part` for a change of all of its entries.
    #[inline]
    pub(super) fn turns_everywhere(part: VirtRange) -> Turns<'static> {
        Turns {
            sparse: None,
            rest: part,
        }
    }

    /// Has `change` go over entries of `range`, and flushes what it restricted. When this returns, no CPU goes by what the
    /// entries that it looked at were before, whoever has changed them.
    #[inline]
    pub(super) fn change<R>(
        &self,
        range: VirtRange,
        change: impl FnOnce(&mut Cursor<'_, Stage1>, &mut Flush<VirtAddr>) -> R,
    ) -> R {
        let mut flush = Flush::new();
        let mut table = self.table.lock();
        let result = change(&mut table.cursor(range), &mut flush);
        // What was flushed by now is: who lowers the count has flushed.
        let others = self.unflushed.load(Ordering::Acquire) != 0;
        let counts = !flush.is_empty();
        if counts {
            // The lock, which is let go of next, publishes it.
            self.unflushed.fetch_add(1, Ordering::Relaxed);
        }
        drop(table);
        if others {
            flush.cover(range);
        }
        flush.spend(self);
        if counts {
            self.unflushed.fetch_sub(1, Ordering::Release);
        }
        result
    }

    /// Where the stretch around `at` ends that has no node to look into; `None` where there is one.
    #[cold]
    fn bare_until(&self, at: VirtAddr) -> Option<VirtAddr> {
        let (entry, level) = self.table.lock().lookup(at);
        (entry == Entry::EMPTY && level > Level::MID).then(|| at.align_down(level.size()) + level.size())
    }
}
