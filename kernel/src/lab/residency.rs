//! Which pages of a region are resident when only so many may be: two queues, oldest page first.
//!
//! ```text
//!               fill               stage               store
//!   absent ──────────────► mapped ────────► staged ──────────────► stored
//!                            ▲                │                      │
//!                            ├──── rescue ────┘                      │
//!                            └──────────────── fill ─────────────────┘
//! ```
//!
//! Mapped and staged pages hold a frame each and are resident. Pages are staged in the order in which they were mapped; one that
//! is touched while it is staged is mapped again without having been away. Such a segmented queue comes near to the order of last
//! touches without anybody noting touches (VMS pages like this).

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere: nobody has touched it.
    Absent,
    /// In the region.
    Mapped,
    /// In this slot of the staging area.
    Staged(usize),
    /// Only in the store.
    Stored,
}

/// The places of a region's pages.
#[derive(Debug)]
pub struct Residency {
    places: Vec<Place>,
    mapped: VecDeque<usize>,
    staged: VecDeque<usize>,
    /// Whether a slot is taken.
    slots: Vec<bool>,
    budget: usize,
}

impl Residency {
    /// A region of `pages` absent pages of which `budget` may be resident, in the staging area's `staging` slots or mapped.
    pub fn new(pages: usize, budget: usize, staging: usize) -> Self {
        Self {
            places: vec![Place::Absent; pages],
            mapped: VecDeque::with_capacity(budget),
            staged: VecDeque::with_capacity(staging),
            slots: vec![false; staging],
            budget,
        }
    }

    /// Where `page` is.
    pub fn place(&self, page: usize) -> Place {
        self.places[page]
    }

    /// Pages that hold a frame.
    pub fn resident(&self) -> usize {
        self.mapped.len() + self.staged.len()
    }

    /// Whether one more page can be resident.
    pub fn has_room(&self) -> bool {
        self.resident() < self.budget
    }

    /// Notes that `page` was filled.
    pub fn fill(&mut self, page: usize) {
        debug_assert!(matches!(self.places[page], Place::Absent | Place::Stored));
        self.places[page] = Place::Mapped;
        self.mapped.push_back(page);
    }

    /// Has the page that was mapped first staged: the page, and its slot. `None` when no slot is free or nothing is mapped.
    pub fn stage(&mut self) -> Option<(usize, usize)> {
        let slot = self.slots.iter().position(|taken| !taken)?;
        let page = self.mapped.pop_front()?;
        self.slots[slot] = true;
        self.places[page] = Place::Staged(slot);
        self.staged.push_back(page);
        Some((page, slot))
    }

    /// Has the page that was staged first stored: the page, and the slot it is in until it is. `None` when none is staged.
    pub fn store(&mut self) -> Option<(usize, usize)> {
        let page = self.staged.pop_front()?;
        let slot = self.leave_slot(page)?;
        self.places[page] = Place::Stored;
        Some((page, slot))
    }

    /// Has a staged page mapped again: the slot it is in until it is. `None` when it is not staged.
    pub fn rescue(&mut self, page: usize) -> Option<usize> {
        let slot = self.leave_slot(page)?;
        let place = self.staged.iter().position(|staged| *staged == page)?;
        self.staged.remove(place);
        self.places[page] = Place::Mapped;
        self.mapped.push_back(page);
        Some(slot)
    }

    fn leave_slot(&mut self, page: usize) -> Option<usize> {
        let Place::Staged(slot) = self.places[page] else {
            return None;
        };
        self.slots[slot] = false;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_leave_in_the_order_in_which_they_came() {
        let mut residency = Residency::new(8, 3, 2);
        [5, 1, 7].into_iter().for_each(|page| residency.fill(page));
        assert!(!residency.has_room());
        assert_eq!(residency.stage(), Some((5, 0)));
        assert_eq!(residency.stage(), Some((1, 1)));
        assert_eq!(residency.stage(), None, "both slots are taken");
        assert!(!residency.has_room(), "staged pages are resident");
        assert_eq!(residency.store(), Some((5, 0)));
        assert_eq!(residency.place(5), Place::Stored);
        assert!(residency.has_room());
    }

    #[test]
    fn rescued_page_is_the_youngest_and_its_slot_is_free() {
        let mut residency = Residency::new(8, 3, 2);
        [0, 1, 2].into_iter().for_each(|page| residency.fill(page));
        residency.stage();
        assert_eq!(residency.rescue(0), Some(0));
        assert_eq!(residency.rescue(0), None, "it is mapped");
        assert_eq!(residency.stage(), Some((1, 0)));
        assert_eq!(residency.stage(), Some((2, 1)));
        assert_eq!(residency.rescue(1), Some(0));
        assert_eq!(residency.stage(), Some((0, 0)));
        assert_eq!(residency.store(), Some((2, 1)));
        assert_eq!(residency.store(), Some((0, 0)));
        assert_eq!(residency.store(), None);
    }

    proptest! {
        #[test]
        fn every_page_is_in_one_place_and_every_slot_has_one_page(
            steps in proptest::collection::vec((0u8..4, 0usize..12), 1..200),
        ) {
            let mut residency = Residency::new(12, 6, 3);
            for (step, page) in steps {
                match step {
                    0 if matches!(residency.place(page), Place::Absent | Place::Stored) && residency.has_room() => {
                        residency.fill(page);
                    }
                    1 => _ = residency.stage(),
                    2 => _ = residency.store(),
                    _ => _ = residency.rescue(page),
                }
                let count = |wanted: fn(Place) -> bool| (0..12).filter(|page| wanted(residency.place(*page))).count();
                prop_assert_eq!(count(|place| place == Place::Mapped), residency.mapped.len());
                prop_assert_eq!(count(|place| matches!(place, Place::Staged(_))), residency.staged.len());
                let mut slots: Vec<usize> = (0..12)
                    .filter_map(|page| match residency.place(page) {
                        Place::Staged(slot) => Some(slot),
                        _ => None,
                    })
                    .collect();
                slots.sort_unstable();
                let taken: Vec<usize> = (0..3).filter(|slot| residency.slots[*slot]).collect();
                prop_assert_eq!(slots, taken);
                prop_assert!(residency.resident() <= 6);
            }
        }
    }
}
