//! Raw access to a node: 512 entries in one frame.
//!
//! The only place that turns stored numbers back into owners; see the invariants in the module above.
#![expect(
    unsafe_code,
    reason = "page-table nodes are raw memory that the CPU reads too"
)]

use core::marker::PhantomData;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use super::format::{Attr, AttrFlags, Entry, Leaf, Level, Prot, PtFormat};
use crate::mm::addr::Pfn;
use crate::mm::frame::{Folio, Frame, FrameMeta, OutOfFrames, Table, allocator};
use crate::mm::phys;

/// Entries in a node.
pub(super) const ENTRIES: usize = 512;

/// A node of a table, found by following owned entries.
#[derive(Debug)]
pub(super) struct Node<F> {
    entries: *const AtomicU64,
    format: PhantomData<F>,
}

impl<F> Clone for Node<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Node<F> {}

// SAFETY: a node is a name like the frame number it was made of. What can be done with it is decided by the table that it
// belongs to, which its users borrow; entries are atomics.
unsafe impl<F> Send for Node<F> {}
// SAFETY: as above.
unsafe impl<F> Sync for Node<F> {}

impl<F> Node<F> {
    /// No node at all.
    pub(super) const fn none() -> Self {
        Self {
            entries: core::ptr::null(),
            format: PhantomData,
        }
    }
}

impl<F: PtFormat> Node<F> {
    /// The node in frame `pfn`.
    ///
    /// Callers are the table and cursor code of this module: they got `pfn` from a root they borrow or from a `Table` entry
    /// below it, so the frame is a live node for as long as they use the result (invariant 1).
    #[inline]
    pub(super) fn at(pfn: Pfn) -> Self {
        Self {
            entries: phys::frame_ptr(pfn).cast(),
            format: PhantomData,
        }
    }

    #[inline]
    fn slot(&self, index: usize) -> &AtomicU64 {
        assert!(index < ENTRIES);
        // SAFETY: the frame is a live node (see `at`) of 512 aligned 8-byte entries; the CPU and other walkers access them
        // atomically too.
        unsafe { &*self.entries.add(index) }
    }

    /// Decodes an entry.
    #[inline]
    pub(super) fn load(&self, index: usize, level: Level) -> Entry {
        F::decode(self.slot(index).load(Ordering::Acquire), level)
    }

    /// The node that an entry points to, if it does; otherwise the entry.
    #[inline]
    pub(super) fn follow(&self, index: usize, level: Level) -> Result<Pfn, Entry> {
        let raw = self.slot(index).load(Ordering::Acquire);
        F::decode_table(raw, level).ok_or_else(|| F::decode(raw, level))
    }

    /// Whether an entry is [`Entry::EMPTY`], without decoding it.
    #[inline(always)]
    pub(super) fn is_vacant(&self, index: usize) -> bool {
        self.slot(index).load(Ordering::Acquire) == F::EMPTY
    }

    /// An entry's bits.
    #[inline]
    pub(super) fn raw(&self, index: usize) -> u64 {
        self.slot(index).load(Ordering::Acquire)
    }

    /// Replaces an entry that still has the bits `raw` by one that owns what it owned; false when it has others by now.
    #[inline]
    pub(super) fn exchange(&self, index: usize, level: Level, raw: u64, entry: &Entry) -> bool {
        let new = F::encode(entry, level);
        self.slot(index)
            .compare_exchange(raw, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Flips, in up to `count` entries from `first` on, the bits that `bits` says of each, and stops before the first of
    /// which it says `None`. Returns how many entries that were. Whatever the hardware sets there meanwhile stays.
    ///
    /// `bits` names none that say what the entry owns, or that the hardware changes.
    #[inline(always)]
    pub(super) fn flip_while(
        &self,
        first: usize,
        count: usize,
        mut bits: impl FnMut(u64) -> Option<u64>,
    ) -> usize {
        assert!(first <= ENTRIES && count <= ENTRIES - first);
        // SAFETY: as in `slot`; all of them lie in the node.
        let slots = unsafe { slice::from_raw_parts(self.entries.add(first), count) };
        for (done, slot) in slots.iter().enumerate() {
            let Some(flip) = bits(slot.load(Ordering::Acquire)) else {
                return done;
            };
            if flip != 0 {
                slot.fetch_xor(flip, Ordering::AcqRel);
            }
        }
        count
    }

    /// Replaces an entry and says what it was, with the accessed and dirty bits it had at the very end.
    ///
    /// Who owned what the old entry named is now the caller's business.
    #[inline]
    pub(super) fn swap(&self, index: usize, level: Level, entry: &Entry) -> Entry {
        F::decode(
            self.slot(index).swap(F::encode(entry, level), Ordering::AcqRel),
            level,
        )
    }

    /// Adds `noted` to the flags of an entry that has the rights and attributes of `leaf`. Whatever the hardware sets
    /// there meanwhile stays.
    pub(super) fn note(&self, index: usize, level: Level, leaf: &Leaf, noted: AttrFlags) {
        let mut more = *leaf;
        more.attr.flags |= noted;
        let (without, with) = (
            F::encode(&Entry::Leaf(*leaf), level),
            F::encode(&Entry::Leaf(more), level),
        );
        self.slot(index).fetch_or(with & !without, Ordering::AcqRel);
    }

    /// Fills an entry that is absent; nothing owned is lost.
    #[inline(always)]
    pub(super) fn fill(&self, index: usize, level: Level, entry: &Entry) {
        debug_assert!(matches!(self.load(index, level), Entry::Absent(_)));
        self.slot(index).store(F::encode(entry, level), Ordering::Release);
    }

    /// Copies an entry's bits from another node; neither side may own what it names.
    pub(super) fn alias(&self, index: usize, from: &Self) {
        self.slot(index)
            .store(from.slot(index).load(Ordering::Acquire), Ordering::Release);
    }
}

/// A fresh node with nothing in it; its `Table` entry will own it.
pub(super) fn new_node<F: PtFormat>() -> Result<Pfn, OutOfFrames> {
    if F::EMPTY == 0 {
        return Ok(Frame::<Table>::alloc_zeroed()?.into_raw());
    }
    let pfn = Frame::<Table>::alloc()?.into_raw();
    let node = Node::<F>::at(pfn);
    (0..ENTRIES).for_each(|index| node.slot(index).store(F::EMPTY, Ordering::Relaxed));
    Ok(pfn)
}

/// The node that a `Table` entry owned, out of that entry.
pub(super) fn reclaim_node(entry: Taken) -> Option<Frame<Table>> {
    match entry.0 {
        // SAFETY: `Taken` is made once per entry that was swapped out, and the entry owned its node (invariant 1).
        Entry::Table(pfn) => Some(unsafe { Frame::from_raw(pfn) }),
        _ => None,
    }
}

/// The reference that a leaf owned, out of that entry; `None` for borrowed leaves.
pub(super) fn reclaim_leaf(entry: Taken) -> Option<Folio> {
    match entry.0 {
        // SAFETY: `Taken` is made once per entry that was swapped out, and an owned leaf stands for one reference
        // (invariant 2).
        Entry::Leaf(leaf) if !leaf.attr.is_borrowed() => Some(unsafe { Folio::from_raw(leaf.frame) }),
        _ => None,
    }
}

/// A further reference to the folio of an owned leaf that stays where it is.
pub(super) fn share_leaf(leaf: &Leaf) -> Option<Folio> {
    if leaf.attr.is_borrowed() {
        return None;
    }
    // SAFETY: the leaf owns a reference (invariant 2) and cannot go away while the caller borrows the table (invariant 3).
    Some(unsafe { Folio::share_raw(leaf.frame) })
}

/// How many owners folios have, for whoever asks about many.
#[derive(Clone, Copy)]
pub(super) struct Owners(&'static [FrameMeta]);

impl Owners {
    /// Of all frames.
    #[inline]
    pub(super) fn known() -> Self {
        Self(allocator().table())
    }

    /// Whether the folio at `frame` has one owner. What those who let go before did to the bytes is visible afterwards.
    ///
    /// Callers got `frame` from an owned leaf of the table that they borrow.
    #[inline]
    pub(super) fn is_one(self, frame: Pfn) -> bool {
        debug_assert!((frame.as_u64() as usize) < self.0.len());
        // SAFETY: the leaf owns a reference to a folio (invariant 2), so the frame is one of the allocator's.
        let meta = unsafe { self.0.get_unchecked(frame.as_u64() as usize) };
        meta.owners() == 1
    }
}

/// An entry that was swapped out of a node and whose ownership has to go somewhere. Not `Copy`: it is used up once.
#[must_use]
#[derive(Debug)]
pub(super) struct Taken(Entry);

impl Taken {
    /// Takes the entry at `index`, leaving `new` there.
    #[inline]
    pub(super) fn out_of<F: PtFormat>(node: Node<F>, index: usize, level: Level, new: &Entry) -> Self {
        Self(node.swap(index, level, new))
    }

    /// What it was.
    pub(super) fn entry(&self) -> &Entry {
        &self.0
    }
}

impl Taken {
    /// Puts it into an absent entry of the same level, which owns from now on what the old entry owned. Of a leaf, frame and
    /// whether it is owned stay; rights and the rest are what `arrive` makes of the old one.
    #[inline]
    pub(super) fn put_down<F: PtFormat>(
        self,
        node: Node<F>,
        index: usize,
        level: Level,
        arrive: &impl Fn(&Leaf) -> (Prot, Attr),
    ) {
        match self.0 {
            Entry::Leaf(old) => {
                let (prot, attr) = arrive(&old);
                let new = Leaf { prot, attr, ..old };
                node.fill(index, level, &Entry::Leaf(new.owned_like(&old)));
            }
            other => node.fill(index, level, &other),
        }
    }

    /// The root of a table that is being dropped, as if a `Table` entry had named it.
    pub(super) fn root(root: Pfn) -> Self {
        Self(Entry::Table(root))
    }
}

/// Frees a node from [`new_node`] that no entry came to own. All its entries are empty.
pub(super) fn drop_new_node(pfn: Pfn) {
    let _node = reclaim_node(Taken::root(pfn));
}
