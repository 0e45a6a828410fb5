//! Sets of pages: what was written, what was reported.

use alloc::vec;
use alloc::vec::Vec;

const BITS: usize = u64::BITS as usize;

/// A set of page numbers of a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSet {
    words: Vec<u64>,
    pages: usize,
}

impl PageSet {
    /// None of a region's `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self {
            words: vec![0; pages.div_ceil(BITS)],
            pages,
        }
    }

    /// All of a region's `pages` pages.
    pub fn full(pages: usize) -> Self {
        let mut set = Self::new(pages);
        (0..pages).for_each(|page| _ = set.insert(page));
        set
    }

    /// Adds `page`; says whether it was not in the set.
    ///
    /// # Panics
    /// The region has no such page.
    #[inline]
    pub fn insert(&mut self, page: usize) -> bool {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        let (word, bit) = (&mut self.words[page / BITS], 1 << (page % BITS));
        let added = *word & bit == 0;
        *word |= bit;
        added
    }

    /// Whether `page` is in the set.
    #[inline]
    pub fn contains(&self, page: usize) -> bool {
        let word = self.words.get(page / BITS);
        word.is_some_and(|word| word & (1 << (page % BITS)) != 0)
    }

    /// Number of pages in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The pages in the set, from the first on.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.pages).filter(|page| self.contains(*page))
    }

    /// The pages in the set that are not in `other`.
    pub fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        self.iter().filter(|page| !other.contains(*page))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn pages_are_in_the_set_once_they_were_added() {
        let mut set = PageSet::new(130);
        assert!(set.is_empty());
        assert!(set.insert(129) && set.insert(0) && set.insert(64));
        assert!(!set.insert(64), "it is there");
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert_eq!(set.len(), 3);
        assert!(!set.contains(1) && !set.contains(1000));
    }

    #[test]
    fn difference_has_what_only_the_first_set_has() {
        let mut set = PageSet::full(4);
        set.insert(2);
        let mut other = PageSet::new(70);
        other.insert(1);
        other.insert(69);
        assert_eq!(set.minus(&other).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(other.minus(&set).collect::<Vec<_>>(), [69]);
    }

    #[test]
    #[should_panic(expected = "page 8 of 8")]
    fn page_past_the_end_is_refused() {
        PageSet::new(8).insert(8);
    }
}
