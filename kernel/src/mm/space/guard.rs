//! Guard pages: addresses inside an area that nothing may touch, without an area of their own (Linux's
//! `MADV_GUARD_INSTALL` and `MADV_GUARD_REMOVE`).
//!
//! A guard is a marker in the entry. It goes over whatever is there, and stays when contents are dropped, when memory moves
//! and when it is protected; removing it, unmapping, and a monitor's COPY take it away. No context is told of any of it.

use super::Space;
use crate::mm::frame::OutOfFrames;
use crate::mm::memtype::Granule;
use crate::mm::pt::{Entry, Flush, Level, Marker};
use crate::mm::range::VirtRange;
use crate::mm::vma::VmaFlags;

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
    /// # Errors
    /// See [`GuardError`].
    pub fn install_guards(&self, range: VirtRange) -> Result<(), GuardError> {
        self.each_guardable(range, false, |part| Ok(self.install_guards_in(part)?))
    }

    /// Takes the guards of `range` away; everything else stays.
    ///
    /// # Errors
    /// See [`GuardError`]; locked memory is fine.
    pub fn remove_guards(&self, range: VirtRange) -> Result<(), GuardError> {
        self.each_guardable(range, true, |part| {
            let mut flush = Flush::new();
            let guarded = Entry::Absent(Marker::Guard);
            self.table
                .lock()
                .cursor(part)
                .transform(&mut flush, |seen| (seen.entry == guarded).then_some(Entry::EMPTY));
            flush.spend(self);
            Ok(())
        })
    }

    fn each_guardable(
        &self,
        range: VirtRange,
        locked_too: bool,
        change: impl Fn(VirtRange) -> Result<(), GuardError>,
    ) -> Result<(), GuardError> {
        if !Self::is_nameable(range) {
            return Err(GuardError::BadRange);
        }
        let vmas = self.vmas.read();
        for vma in vmas.overlapping(range) {
            if vma.ty.granule() != Granule::Base {
                return Err(GuardError::LargePages);
            }
            if vma.flags.contains(VmaFlags::LOCKED) && !locked_too {
                return Err(GuardError::Locked);
            }
            let part = vma.range.intersect(&range).expect("it overlaps");
            change(part)?;
        }
        if vmas.mapped_in(range) == range.len() {
            Ok(())
        } else {
            Err(GuardError::NotMapped)
        }
    }

    fn install_guards_in(&self, part: VirtRange) -> Result<(), OutOfFrames> {
        let mut at = part.start;
        while at < part.end {
            let mut flush = Flush::new();
            let mut table = self.table.lock();
            let mut cursor = table.cursor(VirtRange::new(at, part.end));
            let mut marked = Ok(());
            while !cursor.is_done() && !flush.is_full() {
                if cursor.entry().0.is_leaf() {
                    cursor.take(Marker::Guard, &mut flush);
                } else if let Err(error) = cursor.mark(Level::PAGE, Marker::Guard) {
                    marked = Err(error);
                    break;
                }
                cursor.advance(Level::PAGE);
            }
            at = cursor.addr();
            drop(table);
            flush.spend(self);
            marked?;
        }
        Ok(())
    }
}
