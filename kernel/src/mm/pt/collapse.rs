//! 512 leaves become one leaf a level up.

use super::cursor::Cursor;
use super::flush::Flush;
use super::format::{AttrFlags, Entry, Leaf, Level, PtFormat};
use super::node::{ENTRIES, Node, Taken, reclaim_node};
use crate::mm::addr::{PageAddr, Pfn};
use crate::mm::frame::{MAX_ORDER, can_merge_block, merge_block};

/// Why leaves stay apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollapseError {
    /// The machine has no leaves of that level.
    NoSuchLeaf,
    /// The frames have owners, and one owner cannot have so many in one block.
    TooLarge,
    /// The entry there does not point to a node.
    NoNode,
    /// An entry of the node is absent or not a leaf.
    NotFull,
    /// The frames do not follow each other, or do not start at a multiple of their number.
    Scattered,
    /// Rights or attributes differ.
    Mixed,
    /// A folio has other owners.
    Shared,
}

const NOTED: AttrFlags = AttrFlags::ACCESSED.union(AttrFlags::DIRTY);

impl<F: PtFormat> Cursor<'_, F> {
    /// Replaces the node below the entry of `level` at the cursor by one leaf with the same frames, rights and attributes;
    /// accessed and dirty are set if any of the 512 had them.
    ///
    /// # Errors
    /// The 512 leaves do not make one, as [`CollapseError`] says; nothing changed then.
    pub fn collapse(&mut self, level: Level, flush: &mut Flush<F::Addr>) -> Result<(), CollapseError> {
        if level == Level::PAGE || level > F::max_leaf() {
            return Err(CollapseError::NoSuchLeaf);
        }
        let at = self.addr().to_u64() & !(level.size() - 1);
        let place = self.place_of(at, level).ok_or(CollapseError::NoNode)?;
        let Entry::Table(pfn) = place.node.load(place.index, level) else {
            return Err(CollapseError::NoNode);
        };
        let whole = merged::<F>(Node::at(pfn), level)?;
        if !whole.attr.is_borrowed() {
            merge_block(whole.frame, level.order());
        }
        let old = Taken::out_of(place.node, place.index, level, &Entry::Leaf(whole));
        flush.touch(at, level.size());
        if let Some(node) = reclaim_node(old) {
            flush.keep_node(node);
        }
        self.forget();
        Ok(())
    }
}

/// The leaf of `level` that says what the 512 leaves of `node` say.
fn merged<F: PtFormat>(node: Node<F>, level: Level) -> Result<Leaf, CollapseError> {
    let below = level.below();
    let Entry::Leaf(first) = node.load(0, below) else {
        return Err(CollapseError::NotFull);
    };
    if !first.attr.is_borrowed() && level.order() > MAX_ORDER {
        return Err(CollapseError::TooLarge);
    }
    if first.frame.as_u64() & (level.frames() - 1) != 0 {
        return Err(CollapseError::Scattered);
    }
    let mut noted = AttrFlags::empty();
    for index in 0..ENTRIES {
        let Entry::Leaf(leaf) = node.load(index, below) else {
            return Err(CollapseError::NotFull);
        };
        if leaf.frame != first.frame.offset(index as u64 * below.frames()) {
            return Err(CollapseError::Scattered);
        }
        let same = leaf.attr.flags - NOTED == first.attr.flags - NOTED && leaf.attr.cache == first.attr.cache;
        if leaf.prot != first.prot || !same {
            return Err(CollapseError::Mixed);
        }
        if !leaf.attr.is_borrowed() && !can_merge(leaf.frame, below) {
            return Err(CollapseError::Shared);
        }
        noted |= leaf.attr.flags & NOTED;
    }
    let mut attr = first.attr;
    attr.flags |= noted;
    Ok(Leaf { attr, ..first })
}

fn can_merge(frame: Pfn, level: Level) -> bool {
    can_merge_block(frame, level.order())
}
