//! A table: its root and what it owns.

use core::marker::PhantomData;
use core::ops::Range;

use super::cursor::Cursor;
use super::format::{Attr, AttrFlags, Entry, Leaf, Level, Marker, Prot, PtFormat};
use super::node::{ENTRIES, Node, Taken, new_node, reclaim_leaf, reclaim_node};
use crate::mm::addr::{PageAddr, Pfn};
use crate::mm::frame::{Folio, OutOfFrames};
use crate::mm::range::AddrRange;

/// What a page is known to have, at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Glance {
    /// An entry of its own without a translation and without a marker.
    Vacant,
    /// A leaf of its own that a userfault context has write-protected.
    Protected,
    /// Nothing was seen at a glance: see [`Cursor::entry`].
    Unknown,
}

/// A four-level table of format `F`.
///
/// It owns the entries `owned` of its root and everything below them; the others alias another table's (the kernel half
/// of a task's table).
#[derive(Debug)]
pub struct PageTable<F: PtFormat> {
    root: Pfn,
    owned: Range<usize>,
    near: Near<F>,
}

/// The `Level::PAGE` node that was visited last, as long as nothing above it changes.
#[derive(Debug)]
struct Near<F> {
    /// Start of the 2 MiB that it translates; [`Near::NOWHERE`] when there is none.
    base: u64,
    node: Node<F>,
}

impl<F> Near<F> {
    /// No multiple of 2 MiB.
    const NOWHERE: u64 = 1;

    const NONE: Self = Self {
        base: Self::NOWHERE,
        node: Node::none(),
    };
}

/// An entry for a base page that holds nothing at all, of a table that is borrowed for changes.
#[derive(Debug)]
#[must_use]
pub struct Vacant<'a, F: PtFormat> {
    at: u64,
    node: Node<F>,
    index: usize,
    table: PhantomData<&'a mut PageTable<F>>,
}

impl<F: PtFormat> Vacant<'_, F> {
    /// The address that it decides about.
    #[inline(always)]
    pub fn addr(&self) -> F::Addr {
        F::Addr::from_u64(self.at)
    }

    /// Has it map `folio`, a base page. No flush is needed: absent entries are not cached.
    #[inline(always)]
    pub fn map(self, folio: Folio, prot: Prot, attr: Attr) {
        debug_assert!(!attr.is_borrowed());
        let frame = folio.into_raw();
        self.fill(&Entry::Leaf(Leaf { frame, prot, attr }));
    }

    /// Has it map memory that it does not own.
    #[inline(always)]
    pub fn map_borrowed(self, frame: Pfn, prot: Prot, mut attr: Attr) {
        attr.flags |= AttrFlags::BORROWED;
        self.fill(&Entry::Leaf(Leaf { frame, prot, attr }));
    }

    /// Sets what it remembers.
    #[inline]
    pub fn mark(self, marker: Marker) {
        self.fill(&Entry::Absent(marker));
    }

    #[inline(always)]
    fn fill(self, entry: &Entry) {
        self.node.fill(self.index, Level::PAGE, entry);
    }
}

impl<F: PtFormat> PageTable<F> {
    /// An empty table that owns all of its root.
    ///
    /// # Errors
    /// No frame for the root.
    pub fn new() -> Result<Self, OutOfFrames> {
        Ok(Self {
            root: new_node::<F>()?,
            owned: 0..ENTRIES,
            near: Near::NONE,
        })
    }

    /// An empty table that owns the lower half of its root; the upper half is `other`'s, whose root entries must not change
    /// or go away as long as this table lives.
    ///
    /// # Errors
    /// No frame for the root.
    pub fn with_upper_half_of(other: &Self) -> Result<Self, OutOfFrames> {
        let table = Self {
            root: new_node::<F>()?,
            owned: 0..ENTRIES / 2,
            near: Near::NONE,
        };
        let (to, from) = (Node::<F>::at(table.root), Node::<F>::at(other.root));
        for index in ENTRIES / 2..ENTRIES {
            to.alias(index, &from);
        }
        Ok(table)
    }

    /// The root node's frame, for the CPU.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// The `Level::PAGE` node for `addr`, if it is the one that was visited last. The table owns it.
    #[inline(always)]
    pub(super) fn near_node(&self, addr: u64) -> Option<Node<F>> {
        (self.near.base == addr & !(Level::MID.size() - 1)).then_some(self.near.node)
    }

    /// Remembers the `Level::PAGE` node for `addr`, in a part that the table owns.
    #[inline]
    pub(super) fn remember(&mut self, addr: u64, node: Node<F>) {
        let base = addr & !(Level::MID.size() - 1);
        self.near = Near { base, node };
    }

    /// Forgets the node that was visited last: something above it changes.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.near = Near::NONE;
    }

    /// Whether this table owns the root entry of `addr`.
    #[inline]
    pub(super) fn owns(&self, addr: u64) -> bool {
        self.owned.contains(&Level::ROOT.index(addr))
    }

    /// What is known about `page` without walking to it and without decoding its entry: enough for most faults.
    #[inline(always)]
    pub fn glance(&self, page: F::Addr) -> Glance {
        let at = page.to_u64();
        let Some(node) = self.near_node(at) else {
            return Glance::Unknown;
        };
        let raw = node.raw(Level::PAGE.index(at));
        if raw == F::EMPTY {
            Glance::Vacant
        } else if F::protected_frame(raw, Level::PAGE).is_some() {
            Glance::Protected
        } else {
            Glance::Unknown
        }
    }

    /// The entry of `page`, if it is seen at a glance that it is vacant. `None` says nothing.
    #[inline(always)]
    pub fn vacant(&mut self, page: F::Addr) -> Option<Vacant<'_, F>> {
        let at = page.to_u64();
        let (node, index) = (self.near_node(at)?, Level::PAGE.index(at));
        node.is_vacant(index).then_some(Vacant {
            at,
            node,
            index,
            table: PhantomData,
        })
    }

    /// The frame that `page` is mapped to, if it is seen at a glance that a leaf of its own has all of these rights and flags.
    /// `None` says nothing.
    #[inline(always)]
    pub fn glance_at_frame(&self, page: F::Addr, prot: Prot, flags: AttrFlags) -> Option<Pfn> {
        let at = page.to_u64();
        let raw = self.near_node(at)?.raw(Level::PAGE.index(at));
        F::frame_with(raw, Level::PAGE, prot, flags)
    }

    /// The entry that decides about `addr`, and its level.
    #[inline]
    pub fn lookup(&self, addr: F::Addr) -> (Entry, Level) {
        walk(Node::<F>::at(self.root), addr.to_u64())
    }

    /// A cursor at the start of `range`.
    ///
    /// # Panics
    /// The range is not page-aligned, or reaches into a part that the table does not own.
    #[inline]
    pub fn cursor(&mut self, range: AddrRange<F::Addr>) -> Cursor<'_, F> {
        Cursor::new(self, range)
    }

    /// A cursor over the page at `page`.
    ///
    /// # Panics
    /// It is not page-aligned, or the table does not own it.
    #[inline]
    pub fn cursor_at(&mut self, page: F::Addr) -> Cursor<'_, F> {
        Cursor::at_page(self, page)
    }

    /// Gives every root entry of `range` a node, so that tables which alias them see whatever is mapped there later.
    ///
    /// # Errors
    /// No frame for a node.
    pub fn pin_root_entries(&mut self, range: AddrRange<F::Addr>) -> Result<(), OutOfFrames> {
        let root = Node::<F>::at(self.root);
        let last = Level::ROOT.index(range.end.to_u64().wrapping_sub(1));
        for index in Level::ROOT.index(range.start.to_u64())..=last {
            if root.load(index, Level::ROOT) == Entry::EMPTY {
                root.fill(index, Level::ROOT, &Entry::Table(new_node::<F>()?));
            }
        }
        Ok(())
    }
}

impl<F: PtFormat> Drop for PageTable<F> {
    /// Frees everything the table owns. No CPU may have it loaded.
    fn drop(&mut self) {
        free_entries::<F>(self.root, Level::ROOT, self.owned.clone());
        let _root = reclaim_node(Taken::root(self.root));
    }
}

/// Takes the entries `range` of a node out and frees what they own, depth first.
fn free_entries<F: PtFormat>(node: Pfn, level: Level, range: Range<usize>) {
    let node = Node::<F>::at(node);
    for index in range {
        match node.load(index, level) {
            Entry::Absent(_) => {}
            Entry::Leaf(_) => {
                let _folio = reclaim_leaf(Taken::out_of(node, index, level, &Entry::EMPTY));
            }
            Entry::Table(below) => {
                free_entries::<F>(below, level.below(), 0..ENTRIES);
                let _node = reclaim_node(Taken::out_of(node, index, level, &Entry::EMPTY));
            }
        }
    }
}

/// The entry that decides about `addr` in the tables at `root`, which are somebody else's: the loader's, before the
/// kernel has its own.
pub fn lookup_from<F: PtFormat>(root: Pfn, addr: F::Addr) -> (Entry, Level) {
    walk(Node::<F>::at(root), addr.to_u64())
}

/// Follows the entries from `root` down to the one that decides about `addr`.
#[inline]
fn walk<F: PtFormat>(root: Node<F>, addr: u64) -> (Entry, Level) {
    let mut node = root;
    for level in [Level::ROOT, Level::UPPER, Level::MID] {
        match node.follow(level.index(addr), level) {
            Ok(pfn) => node = Node::at(pfn),
            Err(entry) => return (entry, level),
        }
    }
    (node.load(Level::PAGE.index(addr), Level::PAGE), Level::PAGE)
}
