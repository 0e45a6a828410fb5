//! Memory that tasks reach by their own mappings, and nobody on their behalf (Linux's `memfd_secret`): it is mapped shared or not
//! at all, cannot be executed, and what looks a page up ([`Space::read_bytes`](crate::mm::space::Space::read_bytes) and its
//! like) is refused. A copy to or from a task's own memory goes through its mapping and works. No userfault context can register
//! it, other than for noting stores.

use super::{Class, MemType, Privately};

/// The type.
pub static SECRET: MemType = MemType {
    name: "secret",
    class: Class::File,
    privately: Privately::Never,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: None,
};

impl MemType {
    /// Whether only the mappings of tasks lead to its pages.
    #[inline]
    pub fn is_secret(&self) -> bool {
        core::ptr::eq(self, &SECRET)
    }
}
