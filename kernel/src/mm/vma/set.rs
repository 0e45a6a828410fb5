//! The areas of one address space, ordered by address.
//!
//! Areas never overlap. A change splits what it must, and makes one of the areas that it changes and their neighbours where
//! they can be (see [`Vma::continues_as`]); what it leaves as it is it neither splits nor merges, as on Linux. An area
//! begins and ends at multiples of its type's granule, so that no page is ever in two areas.
//!
//! They stand in one sorted vector. Spaces have few areas and far more faults than changes, and a fault asks for the area
//! that the last one was in: that is remembered, and the answer costs a comparison. A change costs moving what lies above.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Vma;
use crate::mm::addr::VirtAddr;
use crate::mm::range::VirtRange;
use crate::mm::reserve::reserve;

/// Most areas of an address space (Linux's default `vm.max_map_count`).
pub const MAX_VMAS: usize = 65530;

/// The change would leave more areas than [`MAX_VMAS`], or than the kernel has memory for (Linux says ENOMEM to both).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyVmas;

/// Areas by address.
#[derive(Default, Debug)]
pub struct VmaSet {
    areas: Vec<Vma>,
    /// Index of the area that was found last; a guess, since areas move.
    last_found: AtomicUsize,
}

impl VmaSet {
    /// No areas.
    pub const fn new() -> Self {
        Self {
            areas: Vec::new(),
            last_found: AtomicUsize::new(0),
        }
    }

    /// Number of areas.
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// The area that holds `addr`.
    #[inline]
    pub fn find(&self, addr: VirtAddr) -> Option<&Vma> {
        match self.areas.get(self.last_found.load(Ordering::Relaxed)) {
            Some(vma) if vma.range.contains(addr) => Some(vma),
            _ => self.search(addr),
        }
    }

    /// The area that holds `addr`, which is about to be given a page there, of its own if it is private: it remembers that
    /// from now on, whatever comes of it ([`AnonVma`](super::AnonVma)).
    #[inline]
    pub fn find_to_fill(&self, addr: VirtAddr) -> Option<&Vma> {
        let vma = self.find(addr)?;
        if vma.lacks_own_pages() {
            self.give_own_pages(vma);
        }
        Some(vma)
    }

    /// Has `vma`, an area of this set that lacks them, remember that it has pages of its own: together with a neighbour's
    /// where that is possible.
    #[cold]
    #[inline(never)]
    pub fn give_own_pages(&self, vma: &Vma) {
        let index = self.first_ending_after(vma.range.start);
        let above = self.areas.get(index + 1).filter(|next| vma.remembers_with(next));
        let below = index.checked_sub(1).map(|below| &self.areas[below]);
        let below = below.filter(|below| below.remembers_with(vma));
        let mut near = above.into_iter().chain(below);
        let like = near.find(|near| near.anon.is_reusable());
        vma.anon.set(like.map(|like| &like.anon));
    }

    fn search(&self, addr: VirtAddr) -> Option<&Vma> {
        let index = self.first_ending_after(addr);
        let vma = self.areas.get(index).filter(|vma| vma.range.contains(addr))?;
        self.last_found.store(index, Ordering::Relaxed);
        Some(vma)
    }

    /// Index of the first area that ends above `addr`: the one that holds it, or the next.
    fn first_ending_after(&self, addr: VirtAddr) -> usize {
        self.areas.partition_point(|vma| vma.range.end <= addr)
    }

    /// Indices of the areas that share an address with `range`.
    fn indices(&self, range: VirtRange) -> Range<usize> {
        let first = self.first_ending_after(range.start);
        let end = self.areas.partition_point(|vma| vma.range.start < range.end);
        first..end.max(first)
    }

    /// All areas, by address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas.iter()
    }

    /// The areas that share an address with `range`, by address.
    pub fn overlapping(&self, range: VirtRange) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas[self.indices(range)].iter()
    }

    /// Whether nothing is mapped in `range`.
    pub fn is_free(&self, range: VirtRange) -> bool {
        self.indices(range).is_empty()
    }

    /// Bytes of `range` that are mapped.
    pub fn mapped_in(&self, range: VirtRange) -> u64 {
        let parts = self
            .overlapping(range)
            .filter_map(|vma| vma.range.intersect(&range));
        parts.map(|part| part.len()).sum()
    }

    /// Whether `range` can begin and end between areas: an area that it would split there is split between two of its pages.
    /// Where that is not so, nothing may be removed or updated.
    pub fn can_split_at_ends_of(&self, range: VirtRange) -> bool {
        [range.start, range.end].into_iter().all(|at| {
            self.find(at)
                .is_none_or(|vma| at.is_aligned(vma.ty.granule().size()))
        })
    }

    /// [`Self::can_split_at_ends_of`] for a change that is refused otherwise: where it is the end of the range that lies inside a
    /// page, areas are parted at its start all the same, as on Linux, which does that first.
    pub fn can_part_at_ends_of(&mut self, range: VirtRange) -> bool {
        let can_split = self.can_split_at_ends_of(range);
        let start = VirtRange::new(range.start, range.start);
        if !can_split && self.can_split_at_ends_of(start) && self.make_room(1).is_ok() {
            self.split_at(range.start);
        }
        can_split
    }

    /// The first area that ends above `addr`: the one that holds it, or the next.
    pub fn at_or_above(&self, addr: VirtAddr) -> Option<&Vma> {
        self.areas.get(self.first_ending_after(addr))
    }

    /// The last area that ends at `addr` or below.
    pub fn below(&self, addr: VirtAddr) -> Option<&Vma> {
        self.areas.get(self.first_ending_after(addr).checked_sub(1)?)
    }

    /// Makes an area begin at `start`, which lies below its start with nothing mapped in between; it maps no object. It is
    /// about to get a page.
    pub fn extend_down(&mut self, at: VirtAddr, start: VirtAddr) {
        self.find_to_fill(at);
        let index = self.first_ending_after(at);
        if let Some(vma) = self.areas.get_mut(index) {
            vma.range.start = vma.range.start.min(start);
            self.merge(index);
        }
    }

    /// Whether nothing is mapped in `range`, and nothing grows towards it that is nearer than [`STACK_GAP`](super::STACK_GAP).
    pub fn is_clear(&self, range: VirtRange) -> bool {
        let above = self.at_or_above(range.start);
        above.is_none_or(|vma| vma.guarded_start() >= range.end)
    }

    /// The highest free range of `len` bytes within `window`, its start a multiple of `align`, clear of areas that grow.
    pub fn find_gap(&self, len: u64, align: u64, window: VirtRange) -> Option<VirtRange> {
        let mut top = window.end;
        let candidate = |top: VirtAddr| {
            let start = VirtAddr::new(top.as_u64().checked_sub(len)?).align_down(align);
            (start >= window.start).then(|| VirtRange::new(start, start + len))
        };
        for vma in self.overlapping(window).rev() {
            let range = candidate(top)?;
            if vma.range.end <= range.start {
                return Some(range);
            }
            top = top.min(vma.guarded_start());
        }
        candidate(top)
    }

    /// Adds an area where nothing is mapped, merging it with its neighbours.
    ///
    /// # Errors
    /// Too many areas.
    ///
    /// # Panics
    /// Something is mapped there, or the area ends inside a page of its type.
    pub fn insert(&mut self, vma: Vma) -> Result<(), TooManyVmas> {
        let index = self.insert_apart(vma)?;
        self.merge(index);
        Ok(())
    }

    /// Adds an area where nothing is mapped, beside its neighbours. Returns its index.
    ///
    /// # Errors
    /// Too many areas.
    ///
    /// # Panics
    /// As [`Self::insert`].
    pub fn insert_apart(&mut self, vma: Vma) -> Result<usize, TooManyVmas> {
        let at = self.indices(vma.range);
        assert!(at.is_empty(), "area over an area");
        assert!(
            vma.range.is_aligned(vma.ty.granule().size()),
            "an area that ends inside a page"
        );
        self.make_room(1)?;
        self.areas.insert(at.start, vma);
        Ok(at.start)
    }

    /// Takes out everything mapped in `range`, splitting at its ends; calls `removed` for each piece.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    ///
    /// # Panics
    /// An end of the range lies inside a page; see [`Self::can_split_at_ends_of`].
    pub fn remove(&mut self, range: VirtRange, removed: impl FnMut(Vma)) -> Result<(), TooManyVmas> {
        self.carve(range)?;
        let inside = self.indices(range);
        self.areas.drain(inside).for_each(removed);
        Ok(())
    }

    /// Changes everything mapped in `range`, splitting at its ends.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    ///
    /// # Panics
    /// An end of the range lies inside a page; see [`Self::can_split_at_ends_of`].
    pub fn update(&mut self, range: VirtRange, change: impl FnMut(&mut Vma)) -> Result<(), TooManyVmas> {
        self.update_where(range, |_| true, change)
    }

    /// Changes those areas in `range` that are `meant`, by address, splitting them at the ends of the range.
    ///
    /// # Errors
    /// Splitting would leave too many areas; nothing changed then.
    ///
    /// # Panics
    /// An end of the range lies inside a page of such an area.
    pub fn update_where(
        &mut self,
        range: VirtRange,
        meant: impl Fn(&Vma) -> bool,
        change: impl FnMut(&mut Vma),
    ) -> Result<(), TooManyVmas> {
        let splits = |at: &VirtAddr| {
            let vma = self.find(*at);
            vma.is_some_and(|vma| vma.range.start < *at && meant(vma))
        };
        let ends = [range.start, range.end].map(|at| Some(at).filter(splits));
        self.make_room(ends.iter().flatten().count())?;
        for at in ends.into_iter().flatten() {
            self.split_at(at);
        }
        self.update_unsplit(range, meant, change);
        Ok(())
    }

    /// Changes whole areas that share an address with `range` and are `meant`, by address, without splitting any.
    pub fn update_unsplit(
        &mut self,
        range: VirtRange,
        meant: impl Fn(&Vma) -> bool,
        mut change: impl FnMut(&mut Vma),
    ) {
        let inside = self.indices(range);
        let (first, end) = (
            inside.start.saturating_sub(1),
            (inside.end + 1).min(self.areas.len()),
        );
        let (mut kept, mut changed) = (first, false);
        for index in first..end {
            let before = changed;
            let vma = &mut self.areas[index];
            changed = inside.contains(&index) && meant(vma);
            if changed {
                change(vma);
            }
            if index == first {
                continue;
            }
            let (below, above) = self.areas.split_at_mut(index);
            let (last, next) = (&mut below[kept], &above[0]);
            if (before || changed) && last.continues_as(next) {
                last.join(next);
                changed = true;
            } else {
                kept += 1;
                self.areas.swap(kept, index);
            }
        }
        if first < end {
            self.areas.drain(kept + 1..end);
        }
    }

    /// The area that holds `addr`, to be changed without becoming one with another.
    pub fn find_mut(&mut self, addr: VirtAddr) -> Option<&mut Vma> {
        let index = self.first_ending_after(addr);
        self.areas.get_mut(index).filter(|vma| vma.range.contains(addr))
    }

    /// Splits areas so that `range` starts and ends between areas.
    fn carve(&mut self, range: VirtRange) -> Result<(), TooManyVmas> {
        let straddles = |at: VirtAddr| self.find(at).is_some_and(|vma| vma.range.start < at);
        let splits = usize::from(straddles(range.start)) + usize::from(straddles(range.end));
        self.make_room(splits)?;
        self.split_at(range.start);
        self.split_at(range.end);
        Ok(())
    }

    /// Makes sure that `more` areas can be added, by splitting too.
    ///
    /// # Errors
    /// They would be too many.
    pub fn make_room(&mut self, more: usize) -> Result<(), TooManyVmas> {
        if self.len() + more > MAX_VMAS {
            return Err(TooManyVmas);
        }
        reserve(&mut self.areas, more).map_err(|_| TooManyVmas)
    }

    fn split_at(&mut self, at: VirtAddr) {
        let index = self.first_ending_after(at);
        let Some(vma) = self.areas.get_mut(index).filter(|vma| vma.range.start < at) else {
            return;
        };
        assert!(
            at.is_aligned(vma.ty.granule().size()),
            "an area split inside a page"
        );
        let upper = vma.clipped(VirtRange::new(at, vma.range.end));
        vma.range.end = at;
        self.areas.insert(index + 1, upper);
    }

    /// Makes the area with this index one with its neighbours, where they can be: first with the one below.
    fn merge(&mut self, index: usize) {
        let joined = index.checked_sub(1).is_some_and(|below| self.join(below));
        self.join(index - usize::from(joined));
    }

    /// Makes the area with this index one with the next, if they can be.
    fn join(&mut self, index: usize) -> bool {
        match &mut self.areas[index..] {
            [vma, next, ..] if vma.continues_as(next) => vma.join(next),
            _ => return false,
        }
        self.areas.remove(index + 1);
        true
    }
}
