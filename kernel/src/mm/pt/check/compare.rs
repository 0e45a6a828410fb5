//! The table beside the model, page by page.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::model::{Check, Page, part};
use super::{CheckedFormat, PAGES, SPAN, SPANS, Seen};
use crate::mm::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::mm::frame::{Kind, allocator};
use crate::mm::pt::{AttrFlags, Entry, Leaf, Marker};

impl<F: CheckedFormat> Check<F> {
    /// Compares the table with the model where the step changed something, and at the edges of all spans.
    pub(super) fn compare(&mut self, before: &BTreeMap<u64, Page>) {
        let changed: Vec<u64> = (0..PAGES)
            .filter(|page| self.model.get(page) != before.get(page))
            .collect();
        for page in changed {
            self.compare_page(page);
            if let Some(Page::Mapped { leaf, .. }) = before.get(&page) {
                self.expect_flushed(page, leaf);
            }
        }
        for page in (0..SPANS).flat_map(|span| [span * SPAN, span * SPAN + 1, span * SPAN + SPAN - 1]) {
            self.compare_page(page);
        }
    }

    pub(super) fn compare_page(&mut self, page: u64) {
        let addr = self.addr(page);
        let (entry, level) = self.table.lookup(addr);
        let found = match entry {
            Entry::Absent(Marker::None) => None,
            Entry::Absent(marker) => Some(Page::Marked(marker)),
            Entry::Leaf(leaf) => {
                let offset = (addr.to_u64() & (level.size() - 1)) / PAGE_SIZE;
                Some(Page::Mapped {
                    leaf: part(&leaf, offset),
                    level,
                })
            }
            Entry::Table(_) => panic!("lookup stopped at a table"),
        };
        assert_eq!(found.as_ref(), self.model.get(&page), "page {page}");
        let seen = F::cpu_walk(self.table.root(), addr.to_u64());
        let expected = self.mapped(page).filter(|(leaf, _)| !leaf.prot.is_empty());
        let expected = expected.map(|(leaf, _)| Seen {
            frame: leaf.frame,
            prot: leaf.prot,
        });
        assert_eq!(seen, expected, "what the CPU makes of page {page}");
        if F::touch(addr.to_u64()) {
            self.add_flags(page, AttrFlags::ACCESSED);
        }
    }

    /// The translation `old` of `page` is gone or restricted only if the page was flushed.
    pub(super) fn expect_flushed(&self, page: u64, old: &Leaf) {
        let kept = self.mapped(page).is_some_and(|(new, _)| {
            new.frame == old.frame && new.prot.contains(old.prot) && new.attr.cache == old.attr.cache
        });
        let flushed = self
            .flushed
            .0
            .borrow()
            .iter()
            .any(|range| range.contains(self.addr(page)));
        assert!(
            kept || old.prot.is_empty() || flushed,
            "page {page} changed without a flush"
        );
    }

    /// Compares every page, takes everything away and looks whether anything is left.
    pub(super) fn finish(mut self) {
        (0..PAGES).for_each(|page| self.compare_page(page));
        self.held.clear();
        self.unmap(0, PAGES, true);
        (0..PAGES).for_each(|page| self.compare_page(page));
        F::load(Pfn::new(0));
        assert_eq!(
            allocator().stats().of(Kind::Anon),
            0,
            "owned frames after everything was unmapped"
        );
    }
}
