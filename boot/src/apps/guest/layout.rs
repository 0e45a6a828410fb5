//! Where a guest's memory lies.

use kernel::abi::guest::IDENTITY_MAPPED;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::range::GuestRange;

/// Where delegated memory begins, whatever there is of ordinary memory.
const DELEGATED_START: u64 = 1 << 30;
/// Where the store begins.
const STORE_START: u64 = 2 << 30;
/// Most bytes of ordinary memory, and of delegated memory.
pub const MAX_BYTES: u64 = 1 << 30;

const _: () = assert!(STORE_START + MAX_BYTES <= IDENTITY_MAPPED);

/// Where a guest's memory lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Ordinary memory, from 0 on.
    pub ordinary: GuestRange,
    /// Delegated memory.
    pub delegated: GuestRange,
}

impl Layout {
    /// So many pages of each kind.
    pub fn new(ordinary: u64, delegated: u64) -> Self {
        Self {
            ordinary: range(0, ordinary),
            delegated: range(DELEGATED_START, delegated),
        }
    }

    /// Where a restored guest sees what its delegated memory held.
    pub fn store(&self) -> GuestRange {
        range(STORE_START, self.delegated.pages())
    }

    /// Pages of both kinds.
    pub fn pages(&self) -> u64 {
        self.ordinary.pages() + self.delegated.pages()
    }
}

fn range(start: u64, pages: u64) -> GuestRange {
    let start = GuestPhysAddr::new(start);
    GuestRange::new(start, start + pages * PAGE_SIZE)
}
