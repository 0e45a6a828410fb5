//! A cursor over a locked range of a table.
//!
//! It stands at an address of its range and acts on the entry that decides about it. The table remembers the lowest node
//! that was visited, so that going through neighbouring pages, or coming back to one, does not walk from the root. All changes of a table go
//! through a cursor; see the module above for ownership and flushing.

use super::flush::{Flush, Invalidator};
use super::format::{Attr, AttrFlags, Entry, Leaf, Level, Marker, Prot, PtFormat};
use super::node::{ENTRIES, Node, Taken, new_node, reclaim_leaf, reclaim_node, share_leaf};
use super::split::{SplitError, split_at};
use super::table::PageTable;
use crate::mm::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::mm::frame::{Folio, OutOfFrames};
use crate::mm::range::AddrRange;

/// Whether a walk over a range got to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// The cursor is at the end of its range.
    Done,
    /// The flush is full: spend it and go on.
    FlushFull,
}

/// What an entry held before something was installed over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Installed {
    /// The marker that was overwritten.
    pub over: Marker,
}

/// Why a folio was not installed; it comes back to the caller.
#[derive(Debug)]
pub enum InstallError {
    /// Something is mapped there.
    Occupied(Folio),
    /// No frame for a node on the way.
    OutOfFrames(Folio),
}

/// A position in a range of a table that is borrowed for changes.
#[derive(Debug)]
pub struct Cursor<'a, F: PtFormat> {
    table: &'a mut PageTable<F>,
    at: u64,
    end: u64,
    /// What an unmap that stopped at a full flush has swept so far: `[.0, .1)`.
    swept: Option<(u64, u64)>,
}

/// An entry's place: its node, index and level.
pub(super) struct Place<F> {
    pub(super) node: Node<F>,
    pub(super) index: usize,
    pub(super) level: Level,
}

impl<'a, F: PtFormat> Cursor<'a, F> {
    #[inline(always)]
    pub(super) fn new(table: &'a mut PageTable<F>, range: AddrRange<F::Addr>) -> Self {
        let (at, end) = (range.start.to_u64(), range.end.to_u64());
        assert!(
            (at | end) & (PAGE_SIZE - 1) == 0,
            "cursor over a range that is not page-aligned"
        );
        assert!(
            at == end || (table.owns(at) && table.owns(end - 1)),
            "cursor over a part of another table"
        );
        Self {
            table,
            at,
            end,
            swept: None,
        }
    }

    /// A cursor over one page.
    #[inline(always)]
    pub(super) fn at_page(table: &'a mut PageTable<F>, page: F::Addr) -> Self {
        let at = page.to_u64();
        assert!(
            at & (PAGE_SIZE - 1) == 0 && table.owns(at),
            "cursor at a page of another table, or at no page"
        );
        Self {
            table,
            at,
            end: at + PAGE_SIZE,
            swept: None,
        }
    }

    /// Where the cursor stands; the end of its range when it is through.
    pub fn addr(&self) -> F::Addr {
        F::Addr::from_u64(self.at)
    }

    /// Whether the cursor is through its range.
    pub fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Moves to the next address that an entry of `level` decides about.
    #[inline]
    pub fn advance(&mut self, level: Level) {
        let next = (self.at & !(level.size() - 1)).saturating_add(level.size());
        self.at = next.min(self.end);
    }

    /// Moves to `addr`, which lies in the range or is its end.
    pub fn seek(&mut self, addr: F::Addr) {
        assert!(addr.to_u64() <= self.end, "seek past the cursor's range");
        self.at = addr.to_u64();
    }

    /// The place of the entry that decides about the cursor's address.
    fn place(&mut self) -> (Place<F>, Entry) {
        let node = match self.near_node() {
            Some(node) => node,
            None => match self.walk() {
                Ok(node) => node,
                Err(above) => return above,
            },
        };
        let (index, level) = (Level::PAGE.index(self.at), Level::PAGE);
        (Place { node, index, level }, node.load(index, level))
    }

    /// The `Level::PAGE` node for the cursor's address, if the table remembers it.
    #[inline(always)]
    fn near_node(&self) -> Option<Node<F>> {
        self.table.near_node(self.at)
    }

    /// The `Level::PAGE` node for the cursor's address from the root, or the place that decides further up.
    fn walk(&mut self) -> Result<Node<F>, (Place<F>, Entry)> {
        let mut node = Node::<F>::at(self.table.root());
        for level in [Level::ROOT, Level::UPPER, Level::MID] {
            let index = level.index(self.at);
            let pfn = node
                .follow(index, level)
                .map_err(|entry| (Place { node, index, level }, entry))?;
            node = Node::at(pfn);
        }
        self.table.remember(self.at, node);
        Ok(node)
    }

    /// The slot of the page at the cursor, if it is in the node that was visited last and holds nothing at all: the common
    /// case on the fault path, found without decoding. `None` says nothing.
    #[inline(always)]
    fn vacant_slot(&self) -> Option<(Node<F>, usize)> {
        let (node, index) = (self.near_node()?, Level::PAGE.index(self.at));
        node.is_vacant(index).then_some((node, index))
    }

    /// Whether the page at the cursor is known at a glance to have an entry without a translation and without a marker.
    /// False says nothing: [`Self::entry`] does.
    #[inline(always)]
    pub fn is_vacant(&self) -> bool {
        self.vacant_slot().is_some()
    }

    /// The entry that decides about the cursor's address, and its level.
    pub fn entry(&mut self) -> (Entry, Level) {
        let (place, entry) = self.place();
        (entry, place.level)
    }

    /// The place of the entry of `level` at the cursor, with nodes created on the way; `None` when a leaf of a higher
    /// level is in the way.
    pub(super) fn place_at(&mut self, level: Level) -> Result<Option<(Place<F>, Entry)>, OutOfFrames> {
        loop {
            let (place, entry) = self.place();
            if place.level == level {
                return Ok(Some((place, entry)));
            }
            if place.level < level {
                // A node hangs where the leaf shall go: with anything below it, the place is occupied.
                return Ok(None);
            }
            match entry {
                Entry::Absent(Marker::None) => {
                    place
                        .node
                        .fill(place.index, place.level, &Entry::Table(new_node::<F>()?));
                }
                // Markers exist at the granule of what may be installed there only.
                _ => return Ok(None),
            }
        }
    }

    /// Makes the nodes down to the entry of `level` at the cursor, unless something is in the way.
    pub(super) fn make_nodes(&mut self, level: Level) -> Result<(), OutOfFrames> {
        self.place_at(level).map(drop)
    }

    /// Maps `folio` at the cursor with a leaf of `level`, over nothing or over a marker. No flush is needed: absent entries
    /// are not cached.
    ///
    /// # Errors
    /// Something is mapped there, or a node could not be allocated; the folio comes back.
    ///
    /// # Panics
    /// The address, the folio's order or the range do not fit the level.
    #[inline(always)]
    pub fn install(
        &mut self,
        level: Level,
        folio: Folio,
        prot: Prot,
        attr: Attr,
    ) -> Result<Installed, InstallError> {
        assert!(
            level == Level::PAGE || folio.order() == level.order(),
            "a leaf of another size than its folio"
        );
        debug_assert!(!attr.is_borrowed());
        let leaf = |folio: Folio| Leaf {
            frame: folio.into_raw(),
            prot,
            attr,
        };
        match self.claim(level) {
            Ok(Some((place, over))) => {
                place
                    .node
                    .fill(place.index, place.level, &Entry::Leaf(leaf(folio)));
                Ok(Installed { over })
            }
            Ok(None) => Err(InstallError::Occupied(folio)),
            Err(OutOfFrames) => Err(InstallError::OutOfFrames(folio)),
        }
    }

    /// Maps base pages at the cursor and behind it, one each, as far as entries are seen at a glance to be vacant; moves
    /// behind them and says how many those were. 0 says nothing.
    #[inline]
    pub fn install_vacant(
        &mut self,
        folios: &mut impl Iterator<Item = Folio>,
        prot: Prot,
        attr: Attr,
    ) -> u64 {
        debug_assert!(!attr.is_borrowed());
        let Some(node) = self.near_node() else { return 0 };
        let first = Level::PAGE.index(self.at);
        let room = (self.end - self.at) / PAGE_SIZE;
        let end = ENTRIES.min(first.saturating_add(room as usize));
        let mut index = first;
        while index < end && node.is_vacant(index) {
            let Some(folio) = folios.next() else { break };
            let frame = folio.into_raw();
            let leaf = Leaf { frame, prot, attr };
            node.fill(index, Level::PAGE, &Entry::Leaf(leaf));
            index += 1;
        }
        let done = (index - first) as u64;
        self.at += done * PAGE_SIZE;
        done
    }

    /// Maps memory that the entry does not own (direct map, zero page, devices) over nothing or over a marker.
    ///
    /// # Errors
    /// `Ok(None)` when something is mapped there; out of frames when a node could not be allocated.
    ///
    /// # Panics
    /// The address, the frame or the range do not fit the level.
    #[inline(always)]
    pub fn install_borrowed(
        &mut self,
        level: Level,
        frame: Pfn,
        prot: Prot,
        mut attr: Attr,
    ) -> Result<Option<Installed>, OutOfFrames> {
        assert!(
            frame.as_u64() & (level.frames() - 1) == 0,
            "a leaf whose frames are not aligned to its size"
        );
        attr.flags |= super::AttrFlags::BORROWED;
        let Some((place, over)) = self.claim(level)? else {
            return Ok(None);
        };
        place
            .node
            .fill(place.index, place.level, &Entry::Leaf(Leaf { frame, prot, attr }));
        Ok(Some(Installed { over }))
    }

    /// The absent entry of `level` at the cursor, to be filled, and what it remembers; `None` when something is mapped.
    #[inline(always)]
    fn claim(&mut self, level: Level) -> Result<Option<(Place<F>, Marker)>, OutOfFrames> {
        assert!(self.fits(level), "a leaf that leaves the cursor's range");
        if level == Level::PAGE
            && let Some((node, index)) = self.vacant_slot()
        {
            return Ok(Some((Place { node, index, level }, Marker::None)));
        }
        self.claim_by_walking(level)
    }

    fn claim_by_walking(&mut self, level: Level) -> Result<Option<(Place<F>, Marker)>, OutOfFrames> {
        Ok(match self.place_at(level)? {
            Some((place, Entry::Absent(over))) => Some((place, over)),
            _ => None,
        })
    }

    /// Whether a leaf of `level` at the cursor is aligned and within the range.
    #[inline]
    pub fn fits(&self, level: Level) -> bool {
        self.at & (level.size() - 1) == 0 && self.end - self.at >= level.size()
    }

    /// Sets what the absent entry of `level` at the cursor remembers; returns what it remembered before, or `None` when
    /// something is mapped there.
    ///
    /// # Errors
    /// A node could not be allocated.
    pub fn mark(&mut self, level: Level, marker: Marker) -> Result<Option<Marker>, OutOfFrames> {
        match self.place_at(level)? {
            Some((place, Entry::Absent(old))) => {
                place.node.fill(place.index, place.level, &Entry::Absent(marker));
                Ok(Some(old))
            }
            _ => Ok(None),
        }
    }

    /// A further reference to the folio that the leaf at the cursor owns; `None` for borrowed leaves and absent entries.
    pub fn share(&mut self) -> Option<Folio> {
        match self.place().1 {
            Entry::Leaf(leaf) => share_leaf(&leaf),
            _ => None,
        }
    }

    /// Replaces rights and attributes of the leaf at the cursor; false when there is none. Whether the frame is owned does
    /// not change.
    pub fn rewrite(&mut self, prot: Prot, attr: Attr, flush: &mut Flush<F::Addr>) -> bool {
        let (place, entry) = self.place();
        let Entry::Leaf(old) = entry else { return false };
        let borrowed = old.attr.flags & super::AttrFlags::BORROWED;
        let flags = (attr.flags - super::AttrFlags::BORROWED) | borrowed;
        let new = Leaf {
            frame: old.frame,
            prot,
            attr: Attr { flags, ..attr },
        };
        if new == old {
            return true;
        }
        let was = Taken::out_of(place.node, place.index, place.level, &Entry::Leaf(new));
        // What the hardware noted between the load and the swap is kept.
        if let Entry::Leaf(last) = was.entry() {
            let noted = last.attr.flags - old.attr.flags;
            if !noted.is_empty() {
                place.node.note(place.index, place.level, &new, noted);
            }
        }
        flush.touch(self.at & !(place.level.size() - 1), place.level.size());
        true
    }

    /// Adds `noted`, accessed or dirty, to the leaf at the cursor, as the CPU would. Takes no right away: nothing is to be
    /// flushed.
    pub fn note(&mut self, noted: AttrFlags) {
        let (place, entry) = self.place();
        if let Entry::Leaf(leaf) = entry
            && !leaf.attr.flags.contains(noted)
        {
            place.node.note(place.index, place.level, &leaf, noted);
        }
    }

    /// Replaces what is mapped at the cursor by `folio`, for copy-on-write. The old translation is gone from every CPU before
    /// the new page can be reached: whoever has seen a store to the new page does not read the old one any more. The caller
    /// has seen a leaf there.
    ///
    /// # Panics
    /// There is none, or one of another size than the folio.
    pub fn replace(
        &mut self,
        folio: Folio,
        prot: Prot,
        attr: Attr,
        tlb: &(impl Invalidator<F::Addr> + ?Sized),
    ) {
        let (place, entry) = self.place();
        assert!(
            entry.is_leaf() && place.level.order() == folio.order(),
            "nothing to replace"
        );
        let mut flush = Flush::new();
        self.clear_place(&place, Entry::EMPTY, &mut flush);
        flush.spend(tlb);
        let frame = folio.into_raw();
        let leaf = Leaf { frame, prot, attr };
        place.node.fill(place.index, place.level, &Entry::Leaf(leaf));
    }

    /// Goes on where an earlier cursor over the same range stopped with [`Progress::FlushFull`] in [`Self::unmap`]; nothing
    /// was mapped in between meanwhile.
    pub fn resume_unmap(&mut self, at: F::Addr) {
        self.swept = Some((self.at, at.to_u64()));
        self.seek(at);
    }

    /// Takes the leaf or marker at the cursor away, leaves an absent entry and puts what it owned into the flush.
    fn clear_place(&mut self, place: &Place<F>, leave: Entry, flush: &mut Flush<F::Addr>) -> Entry {
        let old = Taken::out_of(place.node, place.index, place.level, &leave);
        let was = *old.entry();
        if was.is_leaf() {
            flush.touch(self.at & !(place.level.size() - 1), place.level.size());
        }
        if let Some(folio) = reclaim_leaf(old) {
            flush.keep(folio);
        }
        was
    }

    /// Takes the leaf at the cursor away, with what it owned into the flush, and leaves `marker` behind. Returns the flags
    /// that it had at the very end.
    ///
    /// # Panics
    /// There is no leaf.
    pub fn take(&mut self, marker: Marker, flush: &mut Flush<F::Addr>) -> AttrFlags {
        let (place, entry) = self.place();
        assert!(entry.is_leaf(), "nothing to take");
        match self.clear_place(&place, Entry::Absent(marker), flush) {
            Entry::Leaf(leaf) => leaf.attr.flags,
            Entry::Absent(_) | Entry::Table(_) => AttrFlags::empty(),
        }
    }

    /// Makes the absent entry at the cursor forget what it remembers. False when something is mapped there.
    pub fn forget_marker(&mut self) -> bool {
        let (place, entry) = self.place();
        let absent = matches!(entry, Entry::Absent(_));
        if absent {
            place.node.fill(place.index, place.level, &Entry::EMPTY);
        }
        absent
    }

    /// Takes away everything from the cursor to the end of its range, markers too. A leaf that sticks out of the range is
    /// split first. With `free_nodes`, nodes that lie wholly in the range are freed as well; the caller then excludes every
    /// other user of the range.
    ///
    /// # Errors
    /// A leaf could not be split; what came before it is gone already and is in the flush.
    pub fn unmap(&mut self, free_nodes: bool, flush: &mut Flush<F::Addr>) -> Result<Progress, SplitError> {
        let start = match self.swept {
            Some((from, to)) if to == self.at => from,
            _ => self.at,
        };
        loop {
            if flush.is_full() || (free_nodes && !self.free_empty_nodes(start, flush)) {
                self.swept = Some((start, self.at));
                return Ok(Progress::FlushFull);
            }
            if self.is_done() {
                return Ok(Progress::Done);
            }
            let (place, entry) = self.place();
            if entry.is_leaf() && !self.fits(place.level) {
                split_at(&place, flush, self.at)?;
                self.table.forget();
                continue;
            }
            if entry != Entry::EMPTY {
                self.clear_place(&place, Entry::EMPTY, flush);
            }
            self.advance(place.level);
        }
    }

    /// Frees the nodes that end at the cursor's address and lie wholly in `[start, cursor)`; false when the flush is full
    /// before all of them are in it.
    fn free_empty_nodes(&mut self, start: u64, flush: &mut Flush<F::Addr>) -> bool {
        let mut level = Level::MID;
        // The entry of `level` that covers the bytes just below the cursor.
        while level < Level::ROOT && self.at & (level.size() - 1) == 0 {
            let Some(at) = self.at.checked_sub(level.size()).filter(|&at| at >= start) else {
                return true;
            };
            let Some(place) = self.place_of(at, level) else {
                return true;
            };
            if let Entry::Table(_) = place.node.load(place.index, level) {
                if flush.is_full() {
                    return false;
                }
                let old = Taken::out_of(place.node, place.index, level, &Entry::EMPTY);
                flush.touch(at, PAGE_SIZE);
                if let Some(node) = reclaim_node(old) {
                    flush.keep_node(node);
                }
                self.table.forget();
            }
            let Some(above) = level.above() else { return true };
            level = above;
        }
        true
    }

    /// The place of the entry of `level` for `addr`, if the nodes down to it exist.
    pub(super) fn place_of(&self, addr: u64, level: Level) -> Option<Place<F>> {
        let (mut node, mut at) = (Node::<F>::at(self.table.root()), Level::ROOT);
        while at > level {
            let Entry::Table(pfn) = node.load(at.index(addr), at) else {
                return None;
            };
            (node, at) = (Node::at(pfn), at.below());
        }
        Some(Place {
            node,
            index: level.index(addr),
            level,
        })
    }

    /// Sets the rights of every leaf from the cursor to the end of its range to what `rights` makes of the old leaf; a leaf
    /// that sticks out of the range is split first.
    ///
    /// # Errors
    /// A leaf could not be split; what came before it is changed already and is in the flush.
    pub fn protect(
        &mut self,
        rights: impl Fn(&Leaf) -> (Prot, Attr),
        flush: &mut Flush<F::Addr>,
    ) -> Result<(), SplitError> {
        while !self.is_done() {
            let (place, entry) = self.place();
            let Entry::Leaf(leaf) = entry else {
                self.advance(place.level);
                continue;
            };
            if !self.fits(place.level) {
                split_at(&place, flush, self.at)?;
                self.table.forget();
                continue;
            }
            let (prot, attr) = rights(&leaf);
            self.rewrite(prot, attr, flush);
            self.advance(place.level);
        }
        Ok(())
    }

    /// Splits the leaf at the cursor into 512 leaves one level down, with the same frames, rights and attributes.
    ///
    /// # Errors
    /// There is no leaf to split, its folio has other owners, or no frame is free for the node.
    pub fn split(&mut self, flush: &mut Flush<F::Addr>) -> Result<(), SplitError> {
        let (place, _) = self.place();
        self.table.forget();
        split_at(&place, flush, self.at)
    }

    /// The place of the entry that decides about the cursor's address.
    #[inline]
    pub(super) fn current_place(&mut self) -> Place<F> {
        match self.near_node() {
            Some(node) => Place {
                node,
                index: Level::PAGE.index(self.at),
                level: Level::PAGE,
            },
            None => self.place().0,
        }
    }

    /// Where the cursor stands, as a number.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Pages from the cursor to the end of its range.
    #[inline]
    pub(super) fn remaining_pages(&self) -> u64 {
        (self.end - self.at) / PAGE_SIZE
    }

    /// Moves on by `pages`, which are left in the range.
    #[inline]
    pub(super) fn skip_pages(&mut self, pages: u64) {
        self.at += pages * PAGE_SIZE;
    }

    /// Forgets the remembered node: the caller changed the tree above it.
    pub(super) fn forget(&mut self) {
        self.table.forget();
    }
}
