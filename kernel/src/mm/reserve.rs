//! Room for the kernel's own records where tasks decide how many there are: it is asked for before anything is changed, and
//! may be refused.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::frame;

/// Makes room for `more` records.
///
/// # Errors
/// No kernel memory that could be spared ([`frame::FrameAllocator::can_spare`]), or a failure was injected
/// ([`frame::FrameAllocator::inject_failure`]).
pub(crate) fn reserve<T>(records: &mut Vec<T>, more: usize) -> Result<(), TryReserveError> {
    if records.capacity() - records.len() >= more {
        return Ok(());
    }
    // The error cannot be made, only had: by asking for what there never is.
    let grown = (records.len() + more).max(2 * records.capacity());
    let fails = frame::allocator().injected_failure()
        || !frame::allocator().can_spare(grown.saturating_mul(size_of::<T>()));
    records.try_reserve(if fails { usize::MAX } else { more })
}
