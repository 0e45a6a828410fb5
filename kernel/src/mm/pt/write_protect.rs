//! Write protection on behalf of a userfault context.
//!
//! Entries change in place by flipping the bits that differ: no other bit is written, so an accessed or dirty bit that the
//! hardware sets meanwhile is never lost, and nothing has to be tried twice.
//!
//! Protecting takes a right away and is flushed. Ending protection takes nothing away and is not: a CPU that still has
//! the narrower translation faults, drops the translation with the fault (SDM vol. 3A 5.10.4.1, for EPT vol. 3C 29.4.3.1;
//! APM vol. 2 5.5, "Use of Cached Entries When Reporting a Page Fault Exception"), and finds the access allowed.

use super::cursor::{Cursor, Place};
use super::flush::Flush;
use super::format::{AttrFlags, Entry, Level, Marker, PtFormat};
use super::node::{ENTRIES, Node, Owners};
use super::table::PageTable;
use crate::mm::addr::PageAddr;
use crate::mm::frame::OutOfFrames;

/// Which pages may be stored to as soon as their protection ends; with the others, the first store faults once more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writable {
    /// None.
    Nothing,
    /// Those of leaves that own their folio alone.
    Unshared,
    /// All that may be loaded from.
    ///
    /// Borrowed and forked leaves wait for the fault in any case: it decides whose they become.
    Everything,
}

impl<F: PtFormat> Cursor<'_, F> {
    /// Protects every leaf from the cursor to the end of its range. With `absent`, entries of that level which hold nothing
    /// remember the protection ([`Marker::UffdWp`]); nodes are made for them.
    ///
    /// # Errors
    /// A node could not be allocated; what came before it is changed already and is in the flush.
    ///
    /// # Panics
    /// A leaf sticks out of the range.
    pub fn write_protect(
        &mut self,
        absent: Option<Level>,
        flush: &mut Flush<F::Addr>,
    ) -> Result<(), OutOfFrames> {
        while !self.is_done() {
            let place = self.current_place();
            if let Some(granule) = absent
                && granule < place.level
                && place.node.is_vacant(place.index)
            {
                self.make_nodes(granule)?;
                continue;
            }
            let (run, mark) = (self.run(&place), absent == Some(place.level));
            let restricted = match place.level {
                // The level as a constant: this is the loop over a region.
                Level::PAGE => protect_run(&place, run, Level::PAGE, mark),
                level => protect_run(&place, run, level, mark),
            };
            if restricted {
                let size = place.level.size();
                flush.touch_run(self.position() & !(size - 1), run as u64 * size, run as u64);
            }
            self.skip(&place, run);
        }
        Ok(())
    }

    /// Ends the protection of every page from the cursor to the end of its range, mapped or remembered.
    ///
    /// # Panics
    /// A leaf sticks out of the range.
    pub fn write_unprotect(&mut self, writable: Writable) {
        while !self.is_done() {
            let place = self.current_place();
            let run = self.run(&place);
            match place.level {
                Level::PAGE => unprotect_pages(place.node, place.index, run, writable),
                level => unprotect_entry(place.node, place.index, level, writable),
            }
            self.skip(&place, run);
        }
    }

    /// How many entries from the place on are in its node and in the cursor's range. One above page level.
    fn run(&self, place: &Place<F>) -> usize {
        if place.level == Level::PAGE {
            return self.remaining_pages().min((ENTRIES - place.index) as u64) as usize;
        }
        assert!(
            self.fits(place.level) || !place.node.load(place.index, place.level).is_leaf(),
            "write protection of a part of a large leaf"
        );
        1
    }

    fn skip(&mut self, place: &Place<F>, run: usize) {
        match place.level {
            Level::PAGE => self.skip_pages(run as u64),
            level => self.advance(level),
        }
    }
}

impl<F: PtFormat> PageTable<F> {
    /// Ends the protection of a page that is mapped, if that lets it be written: the answer to a store that nobody is asked
    /// about. False when it is otherwise, or not known at a glance, and nothing changed.
    #[inline]
    pub fn allow_store(&mut self, page: F::Addr, writable: Writable) -> bool {
        let (at, index) = (page.to_u64(), Level::PAGE.index(page.to_u64()));
        let Some(node) = self.near_node(at) else {
            return false;
        };
        match writable {
            Writable::Nothing => false,
            Writable::Unshared => unprotect_plain(node, index, 1) == 1,
            Writable::Everything => {
                let bits = |raw| {
                    F::protected_frame(raw, Level::PAGE)?;
                    Some(F::to_unprotect(raw, Level::PAGE, true))
                };
                node.flip_while(index, 1, bits) == 1
            }
        }
    }

    /// [`Cursor::write_unprotect`] of one page: the answer to a fault.
    ///
    /// # Panics
    /// As [`Self::cursor_at`]; or the page is part of a large leaf.
    #[inline]
    pub fn write_unprotect_page(&mut self, page: F::Addr, writable: Writable) {
        let (at, index) = (page.to_u64(), Level::PAGE.index(page.to_u64()));
        match self.near_node(at) {
            Some(node) if writable == Writable::Unshared && unprotect_plain(node, index, 1) == 1 => {}
            Some(node) => unprotect_entry(node, index, Level::PAGE, writable),
            None => self.cursor_at(page).write_unprotect(writable),
        }
    }
}

/// Protects `run` entries; with `mark`, those that hold nothing remember it. Returns whether a leaf changed.
#[inline(always)]
fn protect_run<F: PtFormat>(place: &Place<F>, run: usize, level: Level, mark: bool) -> bool {
    let marker = if mark {
        F::EMPTY ^ F::encode(&Entry::Absent(Marker::UffdWp), level)
    } else {
        0
    };
    let mut restricted = 0;
    let bits = |raw| {
        let flip = match F::to_protect(raw, level) {
            Some(flip) => flip,
            None if raw == F::EMPTY => return Some(marker),
            None => return Some(0),
        };
        restricted |= flip;
        Some(flip)
    };
    place.node.flip_while(place.index, run, bits);
    restricted != 0
}

/// Ends the protection of `run` pages.
fn unprotect_pages<F: PtFormat>(node: Node<F>, first: usize, run: usize, writable: Writable) {
    let (mut at, end) = (first, first + run);
    while at < end {
        if writable == Writable::Unshared {
            at += unprotect_plain(node, at, end - at);
        }
        if at < end {
            unprotect_entry(node, at, Level::PAGE, writable);
            at += 1;
        }
    }
}

/// Ends the protection of up to `count` pages that have one owner each, and lets them be written; stops before the first
/// that is anything else, and returns how many it did. [`Writable::Unshared`] for what is usual, without decoding.
#[inline(always)]
fn unprotect_plain<F: PtFormat>(node: Node<F>, first: usize, count: usize) -> usize {
    let owners = Owners::known();
    node.flip_while(first, count, |raw| {
        let plain = F::protected_frame(raw, Level::PAGE).is_some_and(|frame| owners.is_one(frame));
        plain.then(|| F::to_unprotect(raw, Level::PAGE, true))
    })
}

/// Ends the protection of an entry, if it has any.
#[inline(never)]
fn unprotect_entry<F: PtFormat>(node: Node<F>, index: usize, level: Level, writable: Writable) {
    node.flip_while(index, 1, |raw| match F::decode(raw, level) {
        Entry::Absent(Marker::UffdWp) => Some(raw ^ F::EMPTY),
        Entry::Leaf(leaf) if leaf.is_protected() => {
            let write = match writable {
                Writable::Nothing => false,
                _ if leaf
                    .attr
                    .flags
                    .intersects(AttrFlags::BORROWED | AttrFlags::FORKED) =>
                {
                    false
                }
                Writable::Unshared => Owners::known().is_one(leaf.frame),
                Writable::Everything => true,
            };
            Some(F::to_unprotect(raw, level, write))
        }
        _ => None,
    });
}
