//! Which pages of a region are present, why, and whether a prefetch paid.
//!
//! The monitor writes down what it fills, the workload what it touches; both do so without a lock.
//!
//! ```text
//!              fault, filled                       filled ahead, later touched
//!   Absent ───────────────────► Demanded     Absent ──► Ahead ──────────────────► Hit
//!   Absent ──► Rest   (filled after the workload had what it wanted)
//! ```
//!
//! At the end a page that is still `Ahead` was fetched in vain.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

/// Why a page is present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Page {
    /// It is not.
    Absent = 0,
    /// A fault asked for it.
    Demanded = 1,
    /// It was filled ahead and nobody has touched it.
    Ahead = 2,
    /// It was filled ahead and touched later, without a fault.
    Hit = 3,
    /// It was filled to complete the region.
    Rest = 4,
}

/// How many pages are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// [`Page::Absent`].
    pub absent: u64,
    /// [`Page::Demanded`].
    pub demanded: u64,
    /// [`Page::Ahead`]: fetched in vain.
    pub waste: u64,
    /// [`Page::Hit`].
    pub hits: u64,
    /// [`Page::Rest`].
    pub rest: u64,
}

/// The states of a region's pages.
#[derive(Debug)]
pub struct Pages {
    states: Vec<AtomicU8>,
}

impl Pages {
    /// `count` absent pages.
    pub fn new(count: usize) -> Self {
        let mut states = Vec::with_capacity(count);
        states.resize_with(count, || AtomicU8::new(Page::Absent as u8));
        Self { states }
    }

    /// Number of pages.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether the region has no page.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Whether nobody has filled `page`.
    #[inline]
    pub fn is_absent(&self, page: usize) -> bool {
        self.states[page].load(Ordering::Relaxed) == Page::Absent as u8
    }

    /// The absent pages from `first` on, up to the first present one and at most `limit`.
    #[inline]
    pub fn absent_run(&self, first: usize, limit: usize) -> Range<usize> {
        let rest = &self.states[first.min(self.states.len())..];
        let run = rest
            .iter()
            .take(limit)
            .take_while(|state| state.load(Ordering::Relaxed) == Page::Absent as u8);
        first..first + run.count()
    }

    /// The next absent run at or after `first`, at most `limit` long; `None` when no page is absent there.
    pub fn next_absent(&self, first: usize, limit: usize) -> Option<Range<usize>> {
        let start = (first..self.states.len()).find(|page| self.is_absent(*page))?;
        Some(self.absent_run(start, limit))
    }

    /// Writes down that `pages` were filled, and why.
    #[inline]
    pub fn filled(&self, pages: Range<usize>, why: Page) {
        for state in &self.states[pages] {
            state.store(why as u8, Ordering::Relaxed);
        }
    }

    /// Writes down that the workload has touched `page`.
    #[inline]
    pub fn touched(&self, page: usize) {
        let state = &self.states[page];
        if state.load(Ordering::Relaxed) == Page::Ahead as u8 {
            state.store(Page::Hit as u8, Ordering::Relaxed);
        }
    }

    /// The states, counted.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for state in &self.states {
            *match state.load(Ordering::Relaxed) {
                state if state == Page::Demanded as u8 => &mut counts.demanded,
                state if state == Page::Ahead as u8 => &mut counts.waste,
                state if state == Page::Hit as u8 => &mut counts.hits,
                state if state == Page::Rest as u8 => &mut counts.rest,
                _ => &mut counts.absent,
            } += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_that_is_touched_is_a_hit_and_the_rest_is_waste() {
        let pages = Pages::new(8);
        pages.filled(2..3, Page::Demanded);
        pages.filled(3..6, Page::Ahead);
        pages.touched(2);
        pages.touched(4);
        pages.touched(4);
        pages.filled(6..7, Page::Rest);
        let expected = Counts {
            absent: 3,
            demanded: 1,
            waste: 2,
            hits: 1,
            rest: 1,
        };
        assert_eq!(pages.counts(), expected);
    }

    #[test]
    fn runs_stop_at_present_pages_at_the_limit_and_at_the_end() {
        let pages = Pages::new(8);
        pages.filled(3..4, Page::Demanded);
        assert_eq!(pages.absent_run(0, 8), 0..3);
        assert_eq!(pages.absent_run(0, 2), 0..2);
        assert_eq!(pages.absent_run(3, 8), 3..3);
        assert_eq!(pages.absent_run(6, 8), 6..8);
        assert_eq!(pages.absent_run(8, 8), 8..8);
    }

    #[test]
    fn absent_runs_cover_exactly_what_is_absent() {
        let pages = Pages::new(10);
        pages.filled(0..1, Page::Demanded);
        pages.filled(4..6, Page::Ahead);
        pages.filled(9..10, Page::Ahead);
        assert_eq!(pages.next_absent(0, 2), Some(1..3));
        assert_eq!(pages.next_absent(3, 64), Some(3..4));
        assert_eq!(pages.next_absent(4, 64), Some(6..9));
        assert_eq!(pages.next_absent(9, 64), None);
        assert_eq!(pages.next_absent(10, 64), None);
    }
}
