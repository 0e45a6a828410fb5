//! Memory in huge pages of 2 MiB from a pool that is set aside beforehand
//! ([`FrameAllocator::reserve_huge`](crate::mm::frame::FrameAllocator::reserve_huge)).
//!
//! There is no shared huge page of zeros, so ZEROPAGE is not among the operations, and its objects cannot be written to
//! other than through a mapping (as on Linux). A mapping is promised the pages that it can come to need, unless it does without
//! ([`VmaFlags::NO_RESERVE`](crate::mm::vma::VmaFlags::NO_RESERVE), Linux's `MAP_NORESERVE`): then a touch that finds the pool
//! empty is a bus error. A fork's child was promised nothing.

use super::{
    AllocError, CacheOps, Class, Granule, MemType, Modes, OpSet, PoolOps, Privately, Supply, UffdOps,
};
use crate::mm::frame::{Anon, Frame, allocator};

/// The type.
pub static HUGETLB: MemType = MemType {
    name: "huge",
    class: Class::Hugetlb,
    privately: Privately::Itself,
    fixed_size: false,
    guest_only: false,
    pool: Some(&POOL),
    uffd: Some(
        UffdOps {
            modes: Modes::MISSING.union(Modes::MINOR).union(Modes::WP),
            ops: OpSet::COPY
                .union(OpSet::CONTINUE)
                .union(OpSet::WRITEPROTECT)
                .union(OpSet::POISON),
            granule: Granule::Huge,
            filled_by_write: false,
            alloc: Supply::Pool(from_pool),
            cache: Some(CacheOps::PAGE_CACHE),
        }
        .checked(),
    ),
};

/// A huge page from the pool, with arbitrary contents.
///
/// # Errors
/// The pool is empty.
pub fn from_pool() -> Result<Frame<Anon>, AllocError> {
    Ok(Frame::alloc_huge()?)
}

/// The pool.
static POOL: PoolOps = PoolOps {
    promise: || Ok(allocator().promise_huge()?),
    release: || allocator().release_promised_huge(),
    alloc: || Ok(Frame::alloc_promised_huge()?),
};
