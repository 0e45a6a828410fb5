//! Physical memory: who owns which frame.
//!
//! ```text
//!   Frame<K>  one owner        Folio  counted owners          handles; dropping the last one frees
//!        └──────────┬──────────────┘
//!            FrameAllocator ── per-CPU caches (order 0) ── buddy (orders 0..=10)
//!                   ├── the pool of huge pages (order 9, set aside)
//!                   └── FrameMeta, 32 bytes per frame: kind, order, references, links
//! ```
//!
//! A frame's *kind* is in its type ([`Frame<Table>`], [`Frame<Anon>`]) and in its metadata, where it is counted, so
//! that a leak can be named. Frames come as blocks of 2^order base frames; `Frame` is a handle to one block.
//!
//! Locks: the buddy's lock is the innermost of the kernel; nothing is taken under it. Interrupt handlers do not
//! allocate.

mod alloc;
mod buddy;
mod handle;
mod list;
mod meta;
mod percpu;
mod pool;
mod resize;
#[cfg(test)]
mod tests;

pub use alloc::{FrameAllocator, Stats};
pub use handle::{Anon, Dma, Folio, Frame, FrameKind, Heap, KernelData, Stack, Table};
pub use list::{BATCH, FolioBatch};
pub use meta::{FrameMeta, Kind};
pub use pool::{HugePages, PoolEmpty};
pub(in crate::mm) use resize::{can_merge_block, merge_block, split_block};

use crate::arch::{Machine, Memory};

/// Largest order of a block: 2^10 frames, 4 MiB.
pub const MAX_ORDER: u8 = 10;
/// Order of a 2 MiB block.
pub const ORDER_2M: u8 = 9;

/// No block of the wanted order is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

impl core::fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of physical memory")
    }
}

/// The frame allocator of this machine.
#[inline]
pub fn allocator() -> &'static FrameAllocator {
    &Machine::mm().frames
}
