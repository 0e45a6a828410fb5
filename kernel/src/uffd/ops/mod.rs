//! What a monitor does to registered memory.

mod cont;
mod copy;
mod move_pages;
mod poison;
mod wake;
mod writeprotect;
mod zeropage;

pub use move_pages::MoveMode;
pub use wake::WakeError;
pub use writeprotect::WriteProtectError;

use bitflags::bitflags;

use super::api::{Ioctls, Unavailable};
use super::ctx::Resolver;
use crate::mm::addr::{PAGE_SIZE, USER_TOP};
use crate::mm::range::VirtRange;
use crate::mm::space::{FillStop, Filler, Immovable, Unready};
use crate::task;

bitflags! {
    /// How to fill. The values are Linux's `UFFDIO_*_MODE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct FillMode: u64 {
        /// Leave the waiters asleep; somebody will wake the range later.
        const DONTWAKE = 1;
        /// Write-protect what is filled, in the same step (COPY and CONTINUE).
        const WP = 2;
    }
}

/// What is wrong with a range (Linux: always EINVAL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// Start or length is no multiple of the page size.
    Unaligned,
    /// The length is zero.
    Empty,
    /// It ends above what tasks may map.
    BeyondTop,
}

/// Linux's check of every range that a monitor names.
///
/// # Errors
/// See [`RangeError`].
pub fn check_range(range: VirtRange) -> Result<(), RangeError> {
    if !range.is_aligned(PAGE_SIZE) {
        return Err(RangeError::Unaligned);
    }
    if range.is_empty() {
        return Err(RangeError::Empty);
    }
    if range.start >= USER_TOP || range.end > USER_TOP {
        return Err(RangeError::BeyondTop);
    }
    Ok(())
}

/// Why an operation did nothing, or no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The space's layout changes, and the monitor has not read of it (Linux: EAGAIN). Found before anything
    /// but [`Self::Unavailable`]. Read the event and try again.
    Changing,
    /// The context does not have the operation at all (EINVAL, output field untouched). Found first of all.
    Unavailable(Unavailable),
    /// The caller lives in another address space than the context's (MOVE only; EINVAL, output field untouched).
    ForeignSpace,
    /// The range is not one (EINVAL, output field untouched).
    Range(RangeError),
    /// The range that pages come from is not one (EINVAL, output field untouched).
    SourceRange(RangeError),
    /// The mode has a bit that means nothing (EINVAL, output field untouched).
    UnknownMode,
    /// The address space is gone (ESRCH, output field untouched).
    SpaceGone,
    /// The range is not wholly inside one registered area (ENOENT).
    NotRegistered,
    /// Nothing is mapped where one of the ranges begins (MOVE only; ENOENT).
    NotMapped,
    /// Pages cannot move between the two areas (EINVAL).
    Immovable(Immovable),
    /// Write protection was asked for, and the area is not registered for it (EINVAL).
    NoWriteProtect,
    /// The area's memory type does not have the operation, or wants another alignment (EINVAL).
    Unsupported,
    /// The page is there already (EEXIST). That does not mean that whoever waits for it was woken: nothing is woken where
    /// nothing was done. Wake the range, unless somebody else is certain to.
    Exists,
    /// The source could not be read (EFAULT), or is no page but a marker.
    BadSource,
    /// There is no page at the source (ENOENT).
    SourceHole,
    /// The page at the source is not the space's alone, or was not when it was written last (EBUSY).
    Busy,
    /// The range leaves the object behind the area (EFAULT; of CONTINUE, EINVAL).
    BeyondEnd,
    /// The object's cache has no page to map (EFAULT).
    NoPage,
    /// No physical memory (ENOMEM).
    OutOfMemory,
    /// The reserved pool of the memory type is empty (Linux 6.18 says EEXIST, although nothing is there).
    PoolEmpty,
    /// The object behind the area may not have more pages (ENOMEM, not ENOSPC).
    NoSpace,
}

impl From<RangeError> for Refusal {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl From<Unavailable> for Refusal {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<FillStop> for Refusal {
    fn from(stop: FillStop) -> Self {
        match stop {
            FillStop::Changing => Self::Changing,
            FillStop::NotRegistered => Self::NotRegistered,
            FillStop::NoWriteProtect => Self::NoWriteProtect,
            FillStop::Unsupported => Self::Unsupported,
            FillStop::Exists => Self::Exists,
            FillStop::BadSource => Self::BadSource,
            FillStop::BeyondEnd => Self::BeyondEnd,
            FillStop::NoPage => Self::NoPage,
            FillStop::OutOfMemory => Self::OutOfMemory,
            FillStop::PoolEmpty => Self::PoolEmpty,
            FillStop::NoSpace => Self::NoSpace,
        }
    }
}

/// How an operation on a range ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// All of it was done, and the waiters woken unless that was not wanted.
    Done,
    /// The first `bytes` were done and their waiters woken; then it stopped (Linux: EAGAIN with a positive count, and the
    /// reason shows only when the rest is tried).
    Partial {
        /// Bytes done.
        bytes: u64,
        /// Why no more.
        why: Refusal,
    },
    /// Nothing was done and nobody woken.
    Refused(Refusal),
}

impl Outcome {
    /// Bytes done of `len`.
    pub fn bytes(&self, len: u64) -> u64 {
        match self {
            Self::Done => len,
            Self::Partial { bytes, .. } => *bytes,
            Self::Refused(_) => 0,
        }
    }
}

impl Resolver {
    /// The answer to arguments of `command` that are wrong in themselves: that the context does not have it, or that the
    /// layout changes, is found even before that.
    #[cold]
    fn refuse(&self, command: Ioctls, why: impl Into<Refusal>) -> Outcome {
        Outcome::Refused(match self.ctx.gate(command) {
            Err(unavailable) => unavailable.into(),
            Ok(()) if self.is_changing() => Refusal::Changing,
            Ok(()) => why.into(),
        })
    }

    /// What COPY, ZEROPAGE, CONTINUE and POISON have in common: check, fill, wake what was filled.
    #[inline]
    fn fill<F: Filler>(&self, range: VirtRange, mode: FillMode, filler: &mut F) -> Outcome {
        if let Err(why) = self.ctx.gate(F::COMMAND) {
            return Outcome::Refused(why.into());
        }
        if self.ctx.is_changing() {
            return Outcome::Refused(Refusal::Changing);
        }
        if let Err(error) = check_range(range) {
            return Outcome::Refused(error.into());
        }
        if !self.ctx.release().fill_modes(F::OP, F::MODES).contains(mode) {
            return Outcome::Refused(Refusal::UnknownMode);
        }
        let (task, mut counted) = (task::current(), None);
        let Some(space) = self.ctx.space_by(&task, &mut counted) else {
            return Outcome::Refused(Refusal::SpaceGone);
        };
        let wake = !mode.contains(FillMode::DONTWAKE);
        if range.len() == PAGE_SIZE {
            match space.fill_page(range, &self.ctx, filler) {
                Ok(()) => {
                    if wake {
                        self.ctx.stir(range);
                    }
                    return Outcome::Done;
                }
                Err(Unready::MustWait | Unready::Stop(FillStop::OutOfMemory)) => {}
                Err(Unready::Stop(stop)) => return Outcome::Refused(stop.into()),
            }
        }
        let (bytes, result) = space.fill(range, &self.ctx, filler);
        self.finish(range, bytes, wake, result)
    }

    /// Wakes whoever waits in the part of `range` that was done, if they shall be woken, and says how it ended.
    #[inline(always)]
    pub(super) fn finish<E: Into<Refusal>>(
        &self,
        range: VirtRange,
        bytes: u64,
        wake: bool,
        result: Result<(), E>,
    ) -> Outcome {
        if wake && bytes > 0 {
            self.ctx.queue.lock().wake(range.start, range.start + bytes);
        }
        match result {
            Ok(()) => Outcome::Done,
            Err(why) if bytes > 0 => Outcome::Partial {
                bytes,
                why: why.into(),
            },
            Err(why) => Outcome::Refused(why.into()),
        }
    }
}
