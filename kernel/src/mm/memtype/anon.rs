//! Anonymous memory: zero when first touched, copied when written while shared.

use super::{Class, Granule, MemType, Modes, OpSet, Privately, Supply, UffdOps};

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
            alloc: Supply::Frames,
            cache: None,
        }
        .checked(),
    ),
};
