//! WAKE: let waiters look again.

use super::{RangeError, check_range};
use crate::mm::range::VirtRange;
use crate::uffd::Resolver;

impl Resolver {
    /// Wakes every task that waits for a page in `range`, whether its message was read or not. They execute their access
    /// again and, if the page is still absent, queue a new message. Not remembered: a task that faults later is not
    /// affected. Neither mapping nor registration matter, nor whether the space still exists.
    ///
    /// # Errors
    /// The range is not one.
    pub fn wake(&self, range: VirtRange) -> Result<(), RangeError> {
        check_range(range)?;
        self.ctx.queue.lock().wake(range.start, range.end);
        Ok(())
    }
}
