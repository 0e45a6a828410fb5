//! Entries that move to another place of their table.
//!
//! What an entry owns travels with it: the reference that a leaf stands for (invariant 2), the node below a table entry
//! (invariant 1). No owner comes or goes. What must not be is a page that can be reached at its new address while some CPU
//! can still store to it at its old one. So there are three steps, in this order, all of them under the lock of the table:
//!
//! | step | old entry | what CPUs have cached for it | new entry |
//! | --- | --- | --- | --- |
//! | [`Route::lift`] | emptied by a swap, which brings the last accessed and dirty bits along | the old translation | empty |
//! | [`Route::land`] flushes | empty | nothing | empty |
//! | [`Route::land`] stores | empty | nothing | what was lifted, a leaf with its new rights |
//!
//! The CPUs, which walk the table without its lock, find the page at the old address, then nowhere, then at the new one. A
//! touch of either address in between faults, and waits for the lock. `land` is the only way to put down what was lifted
//! and flushes first, so that no caller can get the order wrong; nodes for the new entries are made before anything is
//! lifted, so that landing cannot fail.
//!
//! A [`Route`] is a batch of this, for entries of one level: of pages where each is looked at by itself, of whole nodes where
//! a range moves as it is ([`transplant`](super::transplant)).

use arrayvec::ArrayVec;

use super::cursor::Place;
use super::flush::{Flush, Invalidator};
use super::format::{Attr, Entry, Leaf, Level, Marker, Prot, PtFormat};
use super::node::{ENTRIES, Node, Taken};
use super::table::PageTable;
use crate::mm::addr::PageAddr;
use crate::mm::frame::{OutOfFrames, allocator};

/// Most entries of one [`Route`]: what is moved under one hold of the table's lock, with one flush.
pub const ROUTE_PAGES: usize = 64;

/// A run of entries of one level and where they may move to. They are counted from its start, and called pages, which at
/// [`Level::PAGE`] they are. The level's number is part of the type, because moving pages is measured in instructions.
#[must_use = "leaves that were lifted have to land"]
#[derive(Debug)]
pub struct Route<'a, F: PtFormat, const LEVEL: u8 = { Level::PAGE.number() }> {
    table: &'a mut PageTable<F>,
    from: u64,
    to: u64,
    source: Side<F, LEVEL>,
    target: Side<F, LEVEL>,
    pages: usize,
    lifted: &'a mut Lifted,
}

/// Room for the entries that are on their way, by page. Apart from the route, because it is too large to be moved about.
#[derive(Default, Debug)]
pub struct Lifted(ArrayVec<(u8, Taken), ROUTE_PAGES>);

impl Lifted {
    /// Nothing yet.
    #[inline]
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }
}

/// The entries at one end of a route.
enum Side<F, const LEVEL: u8> {
    /// In this node, from this index on.
    Node(Node<F>, usize),
    /// There is no node of that level: this entry further up decides about all of them.
    Above(Entry),
}

impl<F, const LEVEL: u8> core::fmt::Debug for Side<F, LEVEL> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Node(_, index) => f.debug_tuple("Node").field(index).finish(),
            Self::Above(entry) => f.debug_tuple("Above").field(entry).finish(),
        }
    }
}

impl<F: PtFormat, const LEVEL: u8> Side<F, LEVEL> {
    const LEVEL: Level = Level::numbered(LEVEL);

    #[inline]
    fn of(table: &mut PageTable<F>, addr: u64) -> Self {
        let mut cursor = table.cursor_at(F::Addr::from_u64(addr));
        let lowest = cursor.current_place();
        if lowest.level > Self::LEVEL {
            return Self::Above(lowest.node.load(lowest.index, lowest.level));
        }
        let place = match Self::LEVEL {
            Level::PAGE => lowest,
            level => cursor
                .place_of(addr, level)
                .expect("there are nodes further down"),
        };
        Self::Node(place.node, place.index)
    }

    #[inline]
    fn entry(&self, page: usize) -> Entry {
        match self {
            Self::Node(node, index) => node.load(index + page, Self::LEVEL),
            Self::Above(entry) => *entry,
        }
    }
}

/// Entries of `level` from `addr` to the end of the node that holds its entry.
pub(super) const fn entries_to_node_end(addr: u64, level: Level) -> u64 {
    (ENTRIES - level.index(addr)) as u64
}

impl<F: PtFormat> PageTable<F> {
    /// The way from `from` to `to` for the first of `pages` pages: for at least one and at most [`ROUTE_PAGES`] of them, as
    /// many as have their entries in one node at either end and do not go where another of them comes from.
    ///
    /// # Panics
    /// `pages` is zero, or an address is not page-aligned or belongs to another table.
    #[inline]
    pub fn route<'a>(
        &'a mut self,
        from: F::Addr,
        to: F::Addr,
        pages: u64,
        lifted: &'a mut Lifted,
    ) -> Route<'a, F> {
        self.route_at(from, to, pages, lifted)
    }

    /// The same for entries of another level.
    #[inline]
    pub(super) fn route_at<'a, const LEVEL: u8>(
        &'a mut self,
        from: F::Addr,
        to: F::Addr,
        pages: u64,
        lifted: &'a mut Lifted,
    ) -> Route<'a, F, LEVEL> {
        let level = Level::numbered(LEVEL);
        let (from, to) = (from.to_u64(), to.to_u64());
        assert!(pages > 0, "a route for nothing");
        debug_assert!(
            (from | to) & (level.size() - 1) == 0,
            "a route of entries from or to the middle of one"
        );
        let apart = (from.abs_diff(to) >> level.shift()).max(1);
        let pages = pages
            .min(apart)
            .min(entries_to_node_end(from, level))
            .min(entries_to_node_end(to, level))
            .min(ROUTE_PAGES as u64);
        let (source, target) = (Side::of(self, from), Side::of(self, to));
        Route {
            table: self,
            from,
            to,
            source,
            target,
            pages: pages as usize,
            lifted,
        }
    }
}

impl<F: PtFormat, const LEVEL: u8> Route<'_, F, LEVEL> {
    const LEVEL: Level = Level::numbered(LEVEL);

    /// How many pages it is for.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// What `page` holds where it would be taken from. A leaf above page level is shown as such for each of its pages.
    #[inline]
    pub fn source(&self, page: usize) -> Entry {
        debug_assert!(page < self.pages);
        self.source.entry(page)
    }

    /// How many owners the folio of a leaf has that was found at the source; 0 for borrowed ones.
    #[inline]
    pub fn owners(&self, leaf: &Leaf) -> u32 {
        if leaf.attr.is_borrowed() {
            0
        } else {
            allocator().owners(leaf.frame)
        }
    }

    /// Whether there is nothing to take from because the pages never had a node.
    #[inline]
    pub fn is_bare(&self) -> bool {
        matches!(self.source, Side::Above(Entry::Absent(_)))
    }

    /// What `page` holds where it would go.
    #[inline]
    pub fn target(&self, page: usize) -> Entry {
        debug_assert!(page < self.pages);
        self.target.entry(page)
    }

    /// Takes the leaf of `page` up, or whatever else is there. Pages are lifted in ascending order.
    ///
    /// # Errors
    /// No frame for a node where it is to go; it stays.
    ///
    /// # Panics
    /// There is nothing, or no absent entry for it to go to.
    #[inline]
    pub fn lift(&mut self, page: usize) -> Result<(), OutOfFrames> {
        assert!(page < self.pages, "a page beside the route");
        if let Side::Above(_) = self.target {
            self.target = self.new_target()?;
        }
        let Side::Node(node, index) = &self.source else {
            panic!("no node to lift from");
        };
        assert!(
            matches!(self.target.entry(page), Entry::Absent(_)),
            "nowhere to go"
        );
        let taken = Taken::out_of(*node, index + page, Self::LEVEL, &Entry::EMPTY);
        assert!(
            !matches!(taken.entry(), Entry::Absent(Marker::None)),
            "nothing to lift"
        );
        self.lifted.0.push((page as u8, taken));
        if Self::LEVEL > Level::PAGE {
            // A node that was visited may hang there.
            self.table.forget();
        }
        Ok(())
    }

    /// The side to go to, with nodes made for it.
    #[cold]
    fn new_target(&mut self) -> Result<Side<F, LEVEL>, OutOfFrames> {
        let place = self
            .table
            .cursor_at(F::Addr::from_u64(self.to))
            .place_at(Self::LEVEL)?;
        let (Place { node, index, .. }, _) = place.expect("a target below a large leaf was not asked for");
        Ok(Side::Node(node, index))
    }

    /// Has `tlb` drop what is cached for the pages that were lifted, and then puts each down where it goes, with the rights
    /// and attributes that `arrive` makes of its leaf. Frame and ownership stay.
    #[inline]
    pub fn land(self, tlb: &(impl Invalidator<F::Addr> + ?Sized), arrive: impl Fn(&Leaf) -> (Prot, Attr)) {
        let (Some((first, _)), Some((last, _))) = (self.lifted.0.first(), self.lifted.0.last()) else {
            return;
        };
        let (start, end) = (u64::from(*first), u64::from(*last) + 1);
        let mut flush = Flush::new();
        let size = Self::LEVEL.size();
        let pages = self.lifted.0.len() as u64 * Self::LEVEL.frames();
        flush.touch_run(self.from + start * size, (end - start) * size, pages);
        flush.spend(tlb);
        let Side::Node(node, index) = self.target else {
            unreachable!("something was lifted, so it has a node to go to");
        };
        for (page, leaf) in self.lifted.0.drain(..) {
            leaf.put_down(node, index + usize::from(page), Self::LEVEL, &arrive);
        }
    }
}

impl<F: PtFormat, const LEVEL: u8> Drop for Route<'_, F, LEVEL> {
    fn drop(&mut self) {
        // A host test that fails in between has something better to say than "aborted".
        #[cfg(not(target_os = "none"))]
        if std::thread::panicking() {
            return;
        }
        assert!(
            self.lifted.0.is_empty(),
            "{} entries were lifted and did not land",
            self.lifted.0.len()
        );
    }
}
