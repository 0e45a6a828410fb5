//! Anonymous memory: zero when first touched, copied when written while shared.

use super::{Granule, MemType, Modes, OpSet, UffdOps};
use crate::mm::frame::{Anon, Frame, OutOfFrames};

/// The type.
pub static ANON: MemType = MemType {
    name: "anonymous",
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::WP),
            ops: OpSet::COPY
                .union(OpSet::ZEROPAGE)
                .union(OpSet::WRITEPROTECT)
                .union(OpSet::POISON),
            granule: Granule::Base,
            filled_by_write: false,
            alloc: fresh,
        }
        .checked(),
    ),
};

/// A page from the frame allocator, with arbitrary contents.
///
/// # Errors
/// No frame is free.
pub fn fresh() -> Result<Frame<Anon>, OutOfFrames> {
    Frame::alloc()
}
