//! The model: what each page holds, and what an operation would do to it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::play::Flushed;
use super::{CheckedFormat, GIB, PAGES, SPAN};
use crate::mm::addr::Pfn;
use crate::mm::frame::Folio;
use crate::mm::pt::{Attr, AttrFlags, Leaf, Level, Marker, PageTable};

/// What the model holds for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Marked(Marker),
    Mapped { leaf: Leaf, level: Level },
}

/// A table, the model beside it, and what the test holds.
pub(super) struct Check<F: CheckedFormat> {
    pub(super) table: PageTable<F>,
    pub(super) base: u64,
    pub(super) model: BTreeMap<u64, Page>,
    /// What is mapped from the window's end to the end of its GiB: the leaf at the window's end.
    pub(super) beyond: Option<(Leaf, Level)>,
    pub(super) held: Vec<Folio>,
    pub(super) flushed: Flushed<F>,
}

/// The leaf for a page inside a larger leaf that starts at `first`.
pub(super) fn part(leaf: &Leaf, frames: u64) -> Leaf {
    Leaf {
        frame: leaf.frame.offset(frames),
        ..*leaf
    }
}

impl<F: CheckedFormat> Check<F> {
    /// First page and number of pages of the entry of `level` around `page`; the GiB reaches past the window.
    pub(super) fn around(page: u64, level: Level) -> (u64, u64) {
        match level {
            Level::PAGE => (page, 1),
            Level::MID => (page & !(SPAN - 1), SPAN),
            _ => (GIB, SPAN * SPAN),
        }
    }

    pub(super) fn mapped(&self, page: u64) -> Option<(Leaf, Level)> {
        match self.model.get(&page) {
            Some(Page::Mapped { leaf, level }) => Some((*leaf, *level)),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self, start: u64, len: u64) -> bool {
        self.model.range(start..start + len).next().is_none() && (len <= SPAN || self.beyond.is_none())
    }

    pub(super) fn insert(&mut self, start: u64, len: u64, leaf: Leaf, level: Level) {
        for page in start..(start + len).min(PAGES) {
            self.model.insert(
                page,
                Page::Mapped {
                    leaf: part(&leaf, page - start),
                    level,
                },
            );
        }
        if start + len > PAGES {
            self.beyond = Some((part(&leaf, PAGES - start), level));
        }
    }

    /// What a range operation does to the model before it reaches pages: large leaves that stick out become smaller ones,
    /// unless they are shared; then the operation stops there.
    pub(super) fn cut(&mut self, start: u64, end: u64) -> (u64, bool) {
        let mut page = start;
        while page < end {
            let Some((leaf, level)) = self.mapped(page) else {
                page += 1;
                continue;
            };
            let (first, len) = Self::around(page, level);
            if start <= first && first + len <= end {
                page = first + len;
            } else if !self.split_model(page, &leaf, level) {
                return (page, false);
            }
        }
        (end, true)
    }

    /// Splits the leaf around `page` in the model; false when it is shared.
    pub(super) fn split_model(&mut self, page: u64, leaf: &Leaf, level: Level) -> bool {
        let (first, len) = Self::around(page, level);
        let head = Pfn::new(leaf.frame.as_u64() - (page - first));
        if !leaf.attr.is_borrowed() && self.held.iter().any(|folio| folio.pfn() == head) {
            return false;
        }
        let whole = Leaf { frame: head, ..*leaf };
        self.insert(first, len, whole, level.below());
        true
    }

    /// The leaf that the entry of `level` around `page` would become.
    pub(super) fn can_collapse(&self, page: u64, level: Level) -> Option<Leaf> {
        if level == Level::PAGE || level > F::max_leaf() {
            return None;
        }
        let (start, len) = Self::around(page, level);
        let below = level.below();
        let (first, _) = self
            .mapped(start)
            .filter(|(leaf, _)| leaf.frame.as_u64() & (level.frames() - 1) == 0)?;
        let noted = AttrFlags::ACCESSED | AttrFlags::DIRTY;
        let mut seen = AttrFlags::empty();
        let mut fits = |at: u64, leaf: Leaf, found: Level| {
            seen |= leaf.attr.flags & noted;
            let plain = |leaf: Leaf| (leaf.prot, leaf.attr.flags - noted, leaf.attr.cache);
            let shared = !leaf.attr.is_borrowed() && self.owners(leaf.frame) > 1;
            found == below
                && leaf.frame == first.frame.offset(at - start)
                && plain(leaf) == plain(first)
                && !shared
        };
        for at in start..(start + len).min(PAGES) {
            let (leaf, found) = self.mapped(at)?;
            if !fits(at, leaf, found) {
                return None;
            }
        }
        if start + len > PAGES {
            let (leaf, found) = self.beyond?;
            if !fits(PAGES, leaf, found) {
                return None;
            }
        }
        let attr = Attr {
            flags: first.attr.flags | seen,
            ..first.attr
        };
        Some(Leaf { attr, ..first })
    }

    /// References to the frame in the model and in the test's hands.
    pub(super) fn owners(&self, frame: Pfn) -> usize {
        let mapped = self.model.values().filter(
            |page| matches!(page, Page::Mapped { leaf, .. } if leaf.frame == frame && !leaf.attr.is_borrowed()),
        );
        mapped.count() + self.held.iter().filter(|folio| folio.pfn() == frame).count()
    }

    /// Adds flags to the leaf around `page` in the model.
    pub(super) fn add_flags(&mut self, page: u64, flags: AttrFlags) {
        let Some((leaf, level)) = self
            .mapped(page)
            .filter(|(leaf, _)| !leaf.attr.flags.contains(flags))
        else {
            return;
        };
        let attr = Attr {
            flags: leaf.attr.flags | flags,
            ..leaf.attr
        };
        let (start, len) = Self::around(page, level);
        let head = Pfn::new(leaf.frame.as_u64() - (page - start));
        self.insert(
            start,
            len,
            Leaf {
                frame: head,
                attr,
                ..leaf
            },
            level,
        );
    }
}
