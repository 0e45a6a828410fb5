//! A private mapping of `/dev/zero`: anonymous memory in everything but fills.
//!
//! Linux holds a fill against the size of the file behind an area, and this file has none: COPY, ZEROPAGE and POISON always go
//! past its end. Missing pages there are resolved by ending the registration, or by MOVE.

use super::{Class, MemType, Privately, UffdOps, anon};

/// The type.
pub static ZERO: MemType = MemType {
    name: "zero",
    class: Class::Anonymous,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: match anon::ANON.uffd {
        Some(ops) => Some(UffdOps { ..ops }),
        None => None,
    },
};

impl MemType {
    /// Whether fills go past the end of what is mapped, wherever they are.
    #[inline]
    pub fn ends_before_fills(&self) -> bool {
        core::ptr::eq(self, &ZERO)
    }
}
