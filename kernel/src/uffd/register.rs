//! Which ranges a context is told about.

use alloc::sync::Arc;

use super::api::{Ioctls, Unavailable};
use super::ctx::{Ctx, Uffd};
use super::ops::{RangeError, check_range};
use crate::mm::addr::VirtAddr;
use crate::mm::memtype::{Modes, OpSet};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Registration, TooManyVmas, Vma, VmaFlags};

/// Why nothing was registered; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterError {
    /// The context does not register anything (Linux: EINVAL).
    Unavailable(Unavailable),
    /// No mode was named (EINVAL).
    NoMode,
    /// A mode means nothing (EINVAL).
    UnknownMode,
    /// The range is not one (EINVAL).
    Range(RangeError),
    /// The address space is gone (ENOMEM).
    SpaceGone,
    /// Nothing is mapped anywhere in the range (EINVAL).
    NotMapped,
    /// A memory type in the range cannot trap what was asked for (EINVAL).
    Unsupported,
    /// An area in the range maps an object that was opened for reading only, so that nothing can be filled in (EPERM).
    ReadOnly,
    /// The range cuts through a huge page (EINVAL).
    Misaligned,
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
    /// The context does not unregister anything (Linux: EINVAL).
    Unavailable(Unavailable),
    /// The range is not one (EINVAL).
    Range(RangeError),
    /// The address space is gone (ENOMEM).
    SpaceGone,
    /// Nothing is mapped anywhere in the range (EINVAL).
    NotMapped,
    /// The range begins inside a huge page, or ends inside one that is registered (EINVAL). In the latter case what lies before
    /// that is not registered any more.
    Misaligned,
    /// An area in the range is of a type that can never be registered (EINVAL).
    Unsupported,
    /// An area in the range is registered with another context (EINVAL).
    NotOurs,
    /// Splitting areas would leave too many of them (ENOMEM).
    TooManyAreas,
}

impl From<Unavailable> for RegisterError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<Unavailable> for UnregisterError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
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

/// What a registration found in its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registered {
    /// The operations that work on all of it.
    pub ops: OpSet,
    /// Whether there is memory in it for which Linux names fewer ioctls ([`Release::is_basic`](super::Release::is_basic)).
    pub basic: bool,
}

impl Registered {
    /// Of two areas together.
    fn and(self, other: Self) -> Self {
        Self {
            ops: self.ops & other.ops,
            basic: self.basic || other.basic,
        }
    }
}

/// Whether the range starts where no page of its first area could: also in front of the area (as on Linux).
fn starts_amiss(first: Option<&Vma>, range: VirtRange) -> bool {
    first.is_some_and(|vma| !range.start.is_aligned(vma.ty.granule().size()))
}

/// Whether `at` lies inside the area, and not where one of its pages begins.
fn cuts(vma: &Vma, at: VirtAddr) -> bool {
    vma.range.start < at && at < vma.range.end && !at.is_aligned(vma.ty.granule().size())
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
        Ok(self.register_areas(range, modes)?.ops)
    }

    /// [`Self::register`] that tells more of what it found.
    ///
    /// # Errors
    /// The same.
    pub fn register_areas(&self, range: VirtRange, modes: Modes) -> Result<Registered, RegisterError> {
        self.ctx.gate(Ioctls::REGISTER)?;
        if modes.is_empty() {
            return Err(RegisterError::NoMode);
        }
        if !self.ctx.release().modes().contains(modes) {
            return Err(RegisterError::UnknownMode);
        }
        check_range(range)?;
        let space = self.ctx.space().ok_or(RegisterError::SpaceGone)?;
        let mut vmas = space.vmas().write();
        if self.ctx.is_closed() {
            return Err(RegisterError::Closed);
        }
        if starts_amiss(vmas.overlapping(range).next(), range) {
            return Err(RegisterError::Misaligned);
        }
        let mut found = None;
        for vma in vmas.overlapping(range) {
            let ops = self.may_register(vma, range, modes)?;
            let basic = self.ctx.release().is_basic(vma.ty.class);
            found = Some(match found {
                None => Registered { ops, basic },
                Some(before) => Registered { ops, basic }.and(before),
            });
        }
        let found = found.ok_or(RegisterError::NotMapped)?;
        let lacks = |vma: &Vma| !vma.uffd.as_ref().is_some_and(|old| old.modes.contains(modes));
        vmas.update_where(range, lacks, |vma| {
            vma.uffd = Some(Registration {
                ctx: Arc::clone(&self.ctx),
                modes,
            });
        })?;
        Ok(found)
    }

    /// What can be done with the area once it is registered with `modes`.
    fn may_register(&self, vma: &Vma, range: VirtRange, modes: Modes) -> Result<OpSet, RegisterError> {
        let ops = match self.ctx.release().offer(vma.ty) {
            Some(offer) if offer.modes.contains(modes) => offer.ops,
            _ if self.ctx.only_tracks(vma.ty, modes) => OpSet::WRITEPROTECT,
            _ => return Err(RegisterError::Unsupported),
        };
        if vma.flags.contains(VmaFlags::READ_ONLY) {
            return Err(RegisterError::ReadOnly);
        }
        if cuts(vma, range.end) {
            return Err(RegisterError::Misaligned);
        }
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
    /// See [`UnregisterError`]; all areas are looked at before any changes, but for where the range ends. An area that would be
    /// parted within a page keeps its registration, but has lost its protection there, and its waiters are awake (as on Linux).
    pub fn unregister(&self, range: VirtRange) -> Result<(), UnregisterError> {
        self.ctx.gate(Ioctls::UNREGISTER)?;
        check_range(range)?;
        let space = self.ctx.space().ok_or(UnregisterError::SpaceGone)?;
        let mut vmas = space.vmas().write();
        if starts_amiss(vmas.overlapping(range).next(), range) {
            return Err(UnregisterError::Misaligned);
        }
        let (mut mapped, mut cut) = (false, None);
        for vma in vmas.overlapping(range) {
            if cuts(vma, range.end) && vma.uffd.is_some() {
                cut = Some(vma.range.start.max(range.start));
            }
            mapped = true;
            match &vma.uffd {
                Some(other) if !Arc::ptr_eq(&other.ctx, &self.ctx) => return Err(UnregisterError::NotOurs),
                None if self.ctx.release().offer(vma.ty).is_none() => {
                    return Err(UnregisterError::Unsupported);
                }
                _ => {}
            }
        }
        if !mapped {
            return Err(UnregisterError::NotMapped);
        }
        let pass = |vma: &Vma, part: VirtRange, old: &Registration| {
            Ctx::forget_protection(&space, vma, part, old);
            if old.modes.contains(Modes::MISSING) {
                self.ctx.queue.lock().wake(part.start, part.end);
            }
        };
        let registered = |vma: &Vma| vma.uffd.is_some();
        let whole = VirtRange::new(range.start, cut.unwrap_or(range.end));
        vmas.update_where(whole, registered, |vma| {
            if let Some(old) = vma.uffd.take() {
                pass(vma, vma.range, &old);
            }
        })?;
        let Some(start) = cut else { return Ok(()) };
        let part = VirtRange::new(start, range.end);
        for vma in vmas.overlapping(part) {
            vma.uffd.iter().for_each(|old| pass(vma, part, old));
        }
        Err(UnregisterError::Misaligned)
    }
}
