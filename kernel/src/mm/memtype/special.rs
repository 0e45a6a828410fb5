//! Pages that the kernel gives programs to look at: the vDSO. No userfault context can register them in any way.

use super::{Class, MemType, Privately};

/// The type.
pub static SPECIAL: MemType = MemType {
    name: "special",
    class: Class::Special,
    privately: Privately::Caches,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: None,
};
