//! The buddy allocator: blocks of 2^order frames, aligned to their size.
//!
//! A free block is on the list of its order; the list runs through the metadata of the blocks' first frames. Freeing
//! merges a block with its buddy (the frame number with bit `order` flipped) as long as that is free and of the same
//! order. All under one lock, held by [`super::FrameAllocator`].

use core::sync::atomic::Ordering::Relaxed;

use super::MAX_ORDER;
use super::meta::{FrameMeta, Kind, NIL};

/// Heads of the free lists.
#[derive(Debug)]
pub(super) struct Buddy {
    heads: [u32; MAX_ORDER as usize + 1],
    blocks: [u64; MAX_ORDER as usize + 1],
}

impl Buddy {
    /// No free memory yet.
    pub(super) const fn new() -> Self {
        Self {
            heads: [NIL; MAX_ORDER as usize + 1],
            blocks: [0; MAX_ORDER as usize + 1],
        }
    }

    /// Free blocks of each order.
    pub(super) fn blocks(&self) -> [u64; MAX_ORDER as usize + 1] {
        self.blocks
    }

    /// Free frames in all.
    pub(super) fn free_frames(&self) -> u64 {
        self.blocks.iter().enumerate().map(|(order, n)| n << order).sum()
    }

    /// Takes a block of `order`, splitting a larger one if need be. Its kind stays `Free`; the caller changes it.
    pub(super) fn alloc(&mut self, meta: &[FrameMeta], order: u8) -> Option<u32> {
        let mut have = (order..=MAX_ORDER).find(|&o| self.heads[o as usize] != NIL)?;
        let block = self.heads[have as usize];
        self.unlink(meta, block, have);
        while have > order {
            have -= 1;
            // The upper half goes back; the lower half is split further or handed out.
            self.link(meta, block + (1 << have), have);
        }
        meta[block as usize].order.store(order, Relaxed);
        Some(block)
    }

    /// Gives a block back and merges it with its free buddies.
    pub(super) fn free(&mut self, meta: &[FrameMeta], mut block: u32, mut order: u8) {
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            if !Self::is_free_block(meta, buddy, order) {
                break;
            }
            self.unlink(meta, buddy, order);
            block = block.min(buddy);
            order += 1;
        }
        self.link(meta, block, order);
    }

    fn is_free_block(meta: &[FrameMeta], block: u32, order: u8) -> bool {
        meta.get(block as usize).is_some_and(|m| {
            m.kind() == Kind::Free && m.order.load(Relaxed) == order && m.spare.load(Relaxed) == HEAD
        })
    }

    fn link(&mut self, meta: &[FrameMeta], block: u32, order: u8) {
        let head = self.heads[order as usize];
        let m = &meta[block as usize];
        m.kind.store(Kind::Free as u8, Relaxed);
        m.order.store(order, Relaxed);
        m.spare.store(HEAD, Relaxed);
        m.next.store(head, Relaxed);
        m.prev.store(NIL, Relaxed);
        if head != NIL {
            meta[head as usize].prev.store(block, Relaxed);
        }
        self.heads[order as usize] = block;
        self.blocks[order as usize] += 1;
    }

    fn unlink(&mut self, meta: &[FrameMeta], block: u32, order: u8) {
        let m = &meta[block as usize];
        let (next, prev) = (m.next.load(Relaxed), m.prev.load(Relaxed));
        match prev {
            NIL => self.heads[order as usize] = next,
            p => meta[p as usize].next.store(next, Relaxed),
        }
        if next != NIL {
            meta[next as usize].prev.store(prev, Relaxed);
        }
        m.spare.store(0, Relaxed);
        self.blocks[order as usize] -= 1;
    }
}

/// Mark in `spare`: this frame is the first of a block on a free list (and not just a frame inside one).
const HEAD: u8 = 1;
