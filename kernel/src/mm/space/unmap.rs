//! Taking mappings away.

use alloc::collections::TryReserveError;

use super::Space;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::pt::{Flush, Progress};
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, VmaSet};
use crate::uffd::{Changes, Event, Features};

/// Why nothing was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapError {
    /// The range is empty, not page-aligned, or outside what tasks may map.
    BadRange,
    /// An end of the range lies inside a large page (Linux: EINVAL).
    SplitsPage,
    /// Splitting areas would leave too many of them.
    TooManyAreas,
    /// No kernel memory to note who is to be told.
    OutOfMemory,
}

impl From<TooManyVmas> for UnmapError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl From<TryReserveError> for UnmapError {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

impl Space {
    /// Removes whatever is mapped in `range`; holes are fine. A task that waits for a page there stays asleep until it is
    /// woken, and then finds nothing mapped.
    ///
    /// Returns when every context with [`Features::EVENT_UNMAP`] that had memory registered in `range` has been told, once
    /// and about all of `range` (as on Linux): the mappings are gone by then.
    ///
    /// # Errors
    /// See [`UnmapError`].
    ///
    /// # Panics
    /// There is somebody to tell, and a lock is held.
    pub fn unmap(&self, range: VirtRange) -> Result<(), UnmapError> {
        if !Self::is_nameable(range) {
            return Err(UnmapError::BadRange);
        }
        let changes = self.take_out(&mut self.vmas.write(), range)?;
        changes.announce(|| Event::Unmap { range });
        Ok(())
    }

    /// Removes whatever is mapped in `range` from `vmas`, the space's own, locked exclusively by the caller. Once they are
    /// unlocked, it announces what this returns.
    ///
    /// # Errors
    /// See [`UnmapError`]; nothing changed then.
    pub(super) fn take_out(&self, vmas: &mut VmaSet, range: VirtRange) -> Result<Changes, UnmapError> {
        if !vmas.can_split_at_ends_of(range) {
            return Err(UnmapError::SplitsPage);
        }
        let changes = begin_unmap(vmas, range)?;
        self.take_down(vmas, range)?;
        Ok(changes)
    }

    /// Removes the areas of `range`, everything that is mapped there, and the nodes. Its ends cut no page.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    pub(super) fn take_down(&self, vmas: &mut VmaSet, range: VirtRange) -> Result<(), TooManyVmas> {
        vmas.remove(range, |vma| vma.unreserve())?;
        // The areas are locked exclusively: nobody fills or faults here while nodes go away.
        self.clear(range);
        Ok(())
    }

    /// The same where the areas go on elsewhere, with what they were promised.
    ///
    /// # Errors
    /// As for [`Self::take_down`].
    pub(super) fn take_down_moved(&self, vmas: &mut VmaSet, range: VirtRange) -> Result<(), TooManyVmas> {
        vmas.remove(range, drop)?;
        self.clear(range);
        Ok(())
    }

    /// Frees the nodes at both ends of `range` unless they are used beside it: small areas that come and go leave nothing
    /// behind. Under exclusive `vmas`.
    fn prune_ends(&self, range: VirtRange) {
        let mut flush = Flush::new();
        let mut table = self.table.lock();
        for end in [range.start, range.end - PAGE_SIZE] {
            table.cursor_at(end).prune(&mut flush);
        }
        drop(table);
        flush.spend(self);
    }

    /// Clears the entries of `range`, a batch at a time, and frees its nodes. Under exclusive `vmas`; no area reaches over an
    /// end of the range, and so no leaf does.
    pub(super) fn clear(&self, range: VirtRange) {
        let mut at = range.start;
        loop {
            let mut flush = Flush::new();
            let mut table = self.table.lock();
            let mut cursor = table.cursor(range);
            cursor.resume_unmap(at);
            let progress = cursor.unmap(true, &mut flush);
            at = cursor.addr();
            drop(table);
            flush.spend(self);
            if progress.expect("no leaf reaches beyond its area") == Progress::Done {
                break;
            }
        }
        self.prune_ends(range);
    }
}

/// What unmapping `range` changes for the contexts that are to be told. The areas are locked exclusively.
///
/// # Errors
/// No kernel memory.
pub(super) fn begin_unmap(vmas: &VmaSet, range: VirtRange) -> Result<Changes, TryReserveError> {
    let mut changes = Changes::default();
    for registration in vmas.overlapping(range).filter_map(|vma| vma.uffd.as_ref()) {
        changes.begin(&registration.ctx, Features::EVENT_UNMAP)?;
    }
    Ok(changes)
}
