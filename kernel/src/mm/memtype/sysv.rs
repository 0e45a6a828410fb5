//! System V shared memory (`shmget`). On Linux 6.18 it cannot be registered with a userfault context, other than for noting
//! stores, although it is made of the same pages as [`SHMEM`](super::shmem::SHMEM).

use super::{Class, MemType, Privately};

/// The type.
pub static SYSV: MemType = MemType {
    name: "System V",
    class: Class::File,
    privately: Privately::Caches,
    fixed_size: true,
    guest_only: false,
    pool: None,
    uffd: None,
};
