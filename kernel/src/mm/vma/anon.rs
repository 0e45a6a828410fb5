//! What an area remembers of the pages that it has of its own: Linux's `anon_vma` and page offset.
//!
//! Neighbours that are alike in everything that can be seen are still not one area where each has pages of its own that came
//! to it separately. Programs notice: a fill, a MOVE or an `mremap` that spans both is refused (ENOENT, EFAULT). As on
//! Linux 6.18:
//!
//! | what the two have of their own | they can be one |
//! | --- | --- |
//! | neither has anything | if neither came here by a move, or both by the same distance |
//! | only one has | the same, and that one is not a fork's copy |
//! | both have | if both are parts of what was one area, or one took its mark from the other |
//!
//! An area gets its mark with the first store that finds no page of its own, also where somebody is asked about that store,
//! and with the first fill or MOVE that begins in it, also where that is refused. It takes the mark of a neighbour that is
//! like it but for its rights, unless that is a fork's copy ([`VmaSet::find_to_fill`](super::VmaSet::find_to_fill)).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::mm::addr::VirtAddr;

/// Set in the marks of areas that a fork has copied from areas with pages of their own.
const FORKED: u64 = 1 << 63;

/// The next mark that nobody has.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn fresh() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// See the module. Set once, by whoever has the areas locked for looking; so it is an atomic, of which only the value counts.
#[derive(Default, Debug)]
pub struct AnonVma {
    /// The mark; 0: none yet.
    mark: AtomicU64,
    /// How far the pages are from the addresses at which they were first, modulo 2^64.
    moved: u64,
}

impl AnonVma {
    fn mark(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Whether the area has had no page of its own yet.
    #[inline]
    pub fn is_unset(&self) -> bool {
        self.mark() == 0
    }

    /// Whether an area that gets its first page may take the mark.
    pub fn is_reusable(&self) -> bool {
        !self.is_unset() && self.mark() & FORKED == 0
    }

    /// Sets the mark that is not set yet: that of `like`, or else a new one.
    pub fn set(&self, like: Option<&Self>) {
        let mark = like.map_or_else(fresh, Self::mark);
        // Whoever was faster has set one that is as good.
        let _ = self
            .mark
            .compare_exchange(0, mark, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What the copy of the area in a fork's child remembers.
    pub fn forked(&self) -> Self {
        let mark = if self.is_unset() { 0 } else { fresh() | FORKED };
        Self {
            mark: AtomicU64::new(mark),
            moved: self.moved,
        }
    }

    /// What the area remembers after it has moved. Where it has no pages nothing came from anywhere else.
    pub fn moved(&self, from: VirtAddr, to: VirtAddr) -> Self {
        let distance = to.as_u64().wrapping_sub(from.as_u64());
        Self {
            mark: AtomicU64::new(self.mark()),
            moved: if self.is_unset() {
                0
            } else {
                self.moved.wrapping_add(distance)
            },
        }
    }

    /// The area's pages have gone elsewhere, all of them.
    pub fn unset(&mut self) {
        *self.mark.get_mut() = 0;
    }

    /// Whether the pages of both were at the same distance at first.
    pub fn is_as_far_as(&self, other: &Self) -> bool {
        self.moved == other.moved
    }

    /// Whether areas with these can be one, where offsets in an object do not say otherwise.
    pub fn can_join(&self, other: &Self) -> bool {
        match (self.mark(), other.mark()) {
            (0, one) | (one, 0) => one & FORKED == 0,
            (one, other) => one == other,
        }
    }

    /// The area becomes one with that of `other`, which it can join.
    pub fn join(&mut self, other: &Self) {
        *self.mark.get_mut() |= other.mark();
    }
}

impl Clone for AnonVma {
    /// For a part of the same area.
    fn clone(&self) -> Self {
        Self {
            mark: AtomicU64::new(self.mark()),
            moved: self.moved,
        }
    }
}

impl PartialEq for AnonVma {
    fn eq(&self, other: &Self) -> bool {
        (self.mark(), self.moved) == (other.mark(), other.moved)
    }
}
