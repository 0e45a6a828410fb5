//! What can be done to a table, and how sequences of it are made up.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{CheckedFormat, GIB, PAGES, SPAN, SPANS};
use crate::mm::addr::Pfn;
use crate::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, Prot, Writable};

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
    /// Write-protects a range on behalf of a userfault context; absent pages too if the flag says so.
    WriteProtect(u64, u64, bool),
    /// Ends the write protection of a range.
    WriteUnprotect(u64, u64, Writable),
    /// Splits the leaf here.
    Split(u64),
    /// Collapses what is below the entry of this level here.
    Collapse(u64, Level),
    /// Moves what can move of so many pages from the first to the second page, as far as one route goes.
    Move(u64, u64, u64),
    /// Moves so many pages from the first to the second page as they are, after clearing what is there.
    Transplant(u64, u64, u64),
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
    let phrase = prop_oneof![
        12 => step.prop_map(|op| vec![op]),
        1 => apart_and_together(F::prots()),
        1 => protected_for_a_while(F::prots()),
    ];
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

/// Pages are protected and unprotected, one of them perhaps shared, borrowed, or changed meanwhile.
fn protected_for_a_while(prots: Vec<Prot>) -> impl Strategy<Value = Vec<Op>> {
    let prot = proptest::sample::select(prots);
    let pages = (0..PAGES - 8, 1..8u64, any::<bool>(), any::<bool>());
    (pages, prot, attr(), 0..4u8, 0..4u8, writable()).prop_map(
        |((page, pages, absent, device), prot, attr, before, after, writable)| {
            let end = page + pages;
            let map = match device {
                true => Op::MapDevice(page, Level::PAGE, prot, attr),
                false => Op::Map(page, prot, attr),
            };
            let twist = |twist| match twist {
                0 => Op::Hold(page),
                1 => Op::Note(page, AttrFlags::DIRTY),
                2 => Op::Mark(page, Marker::None),
                _ => Op::Release,
            };
            vec![
                map,
                twist(before),
                Op::WriteProtect(page, end, absent),
                twist(after),
                Op::WriteUnprotect(page, end, writable),
            ]
        },
    )
}

fn writable() -> impl Strategy<Value = Writable> {
    proptest::sample::select(vec![Writable::Nothing, Writable::Unshared, Writable::Everything])
}

/// Half of the moves are by whole spans, so that nodes and large leaves move as they are.
fn transplant(page: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Op> {
    let pages = (page.clone(), page, 1..2 * SPAN);
    let spans = (0..SPANS, 0..SPANS, 1..=SPANS / 2);
    prop_oneof![
        pages.prop_map(|(p, q, n)| Op::Transplant(p, q, n)),
        spans.prop_map(|(p, q, n)| Op::Transplant(p * SPAN, q * SPAN, n * SPAN)),
    ]
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
        4 => (range.clone(), prot.clone()).prop_map(|((a, b), r)| Op::Protect(a, b, r)),
        3 => (range.clone(), any::<bool>()).prop_map(|((a, b), m)| Op::WriteProtect(a, b, m)),
        3 => (range, writable()).prop_map(|((a, b), w)| Op::WriteUnprotect(a, b, w)),
        3 => page.clone().prop_map(Op::Split),
        4 => (page.clone(), level).prop_map(|(p, l)| Op::Collapse(p, l)),
        6 => (page.clone(), page.clone(), 1..100u64).prop_map(|(p, q, n)| Op::Move(p, q, n)),
        4 => transplant(page.clone()),
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
