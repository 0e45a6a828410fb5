//! The pool of huge pages: 2 MiB blocks set aside for memory that is made of nothing else.
//!
//! State of a block: `Free → Pooled ⇄ in use → Pooled → Free`. A block from the pool goes back to the pool when its last
//! owner lets go, whoever that is: what was set aside stays set aside, and nobody else's shortage takes it. How many blocks
//! there are changes by [`FrameAllocator::reserve_huge`] and [`FrameAllocator::release_huge`] alone.
//!
//! Locks: the pool's and the buddy's are never held together.

use core::sync::atomic::Ordering::Relaxed;

use super::handle::{Anon, Frame, FrameKind};
use super::meta::{FrameMeta, Kind, NIL, POOLED};
use super::{FrameAllocator, ORDER_2M, OutOfFrames};
use crate::mm::addr::Pfn;

/// No huge page of the pool is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolEmpty;

/// Figures of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HugePages {
    /// Huge pages set aside, in use or not.
    pub total: u64,
    /// Those that nobody uses.
    pub free: u64,
}

/// Free blocks, as a list through their metadata.
#[derive(Debug)]
pub(super) struct HugePool {
    head: u32,
    pages: HugePages,
}

impl HugePool {
    /// Nothing set aside.
    pub(super) const fn new() -> Self {
        Self {
            head: NIL,
            pages: HugePages { total: 0, free: 0 },
        }
    }

    fn push(&mut self, meta: &FrameMeta, block: u32) {
        meta.next.store(self.head, Relaxed);
        self.head = block;
        self.pages.free += 1;
    }

    fn pop(&mut self, table: &[FrameMeta]) -> Option<u32> {
        if self.head == NIL {
            return None;
        }
        let block = self.head;
        self.head = table[block as usize].next.load(Relaxed);
        self.pages.free -= 1;
        Some(block)
    }
}

impl FrameAllocator {
    /// Sets `count` more huge pages aside.
    ///
    /// # Errors
    /// There are not so many blocks of 2 MiB; nothing changed then.
    pub fn reserve_huge(&self, count: u64) -> Result<(), OutOfFrames> {
        let mut fresh = HugePool::new();
        while fresh.pages.free < count {
            match self.alloc(ORDER_2M, Kind::Pooled) {
                Ok(pfn) => fresh.push(self.meta(pfn), pfn.as_u64() as u32),
                Err(error) => {
                    while let Some(block) = fresh.pop(self.table()) {
                        self.free(Pfn::new(u64::from(block)));
                    }
                    return Err(error);
                }
            }
        }
        let mut pool = self.huge.lock();
        while let Some(block) = fresh.pop(self.table()) {
            pool.push(&self.table()[block as usize], block);
        }
        pool.pages.total += count;
        Ok(())
    }

    /// Gives up to `count` huge pages back that nobody uses; returns how many it were.
    pub fn release_huge(&self, count: u64) -> u64 {
        for released in 0..count {
            let mut pool = self.huge.lock();
            let Some(block) = pool.pop(self.table()) else {
                return released;
            };
            pool.pages.total -= 1;
            drop(pool);
            self.free(Pfn::new(u64::from(block)));
        }
        count
    }

    /// Figures of this moment.
    pub fn huge_pages(&self) -> HugePages {
        self.huge.lock().pages
    }

    /// Takes a huge page out for `kind`, with one reference. Contents are whatever they were.
    fn alloc_huge(&self, kind: Kind) -> Result<Pfn, PoolEmpty> {
        if self.injected_failure() {
            return Err(PoolEmpty);
        }
        let block = self.huge.lock().pop(self.table()).ok_or(PoolEmpty)?;
        let meta = &self.table()[block as usize];
        meta.flags.store(POOLED, Relaxed);
        self.change_kind(meta, kind);
        meta.refs.store(1, Relaxed);
        Ok(Pfn::new(u64::from(block)))
    }

    /// Puts a block of the pool back whose last reference is gone.
    #[cold]
    pub(super) fn free_huge(&self, meta: &FrameMeta, block: u32) {
        meta.flags.store(0, Relaxed);
        self.change_kind(meta, Kind::Pooled);
        self.huge.lock().push(meta, block);
    }

    fn change_kind(&self, meta: &FrameMeta, kind: Kind) {
        self.note_kind(meta.kind(), kind, ORDER_2M);
        meta.kind.store(kind as u8, Relaxed);
    }
}

impl Frame<Anon> {
    /// A huge page from the pool; its contents are whatever they were.
    ///
    /// # Errors
    /// None is free.
    pub fn alloc_huge() -> Result<Self, PoolEmpty> {
        super::allocator().alloc_huge(Anon::KIND).map(Self::new)
    }
}
