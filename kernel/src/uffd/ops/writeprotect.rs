//! WRITEPROTECT: be told before pages are written.

use super::{FillMode, RangeError, check_range};
use crate::mm::range::VirtRange;
use crate::mm::space::ProtectStop;
use crate::task;
use crate::uffd::api::{Ioctls, Unavailable};
use crate::uffd::ctx::Resolver;

/// Why write protection did not change, or not everywhere: areas before the one that failed have changed already, as on
/// Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteProtectError {
    /// The space's layout changes, and the monitor has not read of it (Linux: EAGAIN). Found before anything
    /// but [`Self::Unavailable`].
    Changing,
    /// The context does not have the operation at all (EINVAL).
    Unavailable(Unavailable),
    /// The range is not one (EINVAL).
    Range(RangeError),
    /// The mode has a bit that means nothing here (EINVAL).
    UnknownMode,
    /// The address space is gone (ESRCH).
    SpaceGone,
    /// Nothing is mapped in the range, or an area in it is not registered for write protection (ENOENT).
    NotRegistered,
    /// There is memory in huge pages in the range, and the start or the length of the whole range is not a multiple of their
    /// size (EINVAL).
    Misaligned,
    /// No frame for the tables that remember the protection of pages that are not there (ENOMEM).
    OutOfMemory,
}

impl From<Unavailable> for WriteProtectError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<RangeError> for WriteProtectError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<ProtectStop> for WriteProtectError {
    fn from(stop: ProtectStop) -> Self {
        match stop {
            ProtectStop::Changing => Self::Changing,
            ProtectStop::NotRegistered => Self::NotRegistered,
            ProtectStop::Misaligned => Self::Misaligned,
            ProtectStop::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl Resolver {
    /// Write-protects the pages of `range`: the next store to each raises a write-protect fault. Pages that are not there
    /// are covered in mappings of objects, and of anonymous memory where the area's own context has
    /// [`Features::WP_UNPOPULATED`](crate::uffd::Features::WP_UNPOPULATED). Holes between areas are skipped; which context
    /// the areas are registered with does not matter otherwise (as on Linux).
    ///
    /// # Errors
    /// See [`WriteProtectError`].
    pub fn write_protect(&self, range: VirtRange) -> Result<(), WriteProtectError> {
        self.ctx.gate(Ioctls::WRITEPROTECT)?;
        if self.is_changing() {
            return Err(WriteProtectError::Changing);
        }
        check_range(range)?;
        let space = self.ctx.space().ok_or(WriteProtectError::SpaceGone)?;
        Ok(space.write_protect(range, &self.ctx)?)
    }

    /// Ends the write protection of `range` and wakes whoever waits there, unless `mode` says
    /// [`FillMode::DONTWAKE`].
    ///
    /// # Errors
    /// See [`WriteProtectError`].
    pub fn remove_write_protection(&self, range: VirtRange, mode: FillMode) -> Result<(), WriteProtectError> {
        self.ctx.gate(Ioctls::WRITEPROTECT)?;
        if self.is_changing() {
            return Err(WriteProtectError::Changing);
        }
        check_range(range)?;
        if !FillMode::DONTWAKE.contains(mode) {
            return Err(WriteProtectError::UnknownMode);
        }
        let (task, mut counted) = (task::current(), None);
        let space = self.ctx.space_by(&task, &mut counted);
        let space = space.ok_or(WriteProtectError::SpaceGone)?;
        space.remove_write_protection(range, &self.ctx)?;
        if !mode.contains(FillMode::DONTWAKE) {
            self.ctx.queue.lock().wake(range.start, range.end);
        }
        Ok(())
    }
}
