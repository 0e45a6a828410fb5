//! Guard pages: addresses inside an area that nothing may touch, without an area of their own (Linux's
//! `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE`).
//!
//! A guard is a marker in the entry. It goes over whatever is there, and stays when contents are dropped, when memory moves
//! and when it is protected; removing it, unmapping, and a monitor's COPY take it away. No context is told of any of it.

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::VirtAddr;
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::Granule;
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::mm::pt::{Cursor, Entry, Flush, Level, Marker};
use crate::mm::range::VirtRange;
use crate::mm::vma::VmaFlags;

/// Nodes that are asked back when there is none: those of a turn, and of the way to it.
const NODES: u64 = 10;

/// Why guards were not put up or taken away, or not everywhere: areas before the one that is refused are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardError {
    /// The range is empty, not page-aligned, or outside what tasks may map (Linux: EINVAL, but an empty one is fine).
    BadRange,
    /// Part of the range is not mapped; everything around it was changed (ENOMEM).
    NotMapped,
    /// An area is locked: its pages stay (EINVAL).
    Locked,
    /// The memory is in large pages (EINVAL).
    LargePages,
    /// No frame for a node of the tables (ENOMEM).
    OutOfMemory,
}

impl From<OutOfFrames> for GuardError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfMemory
    }
}

impl Space {
    /// Has every access to `range` fail with [`FaultError::Guard`](crate::mm::fault::FaultError::Guard). What is mapped
    /// there is dropped, and markers of other kinds are overwritten; those of an object's write protection too, over which
    /// Linux 6.18 never comes to an end.
    ///
    /// No lock may be held: when there is no frame for a node, everything is let go of, and the areas are looked up again
    /// from there on.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub fn install_guards(&self, range: VirtRange) -> Result<(), GuardError> {
        let (mut from, mut reliefs) = (range.start, 0);
        loop {
            let result = self.each_guardable(range, from, false, |part| {
                Ok(self.install_guards_in(part, &mut from)?)
            });
            let short = result == Err(GuardError::OutOfMemory);
            if !short || reliefs == MAX_RELIEFS || !pressure::relieve(NODES) {
                return result;
            }
            reliefs += 1;
        }
    }

    /// Takes the guards of `range` away; everything else stays.
    ///
    /// # Errors
    /// See [`GuardError`]; locked memory is fine.
    pub fn remove_guards(&self, range: VirtRange) -> Result<(), GuardError> {
        let guarded = Entry::Absent(Marker::Guard);
        self.each_guardable(range, range.start, true, |part| {
            for turn in self.turns(part) {
                self.change(turn, |cursor, flush| {
                    cursor.transform(flush, |seen| (seen.entry == guarded).then_some(Entry::EMPTY));
                });
            }
            Ok(())
        })
    }

    /// Calls `change` for the part of each area in `range` from `from` on, before which everything is done.
    fn each_guardable(
        &self,
        range: VirtRange,
        from: VirtAddr,
        removes: bool,
        mut change: impl FnMut(VirtRange) -> Result<(), GuardError>,
    ) -> Result<(), GuardError> {
        if !Self::is_nameable(range) {
            return Err(GuardError::BadRange);
        }
        let vmas = self.vmas.read();
        let rest = VirtRange::new(from, range.end);
        for vma in vmas.overlapping(rest) {
            if vma.ty.granule() != Granule::Base {
                return Err(GuardError::LargePages);
            }
            if vma.flags.contains(VmaFlags::LOCKED) && !removes {
                return Err(GuardError::Locked);
            }
            if !removes && vma.anon.is_unset() {
                // A fork copies them, like pages.
                vmas.give_own_pages(vma);
            }
            let part = vma.range.intersect(&rest).expect("it overlaps");
            change(part)?;
        }
        if vmas.mapped_in(range) == range.len() {
            Ok(())
        } else {
            Err(GuardError::NotMapped)
        }
    }

    /// Says how far it came.
    fn install_guards_in(&self, part: VirtRange, done: &mut VirtAddr) -> Result<(), OutOfFrames> {
        for turn in Self::turns_everywhere(part) {
            *done = turn.start;
            while *done < turn.end {
                self.change(VirtRange::new(*done, turn.end), |cursor, flush| {
                    let marked = guard_pages(cursor, flush);
                    *done = cursor.addr();
                    marked
                })?;
            }
        }
        Ok(())
    }
}

/// Puts guards up from the cursor on, until the flush is full.
fn guard_pages(cursor: &mut Cursor<'_, Stage1>, flush: &mut Flush<VirtAddr>) -> Result<(), OutOfFrames> {
    while !cursor.is_done() && !flush.is_full() {
        if cursor.entry().0.is_leaf() {
            cursor.take(Marker::Guard, flush);
        } else {
            cursor.mark(Level::PAGE, Marker::Guard)?;
        }
        cursor.advance(Level::PAGE);
    }
    Ok(())
}
