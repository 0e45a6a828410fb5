//! MOVE: hand over pages that are somewhere else in the space, without copying them.

use bitflags::bitflags;

use super::{Outcome, RangeError, Refusal, check_range};
use crate::mm::addr::VirtAddr;
use crate::mm::range::VirtRange;
use crate::mm::space::{MoveStop, Space};
use crate::uffd::Resolver;
use crate::uffd::api::Ioctls;

bitflags! {
    /// How to move. The values are Linux's `UFFDIO_MOVE_MODE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct MoveMode: u64 {
        /// Leave the waiters asleep; somebody will wake the range later.
        const DONTWAKE = 1;
        /// Count pages that are not there as moved, instead of stopping at them.
        const ALLOW_SRC_HOLES = 2;
    }
}

impl From<MoveStop> for Refusal {
    fn from(stop: MoveStop) -> Self {
        match stop {
            MoveStop::Changing => Self::Changing,
            MoveStop::NotMapped => Self::NotMapped,
            MoveStop::Immovable(why) => Self::Immovable(why),
            MoveStop::Exists => Self::Exists,
            MoveStop::SourceHole => Self::SourceHole,
            MoveStop::BadSource => Self::BadSource,
            MoveStop::Busy => Self::Busy,
            MoveStop::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// The range of `len` bytes from `start` on, if it is one.
fn named(start: VirtAddr, len: u64) -> Result<VirtRange, RangeError> {
    let range = VirtRange::from_len(start, len).ok_or(RangeError::BeyondTop)?;
    check_range(range)?;
    Ok(range)
}

impl Resolver {
    /// Moves the pages of `len` bytes from `src` on to `dst`, and wakes whoever waits for them there. What they leave is
    /// empty: where it is registered itself, it faults as missing from then on.
    ///
    /// `caller` is the space of the task that asks. Only those who live in the context's own space may move its pages (as on
    /// Linux, where this is the one operation with that rule, and the one for which the destination must be registered with
    /// this very context). The source need not be registered. Both must be plain anonymous memory, writable, with the same
    /// rights, each inside one area; the same area is fine, and so are ranges that overlap.
    ///
    /// Pages that are not the space's alone are [`Refusal::Busy`]: those with other owners, and those that a fork has shared
    /// and that were not written since, even when the other side is gone.
    pub fn move_pages(
        &self,
        caller: &Space,
        dst: VirtAddr,
        src: VirtAddr,
        len: u64,
        mode: MoveMode,
    ) -> Outcome {
        if let Err(why) = self.ctx.gate(Ioctls::MOVE) {
            return Outcome::Refused(why.into());
        }
        if self.is_changing() {
            return Outcome::Refused(Refusal::Changing);
        }
        if !self.ctx.belongs_to(caller) {
            return Outcome::Refused(Refusal::ForeignSpace);
        }
        let dst = match named(dst, len) {
            Ok(range) => range,
            Err(error) => return Outcome::Refused(Refusal::Range(error)),
        };
        if let Err(error) = named(src, len) {
            return Outcome::Refused(Refusal::SourceRange(error));
        }
        if !MoveMode::all().contains(mode) {
            return Outcome::Refused(Refusal::UnknownMode);
        }
        let holes = mode.contains(MoveMode::ALLOW_SRC_HOLES);
        let (bytes, result) = caller.move_pages(&self.ctx, dst, src, holes);
        self.finish(dst, bytes, !mode.contains(MoveMode::DONTWAKE), result)
    }
}
