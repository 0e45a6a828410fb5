//! Which ranges a context is told about.

use alloc::sync::Arc;

use super::ctx::{Ctx, Uffd};
use super::ops::{RangeError, check_range};
use crate::mm::memtype::{Modes, OpSet};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Registration, TooManyVmas, Vma};

/// Why nothing was registered; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterError {
    /// No mode was named (Linux: EINVAL).
    NoMode,
    /// The range is not one (EINVAL).
    Range(RangeError),
    /// The address space is gone (ENOMEM).
    SpaceGone,
    /// Nothing is mapped anywhere in the range (EINVAL).
    NotMapped,
    /// A memory type in the range cannot trap what was asked for (EINVAL).
    Unsupported,
    /// An area in the range is registered with another context (EBUSY).
    Busy,
    /// The context was closed (EBADF).
    Closed,
    /// Splitting areas would leave too many of them (ENOMEM).
    TooManyAreas,
}

/// Why nothing was unregistered; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnregisterError {
    /// The range is not one (EINVAL).
    Range(RangeError),
    /// The address space is gone (ENOMEM).
    SpaceGone,
    /// Nothing is mapped anywhere in the range (EINVAL).
    NotMapped,
    /// An area in the range is of a type that can never be registered (EINVAL).
    Unsupported,
    /// An area in the range is registered with another context (EINVAL).
    NotOurs,
    /// Splitting areas would leave too many of them (ENOMEM).
    TooManyAreas,
}

impl From<RangeError> for RegisterError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<TooManyVmas> for RegisterError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl From<RangeError> for UnregisterError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<TooManyVmas> for UnregisterError {
    fn from(_: TooManyVmas) -> Self {
        Self::TooManyAreas
    }
}

impl Uffd {
    /// Traps `modes` on everything mapped in `range`; holes are skipped. Returns the operations that work on all of it.
    ///
    /// Pages that are there already do not trap. On memory that this context has already, a mode set that is a subset of the
    /// current one changes nothing, and any other replaces it (Linux's quirk, kept).
    ///
    /// # Errors
    /// See [`RegisterError`]; all areas are looked at before any changes.
    pub fn register(&self, range: VirtRange, modes: Modes) -> Result<OpSet, RegisterError> {
        if modes.is_empty() {
            return Err(RegisterError::NoMode);
        }
        check_range(range)?;
        let space = self.ctx.space().ok_or(RegisterError::SpaceGone)?;
        let mut vmas = space.vmas().write();
        if self.ctx.is_closed() {
            return Err(RegisterError::Closed);
        }
        let mut ops = None;
        for vma in vmas.overlapping(range) {
            let can = self.may_register(vma, modes)?;
            ops = Some(ops.unwrap_or(OpSet::all()) & can);
        }
        let ops = ops.ok_or(RegisterError::NotMapped)?;
        vmas.update(range, |vma| {
            let keeps = vma.uffd.as_ref().is_some_and(|old| old.modes.contains(modes));
            if !keeps {
                vma.uffd = Some(Registration {
                    ctx: Arc::clone(&self.ctx),
                    modes,
                });
            }
        })?;
        Ok(ops)
    }

    /// What can be done with the area once it is registered with `modes`.
    fn may_register(&self, vma: &Vma, modes: Modes) -> Result<OpSet, RegisterError> {
        let ops = match &vma.ty.uffd {
            Some(ops) if ops.modes.contains(modes) => ops.ops,
            _ if self.ctx.only_tracks(vma.ty, modes) => OpSet::WRITEPROTECT,
            _ => return Err(RegisterError::Unsupported),
        };
        match &vma.uffd {
            Some(other) if !Arc::ptr_eq(&other.ctx, &self.ctx) => Err(RegisterError::Busy),
            _ if modes.contains(Modes::WP) => Ok(ops),
            _ => Ok(ops - OpSet::WRITEPROTECT),
        }
    }

    /// Stops trapping in `range`. Areas that are not registered are fine. Tasks that wait for a page in what was registered
    /// with MISSING are woken; waiters of other modes sleep on (as on Linux).
    ///
    /// # Errors
    /// See [`UnregisterError`]; all areas are looked at before any changes.
    pub fn unregister(&self, range: VirtRange) -> Result<(), UnregisterError> {
        check_range(range)?;
        let space = self.ctx.space().ok_or(UnregisterError::SpaceGone)?;
        let mut vmas = space.vmas().write();
        let mut mapped = false;
        for vma in vmas.overlapping(range) {
            mapped = true;
            match &vma.uffd {
                Some(other) if !Arc::ptr_eq(&other.ctx, &self.ctx) => return Err(UnregisterError::NotOurs),
                None if vma.ty.uffd.is_none() => return Err(UnregisterError::Unsupported),
                _ => {}
            }
        }
        if !mapped {
            return Err(UnregisterError::NotMapped);
        }
        vmas.update(range, |vma| {
            if let Some(old) = Ctx::end_registration(&space, vma)
                && old.modes.contains(Modes::MISSING)
            {
                let part = vma.range;
                self.ctx.queue.lock().wake(part.start, part.end);
            }
        })?;
        Ok(())
    }
}
