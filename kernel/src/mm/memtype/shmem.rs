//! Shared memory: objects in base pages that several areas map (`memfd`, tmpfs files, shared anonymous memory).

use super::{CacheOps, Class, Granule, MemType, Modes, OpSet, Privately, Supply, UffdOps};

/// The type. A private mapping takes untouched pages from the object as well, and copies them when they are stored to.
pub static SHMEM: MemType = MemType {
    name: "shared",
    class: Class::Shmem,
    privately: Privately::Caches,
    fixed_size: false,
    guest_only: false,
    pool: None,
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::MINOR).union(Modes::WP),
            ops: OpSet::COPY
                .union(OpSet::ZEROPAGE)
                .union(OpSet::CONTINUE)
                .union(OpSet::WRITEPROTECT)
                .union(OpSet::POISON),
            granule: Granule::Base,
            filled_by_write: true,
            alloc: Supply::Frames,
            cache: Some(CacheOps::PAGE_CACHE),
        }
        .checked(),
    ),
};
