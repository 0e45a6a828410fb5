//! The pool of huge pages: 2 MiB blocks set aside for memory that is made of nothing else.
//!
//! State of a block: `Free → Pooled ⇄ in use → Pooled → Free`. A block from the pool goes back to the pool when its last
//! owner lets go, whoever that is: what was set aside stays set aside, and nobody else's shortage takes it. How many blocks
//! there are changes by [`FrameAllocator::reserve_huge`] and [`FrameAllocator::release_huge`] alone.
//!
//! Free blocks can be promised: one for each promise is kept from everybody else ([`Promise`](crate::mm::cache::Promise) knows
//! for which page of whose). A block that was taken on a promise is marked until it is used; marked, it goes back as a promised
//! one.
//!
//! Locks: the pool's and the buddy's are never held together.

use core::sync::atomic::Ordering::Relaxed;

use super::handle::{Anon, Frame, FrameKind};
use super::meta::{FrameMeta, Kind, NIL, POOLED, PROMISED};
use super::{FrameAllocator, ORDER_2M, OutOfFrames};
use crate::mm::addr::Pfn;

/// No huge page of the pool is free, or those that are have been promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolEmpty;

/// Figures of the pool.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HugePages {
    /// Huge pages set aside, in use or not.
    pub total: u64,
    /// Those that nobody uses.
    pub free: u64,
    /// Those of them that only somebody gets who was promised one.
    pub promised: u64,
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
            pages: HugePages {
                total: 0,
                free: 0,
                promised: 0,
            },
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

    /// Whether a block is free that nobody was promised.
    fn has_spare(&self) -> bool {
        self.pages.free > self.pages.promised
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

    /// Gives up to `count` huge pages back that nobody uses or was promised; returns how many it were.
    pub fn release_huge(&self, count: u64) -> u64 {
        for released in 0..count {
            let mut pool = self.huge.lock();
            if !pool.has_spare() {
                return released;
            }
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

    /// Promises a huge page: one of those that are free is kept for whoever takes it with
    /// [`Frame::alloc_promised_huge`].
    ///
    /// # Errors
    /// All that are free have been promised.
    pub fn promise_huge(&self) -> Result<(), PoolEmpty> {
        let mut pool = self.huge.lock();
        if !pool.has_spare() {
            return Err(PoolEmpty);
        }
        pool.pages.promised += 1;
        Ok(())
    }

    /// Takes back one promise that was not used.
    pub fn release_promised_huge(&self) {
        self.huge.lock().pages.promised -= 1;
    }

    /// Has a huge page go back as a promised one.
    pub(in crate::mm) fn mark_promised(&self, page: Pfn) {
        self.meta(page).flags.fetch_or(PROMISED, Relaxed);
    }

    /// A page that was promised is used: it goes back like any other.
    pub(in crate::mm) fn unmark_promised(&self, page: Pfn) {
        self.meta(page).flags.fetch_and(!PROMISED, Relaxed);
    }

    /// Takes a huge page out for `kind`, with one reference; with `promised` one that was. Contents are whatever they were.
    fn alloc_huge(&self, kind: Kind, promised: bool) -> Result<Pfn, PoolEmpty> {
        if self.injected_failure() {
            return Err(PoolEmpty);
        }
        let mut pool = self.huge.lock();
        if !promised && !pool.has_spare() {
            return Err(PoolEmpty);
        }
        let block = pool.pop(self.table()).ok_or(PoolEmpty)?;
        pool.pages.promised -= u64::from(promised);
        drop(pool);
        let meta = &self.table()[block as usize];
        let mark = if promised { PROMISED } else { 0 };
        meta.flags.store(POOLED | mark, Relaxed);
        self.change_kind(meta, kind);
        meta.refs.store(1, Relaxed);
        Ok(Pfn::new(u64::from(block)))
    }

    /// Puts a block of the pool back whose last reference is gone.
    #[cold]
    pub(super) fn free_huge(&self, meta: &FrameMeta, block: u32) {
        let flags = meta.flags.swap(0, Relaxed);
        self.change_kind(meta, Kind::Pooled);
        let mut pool = self.huge.lock();
        pool.push(meta, block);
        pool.pages.promised += u64::from(flags & PROMISED != 0);
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
    /// None is free that nobody was promised.
    pub fn alloc_huge() -> Result<Self, PoolEmpty> {
        super::allocator().alloc_huge(Anon::KIND, false).map(Self::new)
    }

    /// The same on a promise, which the page takes back with it unless it is used.
    ///
    /// # Errors
    /// None but injected ones: there is one for each promise.
    pub fn alloc_promised_huge() -> Result<Self, PoolEmpty> {
        super::allocator().alloc_huge(Anon::KIND, true).map(Self::new)
    }
}
