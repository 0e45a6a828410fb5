//! Anonymous memory that may be dropped when memory is short (Linux's `MAP_DROPPABLE`), which this kernel never does. No
//! userfault context can register it.

use super::{Class, MemType, Privately};

/// The type.
pub static DROPPABLE: MemType = MemType {
    name: "droppable",
    class: Class::Special,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: None,
};
