//! The areas of one address space, ordered by address.
//!
//! Areas never overlap, and no two neighbours could be one: every change splits what it must and merges what it can.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use super::Vma;
use crate::mm::addr::VirtAddr;
use crate::mm::range::VirtRange;

/// Most areas of an address space (Linux's default `vm.max_map_count`).
pub const MAX_VMAS: usize = 65530;

/// The change would leave more than [`MAX_VMAS`] areas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyVmas;

/// Areas by start address.
#[derive(Default, Debug)]
pub struct VmaTree(BTreeMap<VirtAddr, Vma>);

impl VmaTree {
    /// No areas.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Number of areas.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The area that holds `addr`.
    #[inline]
    pub fn find(&self, addr: VirtAddr) -> Option<&Vma> {
        let (_, vma) = self.0.range(..=addr).next_back()?;
        vma.range.contains(addr).then_some(vma)
    }

    /// All areas, by address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.0.values()
    }

    /// The areas that share an address with `range`, by address.
    pub fn overlapping(&self, range: VirtRange) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |vma| vma.range.start);
        self.0
            .range((Bound::Included(first), Bound::Excluded(range.end.max(first))))
            .map(|(_, vma)| vma)
    }

    /// Whether nothing is mapped in `range`.
    pub fn is_free(&self, range: VirtRange) -> bool {
        self.overlapping(range).next().is_none()
    }

    /// The highest free range of `len` bytes within `window`, its start a multiple of `align`.
    pub fn find_gap(&self, len: u64, align: u64, window: VirtRange) -> Option<VirtRange> {
        let mut top = window.end;
        let candidate = |top: VirtAddr| {
            let start = VirtAddr::new(top.as_u64().checked_sub(len)?).align_down(align);
            (start >= window.start).then(|| VirtRange::new(start, start + len))
        };
        for vma in self.0.range(..window.end).rev().map(|(_, vma)| vma) {
            let range = candidate(top)?;
            if vma.range.end <= range.start {
                return Some(range);
            }
            top = top.min(vma.range.start);
        }
        candidate(top)
    }

    /// Adds an area where nothing is mapped, merging it with its neighbours.
    ///
    /// # Errors
    /// Too many areas.
    ///
    /// # Panics
    /// Something is mapped there.
    pub fn insert(&mut self, vma: Vma) -> Result<(), TooManyVmas> {
        assert!(self.is_free(vma.range), "area over an area");
        if self.len() >= MAX_VMAS {
            return Err(TooManyVmas);
        }
        let range = vma.range;
        self.0.insert(range.start, vma);
        self.merge_around(range);
        Ok(())
    }

    /// Takes out everything mapped in `range`, splitting at its ends; calls `removed` for each piece.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    pub fn remove(&mut self, range: VirtRange, mut removed: impl FnMut(Vma)) -> Result<(), TooManyVmas> {
        self.carve(range)?;
        while let Some((&start, _)) = self.0.range(range.start..range.end).next() {
            if let Some(vma) = self.0.remove(&start) {
                removed(vma);
            }
        }
        Ok(())
    }

    /// Changes everything mapped in `range`, splitting at its ends and merging afterwards.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    pub fn update(&mut self, range: VirtRange, mut change: impl FnMut(&mut Vma)) -> Result<(), TooManyVmas> {
        self.carve(range)?;
        for (_, vma) in self.0.range_mut(range.start..range.end) {
            change(vma);
        }
        self.merge_around(range);
        Ok(())
    }

    /// Changes whole areas that share an address with `range`, without splitting any, and merges afterwards.
    pub fn update_unsplit(&mut self, range: VirtRange, mut change: impl FnMut(&mut Vma)) {
        let first = self.find(range.start).map_or(range.start, |vma| vma.range.start);
        for (_, vma) in self.0.range_mut(first..range.end.max(first)) {
            change(vma);
        }
        self.merge_around(range);
    }

    /// Splits areas so that `range` starts and ends between areas.
    fn carve(&mut self, range: VirtRange) -> Result<(), TooManyVmas> {
        let straddles = |at: VirtAddr| self.find(at).is_some_and(|vma| vma.range.start < at);
        let splits = usize::from(straddles(range.start)) + usize::from(straddles(range.end));
        if self.len() + splits > MAX_VMAS {
            return Err(TooManyVmas);
        }
        self.split_at(range.start);
        self.split_at(range.end);
        Ok(())
    }

    fn split_at(&mut self, at: VirtAddr) {
        let Some((_, vma)) = self.0.range_mut(..at).next_back() else {
            return;
        };
        if !vma.range.contains(at) {
            return;
        }
        let mut upper = vma.clone();
        upper.range.start = at;
        vma.range.end = at;
        self.0.insert(at, upper);
    }

    /// Merges the areas in and next to `range` that could be one.
    fn merge_around(&mut self, range: VirtRange) {
        let before = self.0.range(..range.start).next_back().map(|(&start, _)| start);
        let mut at = before.unwrap_or(range.start);
        loop {
            let mut pair = self.0.range(at..);
            let (Some((&first, vma)), Some((&second, next))) = (pair.next(), pair.next()) else {
                return;
            };
            if vma.continues_as(next) {
                let end = next.range.end;
                self.0.remove(&second);
                if let Some(vma) = self.0.get_mut(&first) {
                    vma.range.end = end;
                }
                at = first;
            } else if second > range.end {
                return;
            } else {
                at = second;
            }
        }
    }
}
