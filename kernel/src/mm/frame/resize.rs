//! One owner's block becomes several, and back.
//!
//! A block has one count of owners, in the metadata of its first frame. When a large page-table leaf is split, each of
//! the smaller leaves must own a block of its own.

use core::sync::atomic::Ordering::Relaxed;

use super::allocator;
use super::meta::POOLED;
use crate::mm::addr::Pfn;

/// Turns the block at `first`, if it has one owner, into blocks of `order`, each with one owner. False when it is shared,
/// or a huge page of the pool, which stays whole.
pub(in crate::mm) fn split_block(first: Pfn, order: u8) -> bool {
    let frames = allocator();
    let head = frames.meta(first);
    let flags = head.flags.load(Relaxed);
    if head.refs.load(Relaxed) != 1 || flags & POOLED != 0 {
        return false;
    }
    let whole = head.order.load(Relaxed);
    let kind = head.kind();
    for i in 0..1u64 << (whole - order) {
        let meta = frames.meta(first.offset(i << order));
        meta.order.store(order, Relaxed);
        meta.kind.store(kind as u8, Relaxed);
        meta.flags.store(flags, Relaxed);
        meta.refs.store(1, Relaxed);
    }
    true
}

/// Whether the block at `first` is of `order` and has one owner.
pub(in crate::mm) fn can_merge_block(first: Pfn, order: u8) -> bool {
    let meta = allocator().meta(first);
    meta.order.load(Relaxed) == order && meta.refs.load(Relaxed) == 1
}

/// Turns the blocks from `first` on, all of one owner each, into one block of `order` with one owner.
pub(in crate::mm) fn merge_block(first: Pfn, order: u8) {
    let frames = allocator();
    for i in 1..1u64 << order {
        frames.meta(first.offset(i)).refs.store(0, Relaxed);
    }
    frames.meta(first).order.store(order, Relaxed);
}
