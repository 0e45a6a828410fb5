//! Anonymous memory: zero when first touched, copied when written while shared.

use super::{AllocError, Class, Granule, MemType, Modes, OpSet, Privately, UffdOps};
use crate::mm::frame::{Anon, Frame};

/// The type.
pub static ANON: MemType = MemType {
    name: "anonymous",
    class: Class::Anonymous,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::WP),
            ops: OpSet::COPY
                .union(OpSet::ZEROPAGE)
                .union(OpSet::WRITEPROTECT)
                .union(OpSet::POISON)
                .union(OpSet::MOVE),
            granule: Granule::Base,
            filled_by_write: false,
            alloc: fresh,
            cache: None,
        }
        .checked(),
    ),
};

/// A page from the frame allocator, with arbitrary contents.
///
/// # Errors
/// No frame is free.
pub fn fresh() -> Result<Frame<Anon>, AllocError> {
    Ok(Frame::alloc()?)
}
