//! Map, unmap, protect, split, collapse, mark, move and copy-on-write, checked for any format against a model that is a plain map
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

use alloc::vec::Vec;

use super::{AttrFlags, Entry, Level, Prot, PtFormat};
use crate::mm::addr::Pfn;
use crate::mm::range::AddrRange;

mod compare;
mod model;
mod ops;
mod play;

pub use ops::{Op, entries, ops};
pub use play::run;

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

/// `decode(encode(entry)) == entry` if the format can say the entry, and what fresh nodes are full of means nothing.
pub fn round_trip<F: PtFormat>(entry: &Entry, level: Level) {
    assert_eq!(F::decode(F::EMPTY, level), Entry::EMPTY, "a fresh node is empty");
    assert_eq!(F::encode(&Entry::EMPTY, level), F::EMPTY);
    if F::can_encode(entry, level) {
        let raw = F::encode(entry, level);
        assert_eq!(F::decode(raw, level), *entry, "from {raw:#x} at {level:?}");
        write_protection_by_bits::<F>(entry, raw, level);
        rights_by_bits::<F>(entry, raw, level);
    }
}

/// What a format says about rights and flags without decoding is what follows from the decoded entry.
fn rights_by_bits<F: PtFormat>(entry: &Entry, raw: u64, level: Level) {
    for prot in (1..=Prot::all().bits()).map(Prot::from_bits_truncate) {
        for flags in [
            AttrFlags::empty(),
            AttrFlags::ACCESSED,
            AttrFlags::DIRTY,
            AttrFlags::all(),
        ] {
            let frame = match entry {
                Entry::Leaf(leaf) if leaf.prot.contains(prot) && leaf.attr.flags.contains(flags) => {
                    Some(leaf.frame)
                }
                _ => None,
            };
            assert_eq!(
                F::frame_with(raw, level, prot, flags),
                frame,
                "{prot:?}, {flags:?}"
            );
        }
    }
}

/// What a format says about write protection without decoding is what follows from the decoded entry.
fn write_protection_by_bits<F: PtFormat>(entry: &Entry, raw: u64, level: Level) {
    let &Entry::Leaf(leaf) = entry else {
        assert_eq!(F::to_protect(raw, level), None);
        assert_eq!(F::protected_frame(raw, level), None);
        return;
    };
    let protected = raw ^ F::to_protect(raw, level).expect("it is a leaf");
    assert_eq!(F::decode(protected, level), Entry::Leaf(leaf.protected()));
    assert_eq!(
        F::to_protect(protected, level),
        Some(0),
        "it is protected already"
    );
    for (raw, leaf) in [(raw, leaf), (protected, leaf.protected())] {
        let readable_only = leaf.prot & (Prot::READ | Prot::WRITE) == Prot::READ;
        let special = AttrFlags::BORROWED | AttrFlags::FORKED;
        let plain = leaf.is_protected() && readable_only && !leaf.attr.flags.intersects(special);
        assert_eq!(F::protected_frame(raw, level), plain.then_some(leaf.frame));
        for write in [false, true] {
            if leaf.is_protected() {
                let ended = F::decode(raw ^ F::to_unprotect(raw, level, write), level);
                assert_eq!(ended, Entry::Leaf(leaf.unprotected(write)));
            }
        }
    }
}
