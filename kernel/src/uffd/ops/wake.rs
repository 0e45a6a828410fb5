//! WAKE: let waiters look again.

use super::{RangeError, check_range};
use crate::mm::range::VirtRange;
use crate::uffd::api::{Ioctls, Unavailable};
use crate::uffd::ctx::{Ctx, Resolver};

/// Why nobody was woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WakeError {
    /// The context does not have the operation at all (Linux: EINVAL).
    Unavailable(Unavailable),
    /// The range is not one (EINVAL).
    Range(RangeError),
}

impl From<Unavailable> for WakeError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<RangeError> for WakeError {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

impl Resolver {
    /// Wakes every task that waits for a page in `range`, whether its message was read or not. They execute their access
    /// again and, if the page is still absent, queue a new message. Not remembered: a task that faults later is not
    /// affected. Neither mapping nor registration matter, nor whether the space still exists.
    ///
    /// # Errors
    /// See [`WakeError`].
    pub fn wake(&self, range: VirtRange) -> Result<(), WakeError> {
        self.ctx.gate(Ioctls::WAKE)?;
        check_range(range)?;
        self.ctx.queue.lock().wake(range.start, range.end);
        Ok(())
    }
}

impl Ctx {
    /// Has whoever waits for a page in `range` look again: without the checks of what a monitor says.
    #[inline]
    pub(crate) fn stir(&self, range: VirtRange) {
        self.queue.lock().wake(range.start, range.end);
    }
}
