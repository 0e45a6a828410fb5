//! Map, unmap, protect, split, collapse, mark and copy-on-write, checked for any format against a model that is a plain map
//! from pages to what is there.
//!
//! A format's tests supply what only they know: the rights it can express, and what *the CPU* makes of a table, read bit by
//! bit without the format's own decoder ([`CheckedFormat`]). [`ops`] generates sequences, [`run`] plays one on a table
//! and on the model, and after each step compares
//!
//! 1. what [`PageTable::lookup`] says, level and attributes included;
//! 2. what the CPU would do with the address;
//! 3. that every translation which was taken away or restricted lies in a range that was flushed;
//! 4. where a software CPU has the table loaded, that it misses no flush;
//! 5. at the end, that nothing is left in use.
//!
//! The window straddles a 1 GiB boundary: one 2 MiB span below it and three above, and the whole GiB above it may be one
//! leaf.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use proptest::prelude::*;

use super::{
    Attr, AttrFlags, CacheType, Entry, Flush, InstallError, Invalidator, Leaf, Level, Marker, PageTable,
    Progress, Prot, PtFormat, SplitError,
};
use crate::arch::host::{Config, SoftMachine};
use crate::mm::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::mm::frame::{Anon, Folio, Frame, Kind, ORDER_2M, allocator};
use crate::mm::range::AddrRange;

const SPAN: u64 = 512;
const SPANS: u64 = 4;
/// Pages in the window.
const PAGES: u64 = SPAN * SPANS;
/// The GiB boundary in the window, as a page of the window.
const GIB: u64 = SPAN;
/// Frames that no RAM stands behind, for leaves that own nothing; 1 GiB aligned.
const DEVICE: Pfn = Pfn::new(0x40_0000);

/// What the CPU makes of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The base frame it reaches.
    pub frame: Pfn,
    /// Rights. `USER` counts where the format has it.
    pub prot: Prot,
}

/// What a format's tests know.
pub trait CheckedFormat: PtFormat {
    /// Rights that the format can express, none included.
    fn prots() -> Vec<Prot>;

    /// The CPU's own walk; `None` for a fault. Panics on what the CPU would call a misconfiguration.
    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen>;

    /// Makes `root` the table of the CPU under test, where there is such a CPU.
    fn load(_root: Pfn) {}

    /// Has the CPU under test load from `addr`, so that it caches the translation and sets the accessed bit; says whether
    /// it could.
    fn touch(_addr: u64) -> bool {
        false
    }

    /// Has the CPU under test drop its translations of the range.
    fn invalidate(_range: AddrRange<Self::Addr>) {}
}

/// One step. Pages are counted from the start of the window.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Maps a fresh frame.
    Map(u64, Prot, Attr),
    /// Maps a fresh 2 MiB block in this span, after clearing the span if the flag says so.
    MapSpan(u64, Prot, Attr, bool),
    /// Maps device frames with a leaf of this level.
    MapDevice(u64, Level, Prot, Attr),
    /// Maps what [`Op::Hold`] held last, once more.
    MapHeld(u64, Prot),
    /// Leaves a marker.
    Mark(u64, Marker),
    /// Unmaps a range; frees nodes if the flag says so.
    Unmap(u64, u64, bool),
    /// Changes the rights in a range.
    Protect(u64, u64, Prot),
    /// Splits the leaf here.
    Split(u64),
    /// Collapses what is below the entry of this level here.
    Collapse(u64, Level),
    /// Copy-on-write.
    Replace(u64, Prot),
    /// Adds these flags to the leaf here, as the CPU or a userfault context would.
    Note(u64, AttrFlags),
    /// Holds a reference of its own to the folio here.
    Hold(u64),
    /// Lets all held references go.
    Release,
}

/// Sequences of steps for format `F`, of up to `most` phrases.
pub fn ops<F: CheckedFormat>(most: usize) -> impl Strategy<Value = Vec<Op>> {
    let step = op(F::prots());
    let phrase = prop_oneof![12 => step.prop_map(|op| vec![op]), 1 => apart_and_together(F::prots())];
    proptest::collection::vec(phrase, 1..most).prop_map(|phrases| phrases.concat())
}

/// A large leaf is split, one page of it perhaps changed, and collapsed: random steps alone hardly ever get there.
fn apart_and_together(prots: Vec<Prot>) -> impl Strategy<Value = Vec<Op>> {
    let prot = proptest::sample::select(prots);
    let flags = prop_oneof![
        Just(AttrFlags::ACCESSED),
        Just(AttrFlags::ACCESSED | AttrFlags::DIRTY),
        Just(AttrFlags::UFFD_WP),
    ];
    let twist = (0..7u8, flags, prot.clone());
    (0..=SPANS, 0..SPAN, prot, attr(), twist).prop_map(|(span, offset, prot, attr, (twist, flags, other))| {
        let (start, level, large) = if span < SPANS {
            (span * SPAN, Level::MID, Op::MapSpan(span, prot, attr, true))
        } else {
            (GIB, Level::UPPER, Op::MapDevice(GIB, Level::UPPER, prot, attr))
        };
        let page = start + offset;
        let change = match twist {
            0 => Op::Protect(page, page + 1, other),
            1 => Op::Unmap(page, page + 1, false),
            2 => Op::Replace(page, prot),
            3 => Op::Hold(page),
            4 | 5 => Op::Note(page, flags),
            _ => Op::Release,
        };
        vec![
            Op::Unmap(start, start + SPAN, true),
            large,
            Op::Split(start),
            change,
            Op::Collapse(start, level),
        ]
    })
}

fn attr() -> impl Strategy<Value = Attr> {
    let flags = prop_oneof![
        4 => Just(AttrFlags::empty()),
        1 => Just(AttrFlags::ACCESSED),
        1 => Just(AttrFlags::ACCESSED | AttrFlags::DIRTY),
        1 => Just(AttrFlags::UFFD_WP),
    ];
    let cache = prop_oneof![
        6 => Just(CacheType::WriteBack),
        1 => Just(CacheType::WriteThrough),
        1 => Just(CacheType::WriteCombining),
        1 => Just(CacheType::Uncached),
    ];
    (flags, cache).prop_map(|(flags, cache)| Attr { flags, cache })
}

fn op(prots: Vec<Prot>) -> impl Strategy<Value = Op> {
    let prot = proptest::sample::select(prots);
    // A few pages are hit again and again, so that steps meet each other's results.
    let page = prop_oneof![
        2 => 0..PAGES,
        3 => proptest::sample::select(vec![0, 1, GIB - 1, GIB, GIB + 1, 2 * SPAN - 1, 2 * SPAN, PAGES - 1]),
    ];
    let range = prop_oneof![
        3 => (0..PAGES, 0..PAGES).prop_map(|(a, b)| (a.min(b), a.max(b) + 1)),
        2 => (page.clone(), 1..8u64).prop_map(|(p, n)| (p, (p + n).min(PAGES))),
        1 => (0..SPANS).prop_map(|s| (s * SPAN, (s + 1) * SPAN)),
        1 => Just((0, PAGES)),
    ];
    let level = proptest::sample::select(vec![Level::PAGE, Level::MID, Level::UPPER]);
    let marker = proptest::sample::select(vec![Marker::None, Marker::UffdWp, Marker::Poison, Marker::Guard]);
    prop_oneof![
        6 => (page.clone(), prot.clone(), attr()).prop_map(|(p, r, a)| Op::Map(p, r, a)),
        4 => (0..SPANS, prot.clone(), attr(), any::<bool>()).prop_map(|(s, r, a, c)| Op::MapSpan(s, r, a, c)),
        3 => (page.clone(), level.clone(), prot.clone(), attr()).prop_map(|(p, l, r, a)| Op::MapDevice(p, l, r, a)),
        2 => (page.clone(), prot.clone()).prop_map(|(p, r)| Op::MapHeld(p, r)),
        3 => (page.clone(), marker).prop_map(|(p, m)| Op::Mark(p, m)),
        4 => (range.clone(), any::<bool>()).prop_map(|((a, b), n)| Op::Unmap(a, b, n)),
        4 => (range, prot.clone()).prop_map(|((a, b), r)| Op::Protect(a, b, r)),
        3 => page.clone().prop_map(Op::Split),
        4 => (page.clone(), level).prop_map(|(p, l)| Op::Collapse(p, l)),
        2 => (page.clone(), prot).prop_map(|(p, r)| Op::Replace(p, r)),
        1 => page.prop_map(Op::Hold),
        1 => Just(Op::Release),
    ]
}

/// Any entry at any level, whether or not a format can say it.
pub fn entries() -> impl Strategy<Value = (Entry, Level)> {
    let level = proptest::sample::select(vec![Level::PAGE, Level::MID, Level::UPPER, Level::ROOT]);
    let attr = (0..=u16::MAX, attr()).prop_map(|(flags, attr)| Attr {
        flags: AttrFlags::from_bits_truncate(flags),
        ..attr
    });
    // Physical addresses of 46 bits; half of them aligned for the largest leaf.
    let frame = prop_oneof![0..1u64 << 34, (0..1u64 << 16).prop_map(|gib| gib << 18)].prop_map(Pfn::new);
    let marker = proptest::sample::select(vec![Marker::None, Marker::UffdWp, Marker::Poison, Marker::Guard]);
    let leaf = (frame.clone(), 0..16u8, attr).prop_map(|(frame, prot, attr)| {
        Entry::Leaf(Leaf {
            frame,
            prot: Prot::from_bits_truncate(prot),
            attr,
        })
    });
    let entry =
        prop_oneof![1 => marker.prop_map(Entry::Absent), 2 => frame.prop_map(Entry::Table), 6 => leaf];
    (entry, level)
}

/// `decode(encode(entry)) == entry` if the format can say the entry, and zero means nothing.
pub fn round_trip<F: PtFormat>(entry: &Entry, level: Level) {
    assert_eq!(F::decode(0, level), Entry::EMPTY, "a zeroed node is empty");
    assert_eq!(F::encode(&Entry::EMPTY, level), 0);
    if F::can_encode(entry, level) {
        let raw = F::encode(entry, level);
        assert_eq!(F::decode(raw, level), *entry, "from {raw:#x} at {level:?}");
    }
}

/// What the model holds for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    Marked(Marker),
    Mapped { leaf: Leaf, level: Level },
}

/// The ranges that were invalidated, collected.
struct Flushed<F: CheckedFormat>(RefCell<Vec<AddrRange<F::Addr>>>);

impl<F: CheckedFormat> Invalidator<F::Addr> for Flushed<F> {
    fn invalidate(&self, range: AddrRange<F::Addr>, _pages: u64) {
        self.0.borrow_mut().push(range);
        F::invalidate(range);
    }
}

/// A table, the model beside it, and what the test holds.
struct Check<F: CheckedFormat> {
    table: PageTable<F>,
    base: u64,
    model: BTreeMap<u64, Page>,
    /// What is mapped from the window's end to the end of its GiB: the leaf at the window's end.
    beyond: Option<(Leaf, Level)>,
    held: Vec<Folio>,
    flushed: Flushed<F>,
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

/// The leaf for a page inside a larger leaf that starts at `first`.
fn part(leaf: &Leaf, frames: u64) -> Leaf {
    Leaf {
        frame: leaf.frame.offset(frames),
        ..*leaf
    }
}

impl<F: CheckedFormat> Check<F> {
    fn addr(&self, page: u64) -> F::Addr {
        F::Addr::from_u64(self.base + page * PAGE_SIZE)
    }

    fn range(&self, start: u64, end: u64) -> AddrRange<F::Addr> {
        AddrRange::new(self.addr(start), self.addr(end))
    }

    /// First page and number of pages of the entry of `level` around `page`; the GiB reaches past the window.
    fn around(page: u64, level: Level) -> (u64, u64) {
        match level {
            Level::PAGE => (page, 1),
            Level::MID => (page & !(SPAN - 1), SPAN),
            _ => (GIB, SPAN * SPAN),
        }
    }

    fn mapped(&self, page: u64) -> Option<(Leaf, Level)> {
        match self.model.get(&page) {
            Some(Page::Mapped { leaf, level }) => Some((*leaf, *level)),
            _ => None,
        }
    }

    fn is_empty(&self, start: u64, len: u64) -> bool {
        self.model.range(start..start + len).next().is_none() && (len <= SPAN || self.beyond.is_none())
    }

    fn insert(&mut self, start: u64, len: u64, leaf: Leaf, level: Level) {
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

    fn flags_of(&self, leaf: &Leaf) -> bool {
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
            Op::Split(page) => self.split(page),
            Op::Collapse(page, level) => self.collapse(page, level),
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
        if !self.flags_of(&leaf) {
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
        if !self.flags_of(&leaf) || level > F::max_leaf() {
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

    /// What a range operation does to the model before it reaches pages: large leaves that stick out become smaller ones,
    /// unless they are shared; then the operation stops there.
    fn cut(&mut self, start: u64, end: u64) -> (u64, bool) {
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
    fn split_model(&mut self, page: u64, leaf: &Leaf, level: Level) -> bool {
        let (first, len) = Self::around(page, level);
        let head = Pfn::new(leaf.frame.as_u64() - (page - first));
        if !leaf.attr.is_borrowed() && self.held.iter().any(|folio| folio.pfn() == head) {
            return false;
        }
        let whole = Leaf { frame: head, ..*leaf };
        self.insert(first, len, whole, level.below());
        true
    }

    fn unmap(&mut self, start: u64, end: u64, nodes: bool) {
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

    /// The leaf that the entry of `level` around `page` would become.
    fn can_collapse(&self, page: u64, level: Level) -> Option<Leaf> {
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
    fn owners(&self, frame: Pfn) -> usize {
        let mapped = self.model.values().filter(
            |page| matches!(page, Page::Mapped { leaf, .. } if leaf.frame == frame && !leaf.attr.is_borrowed()),
        );
        mapped.count() + self.held.iter().filter(|folio| folio.pfn() == frame).count()
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
        let mut flush = Flush::new();
        self.table
            .cursor(range)
            .replace(folio, prot, Attr::default(), &mut flush);
        flush.spend(&self.flushed);
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

    /// Adds flags to the leaf around `page` in the model.
    fn add_flags(&mut self, page: u64, flags: AttrFlags) {
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

    /// Compares the table with the model where the step changed something, and at the edges of all spans.
    fn compare(&mut self, before: &BTreeMap<u64, Page>) {
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

    fn compare_page(&mut self, page: u64) {
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
    fn expect_flushed(&self, page: u64, old: &Leaf) {
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
    fn finish(mut self) {
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
