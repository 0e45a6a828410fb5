//! Half-open address ranges.

use super::addr::{GuestPhysAddr, PAGE_SIZE, PageAddr, VirtAddr};

/// `[start, end)` of addresses of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddrRange<A> {
    /// First address.
    pub start: A,
    /// First address past the range.
    pub end: A,
}

/// A range of virtual addresses.
pub type VirtRange = AddrRange<VirtAddr>;
/// A range of guest-physical addresses.
pub type GuestRange = AddrRange<GuestPhysAddr>;

impl<A: PageAddr> AddrRange<A> {
    /// `[start, end)`; an inverted pair gives an empty range at `start`.
    pub fn new(start: A, end: A) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// `len` bytes from `start`; `None` when the end wraps.
    pub fn from_len(start: A, len: u64) -> Option<Self> {
        let end = start.to_u64().checked_add(len)?;
        Some(Self {
            start,
            end: A::from_u64(end),
        })
    }

    /// The page at `start`, which the caller has aligned.
    pub fn page(start: A) -> Self {
        Self {
            start,
            end: A::from_u64(start.to_u64() + PAGE_SIZE),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end.to_u64() - self.start.to_u64()
    }

    /// Number of base pages, for page-aligned ranges.
    pub fn pages(&self) -> u64 {
        self.len() / PAGE_SIZE
    }

    /// Whether nothing lies in the range.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether both ends are multiples of `align`.
    pub fn is_aligned(&self, align: u64) -> bool {
        (self.start.to_u64() | self.end.to_u64()) & (align - 1) == 0
    }

    /// Whether `addr` lies in the range.
    pub fn contains(&self, addr: A) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether all of `other` lies in the range.
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What the two share; `None` when that is nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }
}
