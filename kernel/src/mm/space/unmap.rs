//! Taking mappings, or only their contents, away.

use alloc::collections::TryReserveError;

use super::Space;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::pt::{Flush, Progress, SplitError};
use crate::mm::range::VirtRange;
use crate::mm::vma::{TooManyVmas, VmaSet};
use crate::uffd::{Changes, Event, Features};

/// Why nothing, or not everything, was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnmapError {
    /// The range is empty, not page-aligned, or outside what tasks may map.
    BadRange,
    /// Part of the range is not mapped.
    NotMapped,
    /// Splitting areas would leave too many of them.
    TooManyAreas,
    /// A large page could not be split.
    Split(SplitError),
    /// No kernel memory to note who is to be told; nothing changed.
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
        self.check(range)?;
        let mut vmas = self.vmas.write();
        let changes = begin_unmap(&vmas, range)?;
        vmas.remove(range, drop)?;
        // Still under exclusive `vmas`: nobody fills or faults here while nodes go away.
        let cleared = self.clear(range, true);
        if cleared.is_ok() {
            self.prune_ends(range);
        }
        drop(vmas);
        changes.announce(|| Event::Unmap { range });
        cleared
    }

    /// Drops the contents of `range`: the next touch finds it as if newly mapped. Registrations stay.
    ///
    /// # Errors
    /// See [`UnmapError`]; [`UnmapError::NotMapped`] when there is a hole, after dropping everything around it (as Linux's
    /// `MADV_DONTNEED`).
    pub fn discard(&self, range: VirtRange) -> Result<(), UnmapError> {
        self.check(range)?;
        let vmas = self.vmas.read();
        let mut mapped = 0;
        let parts = vmas
            .overlapping(range)
            .filter_map(|vma| vma.range.intersect(&range));
        for part in parts {
            self.clear(part, false)?;
            mapped += part.len();
        }
        if mapped == range.len() {
            Ok(())
        } else {
            Err(UnmapError::NotMapped)
        }
    }

    fn check(&self, range: VirtRange) -> Result<(), UnmapError> {
        let ok = !range.is_empty() && range.is_aligned(PAGE_SIZE) && range.end <= Self::window().end;
        if ok { Ok(()) } else { Err(UnmapError::BadRange) }
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

    /// Clears the entries of `range`, a batch at a time.
    fn clear(&self, range: VirtRange, free_nodes: bool) -> Result<(), UnmapError> {
        let mut at = range.start;
        loop {
            let mut flush = Flush::new();
            let mut table = self.table.lock();
            let mut cursor = table.cursor(range);
            cursor.resume_unmap(at);
            let progress = cursor.unmap(free_nodes, &mut flush);
            at = cursor.addr();
            drop(table);
            flush.spend(self);
            match progress {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::FlushFull) => {}
                Err(error) => return Err(UnmapError::Split(error)),
            }
        }
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
