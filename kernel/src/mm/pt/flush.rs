//! The duty to flush, as a value.

use arrayvec::ArrayVec;

use crate::mm::addr::{PAGE_SIZE, PageAddr};
use crate::mm::frame::{Folio, FolioBatch, Frame, Table};
use crate::mm::range::AddrRange;

/// Nodes that one flush can carry.
const NODES: usize = 16;

/// Whoever can drop stale translations on every CPU that may hold them: INVLPG and shoot-downs at stage 1, INVEPT or
/// an ASID flush at stage 2.
pub trait Invalidator<A> {
    /// Drops everything cached for `range`; returns when no CPU can use it any more. `pages` entries in it changed.
    fn invalidate(&self, range: AddrRange<A>, pages: u64);
}

/// Changes whose old translations may still be cached, and the memory that those reach.
///
/// It must be spent; dropping one that is not empty is a bug and panics.
#[must_use = "stale translations stay in use until the flush is spent"]
#[derive(Debug)]
pub struct Flush<A> {
    touched: Option<AddrRange<A>>,
    pages: u64,
    folios: FolioBatch,
    nodes: ArrayVec<Frame<Table>, NODES>,
}

impl<A: PageAddr> Default for Flush<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Drop for Flush<A> {
    fn drop(&mut self) {
        // A host test that fails in between has something better to say than "aborted".
        #[cfg(not(target_os = "none"))]
        if std::thread::panicking() {
            return;
        }
        assert!(
            self.touched.is_none(),
            "a flush of {} pages was dropped instead of spent",
            self.pages
        );
    }
}

impl<A: PageAddr> Flush<A> {
    /// Nothing to flush yet.
    pub const fn new() -> Self {
        Self {
            touched: None,
            pages: 0,
            folios: FolioBatch::new(),
            nodes: ArrayVec::new_const(),
        }
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.touched.is_none()
    }

    /// Whether it must be spent before anything more is added.
    pub fn is_full(&self) -> bool {
        self.folios.is_full() || self.nodes.is_full()
    }

    /// Entries changed so far.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Notes that the translation of `[start, start + size)` was taken away or restricted.
    pub(super) fn touch(&mut self, start: u64, size: u64) {
        let (start, end) = (A::from_u64(start), A::from_u64(start + size));
        let range = match self.touched {
            None => AddrRange { start, end },
            Some(old) => AddrRange {
                start: old.start.min(start),
                end: old.end.max(end),
            },
        };
        self.touched = Some(range);
        self.pages += 1;
    }

    /// Notes that `pages` translations in `[start, start + size)` were restricted or changed.
    #[inline]
    pub(super) fn touch_run(&mut self, start: u64, size: u64, pages: u64) {
        self.touch(start, size);
        self.pages += pages - 1;
    }

    /// Adds all of `range`: somebody else has restricted translations there, and may not have dropped them yet.
    #[cold]
    pub fn cover(&mut self, range: AddrRange<A>) {
        let (start, end) = (range.start.to_u64(), range.end.to_u64());
        self.touch_run(start, end - start, (end - start) / PAGE_SIZE);
    }

    /// Keeps a folio until the flush is spent. The caller has touched its address.
    pub(super) fn keep(&mut self, folio: Folio) {
        self.folios.push(folio);
    }

    /// Keeps a node until the flush is spent: a CPU may still walk through it.
    pub(super) fn keep_node(&mut self, node: Frame<Table>) {
        self.nodes.push(node);
    }

    /// Has `tlb` drop the stale translations, and then lets go of what they reached. The flush is empty afterwards.
    ///
    /// By reference: the batches it carries are too large to be moved on every fault.
    #[inline]
    pub fn spend(&mut self, tlb: &(impl Invalidator<A> + ?Sized)) {
        if let Some(range) = self.touched.take() {
            self.carry_out(range, tlb);
        }
    }

    #[cold]
    fn carry_out(&mut self, range: AddrRange<A>, tlb: &(impl Invalidator<A> + ?Sized)) {
        tlb.invalidate(range, self.pages);
        self.pages = 0;
        self.folios.release();
        self.nodes.clear();
    }
}
