//! Nodes that hold nothing any more.

use super::cursor::Cursor;
use super::flush::Flush;
use super::format::{Entry, Level, PtFormat};
use super::node::{ENTRIES, Node, Taken, reclaim_node};
use crate::mm::addr::{PAGE_SIZE, PageAddr};

impl<F: PtFormat> Cursor<'_, F> {
    /// Frees the nodes around the cursor's address in which nothing is left, the lowest first; those that the root points
    /// to stay. They may reach beyond the cursor's range: the caller excludes every other user of the table.
    ///
    /// [`Self::unmap`] frees the nodes that lie wholly in its range without looking; this is for those at its ends.
    pub fn prune(&mut self, flush: &mut Flush<F::Addr>) {
        for level in [Level::MID, Level::UPPER] {
            let at = self.addr().to_u64() & !(level.size() - 1);
            let Some(place) = self.place_of(at, level) else {
                continue;
            };
            let Entry::Table(below) = place.node.load(place.index, level) else {
                continue;
            };
            let node = Node::<F>::at(below);
            if flush.is_full() || !(0..ENTRIES).all(|index| node.is_vacant(index)) {
                return;
            }
            let old = Taken::out_of(place.node, place.index, level, &Entry::EMPTY);
            // Any page in it: what is cached of the way there is the same for all.
            flush.touch(at, PAGE_SIZE);
            if let Some(node) = reclaim_node(old) {
                flush.keep_node(node);
            }
            self.forget();
        }
    }
}
