//! The frame allocator: metadata, buddy and per-CPU caches under one roof.
//!
//! State of a block: `Reserved → Free ⇄ Cached → in use (a kind of its own) → Cached or Free`.
//! Only this file and, for huge pages, [`super::pool`] move a block from one state to another.
#![expect(unsafe_code, reason = "holds the raw metadata table")]

use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};

use super::buddy::Buddy;
use super::meta::{FrameMeta, IN_CACHE, Kind, POOLED};
use super::percpu::{BATCH, BATCH_ORDER, CAPACITY, Caches};
use super::pool::HugePool;
use super::{MAX_ORDER, OutOfFrames};
use crate::arch::{Machine, Memory};
use crate::mm::addr::{PAGE_SIZE, Pfn};
use crate::sync::SpinLock;

const KINDS: usize = Kind::ALL.len();
const NO_INJECTION: u64 = u64::MAX;

/// All frames of the machine.
#[derive(Debug)]
pub struct FrameAllocator {
    meta: AtomicPtr<FrameMeta>,
    frames: AtomicUsize,
    buddy: SpinLock<Buddy>,
    pub(super) huge: SpinLock<HugePool>,
    caches: Caches,
    /// `CAPACITY`, or 0 while failures are injected, so that every allocation takes the path that checks.
    cache_limit: AtomicUsize,
    /// Allocations that still succeed before one fails; `NO_INJECTION` when none shall.
    fail_after: AtomicU64,
    /// Frames that only the kernel's heap may take.
    reserve: AtomicU64,
    in_use: [AtomicU64; KINDS],
    managed: AtomicU64,
    failures: AtomicU64,
}

/// Figures of the allocator, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Frames that were given to the allocator.
    pub managed: u64,
    /// Frames free: in the buddy or in a CPU's cache.
    pub free: u64,
    /// Free blocks of each order in the buddy.
    pub free_blocks: [u64; MAX_ORDER as usize + 1],
    /// Frames in use, by kind.
    pub in_use: [u64; KINDS],
    /// Allocations that failed.
    pub failures: u64,
}

impl Stats {
    /// Frames in use as `kind`.
    pub fn of(&self, kind: Kind) -> u64 {
        self.in_use[kind as usize]
    }
}

impl Default for FrameAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameAllocator {
    /// An allocator without memory.
    pub const fn new() -> Self {
        Self {
            meta: AtomicPtr::new(ptr::dangling_mut()),
            frames: AtomicUsize::new(0),
            buddy: SpinLock::new(Buddy::new()),
            huge: SpinLock::new(HugePool::new()),
            caches: Caches::new(),
            cache_limit: AtomicUsize::new(CAPACITY),
            fail_after: AtomicU64::new(NO_INJECTION),
            reserve: AtomicU64::new(0),
            in_use: [const { AtomicU64::new(0) }; KINDS],
            managed: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Gives the allocator its metadata table: one entry for each of the first `frames` frames of physical memory,
    /// all of them `Reserved` afterwards.
    ///
    /// # Safety
    /// `table` is valid for `frames` entries for as long as the allocator is used, and nothing else touches it. Called
    /// once, before anything else.
    pub unsafe fn install(&self, table: *mut FrameMeta, frames: usize) {
        for i in 0..frames {
            // SAFETY: in bounds, and nobody reads the table before it is installed.
            unsafe { table.add(i).write(FrameMeta::reserved()) };
        }
        self.meta.store(table, Relaxed);
        self.frames.store(frames, Release);
    }

    /// Hands the frames `[start, end)` to the allocator.
    ///
    /// # Safety
    /// They are RAM that the direct map reaches, nothing else uses them, and they were not handed over before.
    ///
    /// # Panics
    /// They lie outside the metadata table or are not `Reserved`.
    pub unsafe fn donate(&self, start: Pfn, end: Pfn) {
        let meta = self.table();
        let (mut at, end) = (start.as_u64() as u32, end.as_u64() as u32);
        let mut buddy = self.buddy.lock();
        self.managed.fetch_add(u64::from(end.saturating_sub(at)), Relaxed);
        while at < end {
            let aligned = at.trailing_zeros().min(u32::from(MAX_ORDER)) as u8;
            let fits = (end - at).ilog2().min(u32::from(MAX_ORDER)) as u8;
            let order = aligned.min(fits);
            for m in &meta[at as usize..(at + (1 << order)) as usize] {
                assert_eq!(m.kind(), Kind::Reserved, "frames handed over twice");
                m.kind.store(Kind::Free as u8, Relaxed);
            }
            buddy.free(meta, at, order);
            at += 1 << order;
        }
    }

    /// Metadata of every frame, by number.
    #[inline]
    pub(in crate::mm) fn table(&self) -> &[FrameMeta] {
        // The length first: with one that is not 0, the table is seen too.
        let len = self.frames.load(Acquire);
        // SAFETY: `install` gave a table of this length that lives as long as the allocator is used; entries are atomics. Before,
        // the length is 0 and the pointer dangles, aligned.
        unsafe { core::slice::from_raw_parts(self.meta.load(Relaxed), len) }
    }

    /// Number of frames the metadata table covers.
    pub fn span(&self) -> u64 {
        self.frames.load(Relaxed) as u64
    }

    /// Metadata of a frame.
    ///
    /// # Panics
    /// The frame lies outside the table.
    #[inline]
    pub fn meta(&self, pfn: Pfn) -> &FrameMeta {
        &self.table()[pfn.as_u64() as usize]
    }

    /// Whether the block at `pfn` is a page of a memory object's cache.
    pub(crate) fn is_cached(&self, pfn: Pfn) -> bool {
        self.meta(pfn).flags.load(Relaxed) & IN_CACHE != 0
    }

    /// Number of owners of the block at `pfn` at this moment. What those who let go before did to the bytes is visible
    /// afterwards.
    pub(crate) fn owners(&self, pfn: Pfn) -> u32 {
        self.meta(pfn).owners()
    }

    /// Takes a block of 2^`order` frames for `kind`, with one reference. Contents are whatever they were.
    ///
    /// # Errors
    /// No such block is free, or a failure was injected.
    #[inline]
    pub(super) fn alloc(&self, order: u8, kind: Kind) -> Result<Pfn, OutOfFrames> {
        let block = match order {
            0 => self
                .caches
                .with(|cache| cache.pop().or_else(|| self.refill(cache, kind))),
            _ => self.alloc_block(order, kind),
        };
        let Some(block) = block else {
            self.failures.fetch_add(1, Relaxed);
            return Err(OutOfFrames);
        };
        begin_use(&self.table()[block as usize], order, kind);
        self.in_use[kind as usize].fetch_add(1 << order, Relaxed);
        Ok(Pfn::new(u64::from(block)))
    }

    /// [`Self::alloc`] of up to `wanted` single frames, each of which `give` gets, until there is none.
    ///
    /// # Errors
    /// As there; `give` has got those that there were.
    #[inline]
    pub(super) fn alloc_some(
        &self,
        wanted: usize,
        kind: Kind,
        mut give: impl FnMut(Pfn),
    ) -> Result<(), OutOfFrames> {
        let table = self.table();
        let given = self.caches.with(|cache| {
            for given in 0..wanted {
                let Some(block) = cache.pop().or_else(|| self.refill(cache, kind)) else {
                    return given;
                };
                begin_use(&table[block as usize], 0, kind);
                give(Pfn::new(u64::from(block)));
            }
            wanted
        });
        self.in_use[kind as usize].fetch_add(given as u64, Relaxed);
        if given < wanted {
            self.failures.fetch_add(1, Relaxed);
            return Err(OutOfFrames);
        }
        Ok(())
    }

    /// Gives a block back whose last reference is gone.
    ///
    /// # Panics
    /// The block is not in use: a double free.
    #[inline]
    pub(super) fn free(&self, pfn: Pfn) {
        let block = pfn.as_u64() as u32;
        let meta = self.meta(pfn);
        let (order, kind) = (meta.order.load(Relaxed), meta.kind());
        assert!(
            !matches!(kind, Kind::Reserved | Kind::Free | Kind::Cached),
            "double free of {pfn:?} ({kind:?})"
        );
        Machine::note_freed(pfn, order);
        meta.refs.store(0, Relaxed);
        if order > 0 && meta.flags.load(Relaxed) & POOLED != 0 {
            return self.free_huge(meta, block);
        }
        self.in_use[kind as usize].fetch_sub(1 << order, Relaxed);
        if order > 0 {
            self.buddy.lock().free(self.table(), block, order);
            return;
        }
        self.caches.with(|cache| {
            let limit = self.cache_limit.load(Relaxed);
            if cache.len() >= limit {
                self.spill(cache, limit.saturating_sub(BATCH));
            }
            if limit == 0 {
                self.buddy.lock().free(self.table(), block, 0);
            } else {
                meta.kind.store(Kind::Cached as u8, Relaxed);
                cache.push(block);
            }
        });
    }

    /// A block in use is used for something else now.
    pub(super) fn note_kind(&self, old: Kind, new: Kind, order: u8) {
        self.in_use[new as usize].fetch_add(1 << order, Relaxed);
        self.in_use[old as usize].fetch_sub(1 << order, Relaxed);
    }

    /// Keeps the last `frames` frames for the kernel's heap: whatever programs take, the kernel can still note down that they
    /// took it. Page tables, without which the heap cannot grow either, may take half of them. A CPU's cache may hold a few
    /// that count as taken.
    pub fn keep_for_heap(&self, frames: u64) {
        self.reserve.store(frames, Relaxed);
    }

    /// Whether the heap has begun to live on what is kept for it: nothing should be begun that has to be noted down.
    pub fn is_short(&self) -> bool {
        self.free_in_buddy() < self.reserve.load(Relaxed) / 4 * 3
    }

    /// Whether the heap may grow by `bytes` for something whose length a program chooses, without living on what is kept for
    /// it. What fits a page need not be asked about.
    pub fn can_spare(&self, bytes: usize) -> bool {
        let (frames, reserve) = (bytes as u64 / PAGE_SIZE, self.reserve.load(Relaxed));
        frames == 0 || reserve == 0 || self.free_in_buddy() >= reserve / 4 * 3 + frames
    }

    /// How many frames of `buddy` are for `kind`.
    fn room(&self, buddy: &Buddy, kind: Kind) -> u64 {
        let reserve = self.reserve.load(Relaxed);
        let kept = match kind {
            Kind::Heap => 0,
            Kind::Table => reserve / 2,
            _ => reserve,
        };
        buddy.free_frames().saturating_sub(kept)
    }

    fn alloc_block(&self, order: u8, kind: Kind) -> Option<u32> {
        if self.injected_failure() || self.room(&self.buddy.lock(), kind) < 1 << order {
            return None;
        }
        let block = self.buddy.lock().alloc(self.table(), order);
        block.or_else(|| {
            // This CPU's cached frames may be what is missing between free neighbours.
            self.flush_cache();
            self.buddy.lock().alloc(self.table(), order)
        })
    }

    /// Takes one frame and, unless failures are injected, more for the cache.
    #[cold]
    fn refill(&self, cache: &mut arrayvec::ArrayVec<u32, CAPACITY>, kind: Kind) -> Option<u32> {
        if self.injected_failure() {
            return None;
        }
        let table = self.table();
        let mut buddy = self.buddy.lock();
        let room = self.room(&buddy, kind);
        if room == 0 {
            return None;
        }
        let order = if self.cache_limit.load(Relaxed) == 0 || room < BATCH as u64 {
            0
        } else {
            BATCH_ORDER
        };
        // A whole block at once costs a tenth of so many single frames; when memory is short, one frame will do.
        let Some(first) = buddy.alloc(table, order) else {
            return buddy.alloc(table, 0);
        };
        // The stack hands out the frame pushed last: neighbours come in ascending order.
        for block in (first + 1..first + (1 << order)).rev() {
            let meta = &table[block as usize];
            meta.order.store(0, Relaxed);
            meta.kind.store(Kind::Cached as u8, Relaxed);
            cache.push(block);
        }
        table[first as usize].order.store(0, Relaxed);
        Some(first)
    }

    fn spill(&self, cache: &mut arrayvec::ArrayVec<u32, CAPACITY>, keep: usize) {
        let mut buddy = self.buddy.lock();
        for block in cache.drain(keep.min(cache.len())..) {
            buddy.free(self.table(), block, 0);
        }
    }

    /// Whether an allocation that is about to be made shall fail, of frames or of anything else that may fail.
    pub(in crate::mm) fn injected_failure(&self) -> bool {
        // Off: one load and a compare, on a slow path.
        self.fail_after.load(Relaxed) != NO_INJECTION
            && self
                .fail_after
                .try_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(1)))
                .is_ok_and(|before| before == 0)
    }

    /// Makes allocations (of frames, and of room for records that may be refused) fail after `successes` more have succeeded, until
    /// [`Self::stop_injection`].
    ///
    /// Meant for one CPU: caches of other CPUs may still hold frames.
    pub fn inject_failure(&self, successes: u64) {
        self.cache_limit.store(0, Relaxed);
        self.flush_cache();
        self.fail_after.store(successes, Relaxed);
    }

    /// Ends what [`Self::inject_failure`] began.
    pub fn stop_injection(&self) {
        self.fail_after.store(NO_INJECTION, Relaxed);
        self.cache_limit.store(CAPACITY, Relaxed);
    }

    /// Returns this CPU's cached frames to the buddy.
    pub fn flush_cache(&self) {
        self.caches.with(|cache| self.spill(cache, 0));
    }

    /// Frames that were given to the allocator, in use or not.
    pub fn managed(&self) -> u64 {
        self.managed.load(Relaxed)
    }

    /// Figures of this moment. Exact only while nobody allocates.
    pub fn stats(&self) -> Stats {
        let managed = self.managed.load(Relaxed);
        let mut in_use = [0; KINDS];
        for (n, counter) in in_use.iter_mut().zip(&self.in_use) {
            *n = counter.load(Relaxed);
        }
        // A frame that changes its kind meanwhile may be counted twice.
        let free = managed.saturating_sub(in_use.iter().sum::<u64>());
        let free_blocks = self.buddy.lock().blocks();
        Stats {
            managed,
            free,
            free_blocks,
            in_use,
            failures: self.failures.load(Relaxed),
        }
    }

    /// Frames in the buddy's free lists; less than [`Stats::free`] by what CPUs hold in their caches.
    pub fn free_in_buddy(&self) -> u64 {
        self.buddy.lock().free_frames()
    }
}

/// A block that was taken is in use as `kind` from now on, and has one owner.
#[inline]
fn begin_use(meta: &FrameMeta, order: u8, kind: Kind) {
    meta.order.store(order, Relaxed);
    meta.kind.store(kind as u8, Relaxed);
    meta.flags.store(0, Relaxed);
    meta.refs.store(1, Relaxed);
}
