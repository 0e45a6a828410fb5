//! Ranges that move to another place of their table as they are.
//!
//! Entries go along a [`Route`](super::Route) each, at the highest level that both places have in common: pages one by one
//! where the addresses differ below 2 MiB, otherwise whole nodes, and with them everything below. Nodes at the new place are
//! made beforehand, which can fail, and then the move cannot.

use super::cursor::Cursor;
use super::flush::Invalidator;
use super::format::{Entry, Level, PtFormat};
use super::relocate::{Lifted, entries_to_node_end};
use super::table::PageTable;
use crate::mm::addr::PageAddr;
use crate::mm::frame::OutOfFrames;
use crate::mm::range::AddrRange;

/// What comes next in a range that moves.
enum Next {
    /// So many bytes without anything.
    Nothing(u64),
    /// So many entries of this level, all in one node at either place.
    Entries(Level, u64),
}

impl<F: PtFormat> PageTable<F> {
    /// Makes the nodes that [`Self::transplant`] needs to move `range` to `to`.
    ///
    /// # Errors
    /// No frame for a node; those that were made before stay, with nothing in them.
    pub fn prepare_transplant(&mut self, range: AddrRange<F::Addr>, to: F::Addr) -> Result<(), OutOfFrames> {
        let mut done = 0;
        while done < range.len() {
            let (from, target) = (range.start.to_u64() + done, to.to_u64() + done);
            done += match self.next(from, target, range.len() - done) {
                Next::Nothing(bytes) => bytes,
                Next::Entries(level, count) => {
                    let place = self.cursor_at(F::Addr::from_u64(target)).place_at(level)?;
                    assert!(place.is_some(), "something is mapped where a range moves to");
                    count * level.size()
                }
            };
        }
        Ok(())
    }

    /// Moves the first entries of `range` to `to`, where nothing is mapped, and has `tlb` drop what is cached for them in
    /// between. Returns how many bytes of the range are done. Frames, owners, rights, attributes and markers stay.
    ///
    /// The caller has prepared it, and nothing in either place has changed since but by this; the two do not overlap.
    ///
    /// # Panics
    /// Something is mapped at the new place, or it was not prepared.
    pub fn transplant(
        &mut self,
        range: AddrRange<F::Addr>,
        to: F::Addr,
        tlb: &(impl Invalidator<F::Addr> + ?Sized),
    ) -> u64 {
        let (level, count) = match self.next(range.start.to_u64(), to.to_u64(), range.len()) {
            Next::Nothing(bytes) => return bytes,
            Next::Entries(level, count) => (level, count),
        };
        match level {
            Level::UPPER => self.carry::<{ Level::UPPER.number() }>(range.start, to, count, tlb),
            Level::MID => self.carry::<{ Level::MID.number() }>(range.start, to, count, tlb),
            _ => self.carry::<{ Level::PAGE.number() }>(range.start, to, count, tlb),
        }
    }

    /// Moves what is in the first of `count` entries of a level. Returns how many bytes that is.
    fn carry<const LEVEL: u8>(
        &mut self,
        from: F::Addr,
        to: F::Addr,
        count: u64,
        tlb: &(impl Invalidator<F::Addr> + ?Sized),
    ) -> u64 {
        let mut lifted = Lifted::new();
        let mut route = self.route_at::<LEVEL>(from, to, count, &mut lifted);
        for page in 0..route.pages() {
            if route.source(page) != Entry::EMPTY {
                route.lift(page).expect("its node was made beforehand");
            }
        }
        let bytes = route.pages() as u64 * Level::numbered(LEVEL).size();
        route.land(tlb, |leaf| (leaf.prot, leaf.attr));
        bytes
    }

    /// What comes first in the `len` bytes from `from` on that move to `to`.
    fn next(&mut self, from: u64, to: u64, len: u64) -> Next {
        let (entry, decides) = Cursor::at_page(self, F::Addr::from_u64(from)).entry();
        if entry == Entry::EMPTY && decides > Level::PAGE {
            let rest = decides.size() - (from & (decides.size() - 1));
            return Next::Nothing(rest.min(len));
        }
        let fits = |level: &Level| (from | to) & (level.size() - 1) == 0 && level.size() <= len;
        let level = [Level::UPPER, Level::MID]
            .into_iter()
            .find(fits)
            .unwrap_or(Level::PAGE);
        assert!(
            decides <= level,
            "a large leaf that moves in part, or to where it does not fit"
        );
        let count = (len / level.size())
            .min(entries_to_node_end(from, level))
            .min(entries_to_node_end(to, level));
        Next::Entries(level, count)
    }
}
