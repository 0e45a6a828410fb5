//! Playing a sequence on the table and on the model.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::model::{Check, Page};
use super::{CheckedFormat, DEVICE, GIB, Op, PAGES, SPAN};
use crate::arch::host::{Config, SoftMachine};
use crate::mm::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::mm::frame::{Anon, Folio, Frame, ORDER_2M};
use crate::mm::pt::{
    Attr, AttrFlags, Entry, Flush, InstallError, Invalidator, Leaf, Level, Lifted, Marker, PageTable,
    Progress, Prot, SplitError, Writable,
};
use crate::mm::range::AddrRange;

/// The ranges that were invalidated, collected.
pub(super) struct Flushed<F: CheckedFormat>(pub(super) RefCell<Vec<AddrRange<F::Addr>>>);

impl<F: CheckedFormat> Invalidator<F::Addr> for Flushed<F> {
    fn invalidate(&self, range: AddrRange<F::Addr>, _pages: u64) {
        self.0.borrow_mut().push(range);
        F::invalidate(range);
    }
}

/// Plays `ops` on a table of format `F` and on the model, in a machine of its own.
///
/// `base` is the address of the window, 2 MiB below a 1 GiB boundary.
pub fn run<F: CheckedFormat>(base: u64, ops: &[Op]) {
    assert_eq!(
        (base + (1 << 21)) % (1 << 30),
        0,
        "the window straddles a GiB boundary"
    );
    let machine = SoftMachine::start(Config { memory: 32 << 20 });
    let table = PageTable::<F>::new().expect("RAM is plenty");
    let flushed = Flushed(RefCell::default());
    F::load(table.root());
    let mut check = Check::<F> {
        table,
        base,
        model: BTreeMap::new(),
        beyond: None,
        held: Vec::new(),
        flushed,
    };
    for op in ops {
        let before = (check.model.clone(), check.beyond);
        check.step(*op);
        check.compare(&before.0);
        check.flushed.0.borrow_mut().clear();
        assert_eq!(machine.take_missed_flushes(), [], "after {op:x?}");
    }
    check.finish();
}

fn fresh(order: u8) -> Option<Folio> {
    Some(Frame::<Anon>::alloc_order(order).ok()?.into())
}

impl<F: CheckedFormat> Check<F> {
    pub(super) fn addr(&self, page: u64) -> F::Addr {
        F::Addr::from_u64(self.base + page * PAGE_SIZE)
    }

    pub(super) fn range(&self, start: u64, end: u64) -> AddrRange<F::Addr> {
        AddrRange::new(self.addr(start), self.addr(end))
    }

    fn can_be_said(&self, leaf: &Leaf) -> bool {
        F::can_encode(&Entry::Leaf(*leaf), Level::PAGE)
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Map(page, prot, attr) => {
                let Some(folio) = fresh(0) else { return };
                self.install(page, Level::PAGE, folio, prot, attr);
            }
            Op::MapSpan(span, prot, attr, clear) => {
                if clear {
                    self.unmap(span * SPAN, (span + 1) * SPAN, true);
                }
                let Some(folio) = fresh(ORDER_2M) else { return };
                let cleared = clear && self.is_empty(span * SPAN, SPAN);
                let installed = self.install(span * SPAN, Level::MID, folio, prot, attr);
                assert!(installed || !cleared, "the span was cleared, nodes and all");
            }
            Op::MapDevice(page, level, prot, attr) => self.map_device(page, level, prot, attr),
            Op::MapHeld(page, prot) => {
                if let Some(folio) = self.held.last().filter(|folio| folio.order() == 0).cloned() {
                    self.install(page, Level::PAGE, folio, prot, Attr::default());
                }
            }
            Op::Mark(page, marker) => self.mark(page, marker),
            Op::Unmap(start, end, nodes) => self.unmap(start, end, nodes),
            Op::Protect(start, end, prot) => self.protect(start, end, prot),
            Op::WriteProtect(start, end, absent) => self.write_protect(start, end, absent),
            Op::WriteUnprotect(start, end, writable) => self.write_unprotect(start, end, writable),
            Op::Split(page) => self.split(page),
            Op::Collapse(page, level) => self.collapse(page, level),
            Op::Move(from, to, pages) => self.move_pages(from, to, pages.min(PAGES - from.max(to))),
            Op::Transplant(from, to, pages) => {
                let apart = from.abs_diff(to);
                self.transplant(from, to, pages.min(PAGES - from.max(to)).min(apart));
            }
            Op::Replace(page, prot) => self.replace(page, prot),
            Op::Note(page, flags) => self.note(page, flags),
            Op::Hold(page) => {
                let owned = self
                    .mapped(page)
                    .is_some_and(|(leaf, _)| !leaf.attr.is_borrowed());
                let range = self.range(page, page + 1);
                let folio = self.table.cursor(range).share();
                assert_eq!(
                    folio.is_some(),
                    owned,
                    "page {page} {}",
                    if owned { "owns" } else { "does not own" }
                );
                self.held.extend(folio);
            }
            Op::Release => self.held.clear(),
        }
    }

    /// Installs and says whether it worked; what is in the way must be known to the model, an empty node apart.
    fn install(&mut self, page: u64, level: Level, folio: Folio, prot: Prot, attr: Attr) -> bool {
        let (start, len) = Self::around(page, level);
        let leaf = Leaf {
            frame: folio.pfn(),
            prot,
            attr,
        };
        if !self.can_be_said(&leaf) {
            return false;
        }
        let free = match self.model.get(&start) {
            Some(Page::Marked(_)) if level == Level::PAGE => true,
            _ => self.is_empty(start, len),
        };
        let over = match self.model.get(&start) {
            Some(Page::Marked(marker)) => *marker,
            _ => Marker::None,
        };
        let range = self.range(start, start + len);
        match self.table.cursor(range).install(level, folio, prot, attr) {
            Ok(installed) => {
                assert!(free, "installed over something at page {start}");
                assert_eq!(installed.over, over);
                self.insert(start, len, leaf, level);
                true
            }
            Err(InstallError::Occupied(back)) => {
                assert_eq!(back.pfn(), leaf.frame, "the folio comes back");
                assert!(!free || level > Level::PAGE, "page {start} is free");
                false
            }
            Err(InstallError::OutOfFrames(_)) => false,
        }
    }

    fn map_device(&mut self, page: u64, level: Level, prot: Prot, attr: Attr) {
        let (start, len) = Self::around(page, level);
        let attr = Attr {
            flags: attr.flags | AttrFlags::BORROWED,
            ..attr
        };
        let leaf = Leaf {
            frame: DEVICE,
            prot,
            attr,
        };
        if !self.can_be_said(&leaf) || level > F::max_leaf() {
            return;
        }
        let marked = matches!(self.model.get(&start), Some(Page::Marked(_)));
        let free = self.is_empty(start, len) || (level == Level::PAGE && marked);
        let end = self.base + (start + len) * PAGE_SIZE;
        let range = AddrRange::new(self.addr(start), F::Addr::from_u64(end));
        let done = self
            .table
            .cursor(range)
            .install_borrowed(level, DEVICE, prot, attr)
            .expect("RAM is plenty");
        assert!(free || done.is_none(), "installed over something at page {start}");
        assert!(
            done.is_some() || !free || level > Level::PAGE,
            "page {start} is free"
        );
        if done.is_some() {
            self.insert(start, len, leaf, level);
        }
    }

    fn mark(&mut self, page: u64, marker: Marker) {
        let range = self.range(page, page + 1);
        let old = self
            .table
            .cursor(range)
            .mark(Level::PAGE, marker)
            .expect("RAM is plenty");
        let expected = match self.model.get(&page) {
            Some(Page::Mapped { .. }) => None,
            Some(Page::Marked(marker)) => Some(*marker),
            None => Some(Marker::None),
        };
        assert_eq!(old, expected, "what page {page} remembered");
        match (expected, marker) {
            (None, _) => {}
            (_, Marker::None) => drop(self.model.remove(&page)),
            _ => drop(self.model.insert(page, Page::Marked(marker))),
        }
    }

    pub(super) fn unmap(&mut self, start: u64, end: u64, nodes: bool) {
        let (reach, whole) = self.cut(start, end);
        let range = self.range(start, end);
        let mut at = range.start;
        // A new cursor for every batch, as code does that lets go of the table's lock in between.
        let result = loop {
            let mut flush = Flush::new();
            let mut cursor = self.table.cursor(range);
            cursor.resume_unmap(at);
            let progress = cursor.unmap(nodes, &mut flush);
            at = cursor.addr();
            flush.spend(&self.flushed);
            match progress {
                Ok(Progress::FlushFull) => {}
                Ok(Progress::Done) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let stop = (at.to_u64() - self.base) / PAGE_SIZE;
        self.expect_stop((reach, whole), stop, result);
        self.model.retain(|page, _| !(start..stop).contains(page));
    }

    fn protect(&mut self, start: u64, end: u64, prot: Prot) {
        let (reach, whole) = self.cut(start, end);
        let range = self.range(start, end);
        let mut flush = Flush::new();
        let mut cursor = self.table.cursor(range);
        let result = cursor.protect(|leaf| (prot, leaf.attr), &mut flush);
        let stop = (cursor.addr().to_u64() - self.base) / PAGE_SIZE;
        flush.spend(&self.flushed);
        self.expect_stop((reach, whole), stop, result);
        for (_, page) in self.model.range_mut(start..stop) {
            if let Page::Mapped { leaf, .. } = page {
                leaf.prot = prot;
            }
        }
    }

    fn write_protect(&mut self, start: u64, end: u64, absent: bool) {
        if self.part_of_a_leaf(start, end) {
            return;
        }
        let range = self.range(start, end);
        let mut flush = Flush::new();
        self.table
            .cursor(range)
            .write_protect(absent.then_some(Level::PAGE), &mut flush)
            .expect("RAM is plenty");
        flush.spend(&self.flushed);
        for page in start..end {
            match self.model.get_mut(&page) {
                Some(Page::Mapped { leaf, .. }) => *leaf = leaf.protected(),
                Some(Page::Marked(_)) => {}
                None if absent => drop(self.model.insert(page, Page::Marked(Marker::UffdWp))),
                None => {}
            }
        }
    }

    fn write_unprotect(&mut self, start: u64, end: u64, writable: Writable) {
        if self.part_of_a_leaf(start, end) {
            return;
        }
        let range = self.range(start, end);
        if end - start == 1 {
            self.table.write_unprotect_page(range.start, writable);
        } else {
            self.table.cursor(range).write_unprotect(writable);
        }
        for page in start..end {
            let (leaf, level) = match self.model.get(&page) {
                Some(Page::Marked(Marker::UffdWp)) => {
                    self.model.remove(&page);
                    continue;
                }
                Some(Page::Mapped { leaf, level }) if leaf.is_protected() => (*leaf, *level),
                _ => continue,
            };
            let head = Pfn::new(leaf.frame.as_u64() - (page - Self::around(page, level).0));
            let write = match writable {
                Writable::Nothing => false,
                Writable::Unshared => !leaf.attr.is_borrowed() && self.owners(head) == 1,
                Writable::Everything => !leaf.attr.is_borrowed(),
            };
            let leaf = leaf.unprotected(write);
            self.model.insert(page, Page::Mapped { leaf, level });
        }
    }

    /// Whether a leaf sticks out of the range.
    fn part_of_a_leaf(&self, start: u64, end: u64) -> bool {
        let sticks_out = |page: u64| {
            self.mapped(page).is_some_and(|(_, level)| {
                let (first, len) = Self::around(page, level);
                first < start || first + len > end
            })
        };
        sticks_out(start) || sticks_out(end - 1)
    }

    fn expect_stop(&self, (reach, whole): (u64, bool), stop: u64, result: Result<(), SplitError>) {
        let expected = if whole { Ok(()) } else { Err(SplitError::Shared) };
        assert_eq!(
            (stop, result),
            (reach, expected),
            "how far the range was processed"
        );
    }

    fn split(&mut self, page: u64) {
        let range = self.range(page, page + 1);
        let mut flush = Flush::new();
        let result = self.table.cursor(range).split(&mut flush);
        flush.spend(&self.flushed);
        let expected = match self.mapped(page) {
            Some((leaf, level)) if level > Level::PAGE => match self.split_model(page, &leaf, level) {
                true => Ok(()),
                false => Err(SplitError::Shared),
            },
            _ => Err(SplitError::NotALargeLeaf),
        };
        assert_eq!(result, expected, "split at page {page}");
    }

    fn collapse(&mut self, page: u64, level: Level) {
        let page = if level == Level::UPPER {
            page.max(GIB)
        } else {
            page
        };
        let whole = self.can_collapse(page, level);
        let range = self.range(page, page + 1);
        let mut flush = Flush::new();
        let result = self.table.cursor(range).collapse(level, &mut flush);
        flush.spend(&self.flushed);
        assert_eq!(
            result.is_ok(),
            whole.is_some(),
            "collapse of {level:?} at page {page}: {result:?}"
        );
        if let Some(leaf) = whole {
            let (start, len) = Self::around(page, level);
            self.insert(start, len, leaf, level);
        }
    }

    fn move_pages(&mut self, from: u64, to: u64, pages: u64) {
        let (start, target) = (self.addr(from), self.addr(to));
        let mut lifted = Lifted::new();
        let mut route = self.table.route(start, target, pages, &mut lifted);
        assert!((1..=pages).contains(&(route.pages() as u64)));
        for page in 0..route.pages() {
            let (old, new) = (from + page as u64, to + page as u64);
            let moves = match self.model.get(&old) {
                Some(Page::Mapped { leaf, level }) if *level == Level::PAGE => Some(*leaf),
                _ => None,
            };
            let free = !matches!(self.model.get(&new), Some(Page::Mapped { .. }));
            assert_eq!(matches!(route.target(page), Entry::Absent(_)), free, "page {new}");
            let (Some(leaf), true) = (moves, free) else {
                continue;
            };
            assert_eq!(route.source(page), Entry::Leaf(leaf), "page {old}");
            route.lift(page).expect("RAM is plenty");
            self.model.remove(&old);
            let level = Level::PAGE;
            self.model.insert(new, Page::Mapped { leaf, level });
        }
        route.land(&self.flushed, |leaf| (leaf.prot, leaf.attr));
    }

    fn transplant(&mut self, from: u64, to: u64, pages: u64) {
        self.unmap(to, to + pages, true);
        let large_leaves_fit = (from..from + pages).all(|page| match self.mapped(page) {
            Some((_, level)) => {
                let (first, len) = Self::around(page, level);
                from <= first && first + len <= from + pages && from.abs_diff(to).is_multiple_of(len)
            }
            None => true,
        });
        if !self.is_empty(to, pages) || !large_leaves_fit {
            return;
        }
        let target = self.addr(to);
        let prepared = self
            .table
            .prepare_transplant(self.range(from, from + pages), target);
        assert!(prepared.is_ok(), "RAM is plenty");
        let mut done = 0;
        while done < pages {
            let rest = self.range(from + done, from + pages);
            done += self.table.transplant(rest, self.addr(to + done), &self.flushed) / PAGE_SIZE;
        }
        assert_eq!(done, pages);
        for page in 0..pages {
            if let Some(entry) = self.model.remove(&(from + page)) {
                self.model.insert(to + page, entry);
            }
        }
    }

    fn replace(&mut self, page: u64, prot: Prot) {
        let Some((_, Level::PAGE)) = self.mapped(page) else {
            return;
        };
        let Some(folio) = fresh(0) else { return };
        let leaf = Leaf {
            frame: folio.pfn(),
            prot,
            attr: Attr::default(),
        };
        let range = self.range(page, page + 1);
        self.table
            .cursor(range)
            .replace(folio, prot, Attr::default(), &self.flushed);
        self.insert(page, 1, leaf, Level::PAGE);
    }

    fn note(&mut self, page: u64, flags: AttrFlags) {
        let range = self.range(page, page + 1);
        let mut flush = Flush::new();
        let found = self.mapped(page);
        if let Some((leaf, _)) = found {
            let attr = Attr {
                flags: leaf.attr.flags | flags,
                ..leaf.attr
            };
            assert!(self.table.cursor(range).rewrite(leaf.prot, attr, &mut flush));
            self.add_flags(page, flags);
        } else {
            assert!(
                !self
                    .table
                    .cursor(range)
                    .rewrite(Prot::READ, Attr::default(), &mut flush),
                "nothing to rewrite"
            );
        }
        flush.spend(&self.flushed);
    }
}
