//! One large leaf becomes 512 smaller ones.

use super::cursor::Place;
use super::flush::Flush;
use super::format::{Entry, Leaf, Level, PtFormat};
use super::node::{ENTRIES, Node, new_node};
use crate::mm::addr::PageAddr;
use crate::mm::frame::{OutOfFrames, split_block};

/// Why a leaf stays whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SplitError {
    /// There is no leaf above page level there.
    NotALargeLeaf,
    /// The folio has other owners, which know it as one block.
    Shared,
    /// No frame for the node.
    OutOfFrames,
}

impl From<OutOfFrames> for SplitError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

/// Splits the leaf at `place`. Each of the 512 leaves has its share of the frames, and all rights and attributes of the
/// old one, accessed and dirty bits included. Translations stay the same, but the cached large one must go, because what
/// follows may change a part of it.
pub(super) fn split_at<F: PtFormat>(
    place: &Place<F>,
    flush: &mut Flush<F::Addr>,
    at: u64,
) -> Result<(), SplitError>
where
    F::Addr: PageAddr,
{
    let Entry::Leaf(leaf) = place.node.load(place.index, place.level) else {
        return Err(SplitError::NotALargeLeaf);
    };
    if place.level == Level::PAGE {
        return Err(SplitError::NotALargeLeaf);
    }
    let below = place.level.below();
    let pfn = new_node::<F>()?;
    if !leaf.attr.is_borrowed() && !split_block(leaf.frame, below.order()) {
        super::node::drop_new_node(pfn);
        return Err(SplitError::Shared);
    }
    let node = Node::<F>::at(pfn);
    for index in 0..ENTRIES {
        // Frames, not bytes: one entry below covers `below.frames()` of them.
        let frame = leaf.frame.offset(index as u64 * below.frames());
        node.fill(index, below, &Entry::Leaf(Leaf { frame, ..leaf }));
    }
    let last = place.node.swap(place.index, place.level, &Entry::Table(pfn));
    if let Entry::Leaf(last) = last
        && last.attr != leaf.attr
    {
        for index in 0..ENTRIES {
            node.note(index, below, &leaf, last.attr.flags - leaf.attr.flags);
        }
    }
    flush.touch(at & !(place.level.size() - 1), place.level.size());
    Ok(())
}
