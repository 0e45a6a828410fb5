//! The entry format of AMD's nested page tables (AMD64 APM vol. 2, revision 3.42, sections 15.25 "Nested Paging" and 5.3
//! "Long-Mode Page Translation").
//!
//! The nested table has the host's long-mode format, with two twists (15.25.5): every guest access counts as a user access,
//! so the user bit is set in every present entry, and the global bit is ignored.
//!
//! | bits | present | absent, or leaf without rights |
//! | --- | --- | --- |
//! | 0 | 1 | 0 |
//! | 1, 2 | writable, user (always 1) | absent: bits 1-2 are the marker |
//! | 3, 4, 7/12 | leaf: PWT, PCD, PAT, against the host's PAT (15.25.8) | leaf: kept |
//! | 5, 6 | accessed; leaf: dirty | leaf: kept |
//! | 7 | leaf above page level | leaf: kept |
//! | 8 | 0 (global means nothing here) | 0 |
//! | 9, 10 | software: borrowed, userfault write-protect | leaf: kept |
//! | 11 | 0 | software: a leaf without rights |
//! | 12-51 | frame | leaf: frame |
//! | 63 | no execute | 0 |

use kernel::mm::addr::{GuestPhysAddr, Pfn, PhysAddr};
use kernel::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, Prot, PtFormat};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const PAT_SMALL: u64 = 1 << 7;
const BORROWED: u64 = 1 << 9;
const UFFD_WP: u64 = 1 << 10;
const NO_RIGHTS: u64 = 1 << 11;
const PAT_LARGE: u64 = 1 << 12;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const MARKER_SHIFT: u32 = 1;

/// The format.
#[derive(Debug)]
pub struct Npt;

impl PtFormat for Npt {
    type Addr = GuestPhysAddr;

    fn max_leaf() -> Level {
        super::caps::max_leaf()
    }

    fn can_encode(entry: &Entry, level: Level) -> bool {
        match entry {
            Entry::Absent(_) => true,
            Entry::Table(_) => level > Level::PAGE,
            Entry::Leaf(leaf) => {
                level <= Level::UPPER
                    && leaf.frame.as_u64() & (level.frames() - 1) == 0
                    && !leaf.attr.flags.contains(AttrFlags::GLOBAL)
                    && !leaf.prot.contains(Prot::USER)
                    && (leaf.prot.is_empty() || leaf.prot.contains(Prot::READ))
            }
        }
    }

    #[inline]
    fn encode(entry: &Entry, level: Level) -> u64 {
        match entry {
            Entry::Absent(marker) => encode_marker(*marker),
            // The leaf entry alone decides about rights.
            Entry::Table(pfn) => pfn.start().as_u64() | PRESENT | WRITABLE | USER,
            Entry::Leaf(leaf) => encode_leaf(leaf, level),
        }
    }

    #[inline]
    fn decode(raw: u64, level: Level) -> Entry {
        if raw & (PRESENT | NO_RIGHTS) == 0 {
            return Entry::Absent(decode_marker(raw));
        }
        if level > Level::PAGE && raw & LARGE == 0 {
            return Entry::Table(Pfn::containing(PhysAddr::new(raw & FRAME)));
        }
        Entry::Leaf(decode_leaf(raw, level))
    }
}

fn encode_marker(marker: Marker) -> u64 {
    let number = match marker {
        Marker::None => 0,
        Marker::UffdWp => 1,
        Marker::Poison => 2,
        Marker::Guard => 3,
    };
    number << MARKER_SHIFT
}

fn decode_marker(raw: u64) -> Marker {
    match raw >> MARKER_SHIFT & 3 {
        0 => Marker::None,
        1 => Marker::UffdWp,
        2 => Marker::Poison,
        _ => Marker::Guard,
    }
}

/// Pairs of a flag and its bit, for both directions.
const FLAG_BITS: [(AttrFlags, u64); 4] = [
    (AttrFlags::ACCESSED, ACCESSED),
    (AttrFlags::DIRTY, DIRTY),
    (AttrFlags::BORROWED, BORROWED),
    (AttrFlags::UFFD_WP, UFFD_WP),
];

#[inline]
fn encode_leaf(leaf: &Leaf, level: Level) -> u64 {
    let mut raw = leaf.frame.start().as_u64() | encode_cache(leaf.attr.cache, level);
    for (flag, bit) in FLAG_BITS {
        if leaf.attr.flags.contains(flag) {
            raw |= bit;
        }
    }
    if level > Level::PAGE {
        raw |= LARGE;
    }
    if leaf.prot.is_empty() {
        return raw | NO_RIGHTS;
    }
    raw |= PRESENT | USER;
    if leaf.prot.contains(Prot::WRITE) {
        raw |= WRITABLE;
    }
    if !leaf.prot.contains(Prot::EXEC) {
        raw |= NO_EXECUTE;
    }
    raw
}

fn decode_leaf(raw: u64, level: Level) -> Leaf {
    let mut flags = AttrFlags::empty();
    for (flag, bit) in FLAG_BITS {
        flags.set(flag, raw & bit != 0);
    }
    let mut prot = Prot::empty();
    if raw & PRESENT != 0 {
        prot |= Prot::READ;
        prot.set(Prot::WRITE, raw & WRITABLE != 0);
        prot.set(Prot::EXEC, raw & NO_EXECUTE == 0);
    }
    // Bits below the leaf's own size (PAT among them) are not part of the frame.
    let frame = Pfn::containing(PhysAddr::new(raw & FRAME & !(level.size() - 1)));
    Leaf {
        frame,
        prot,
        attr: Attr {
            flags,
            cache: decode_cache(raw, level),
        },
    }
}

const fn pat_bit(level: Level) -> u64 {
    if level.number() == 1 { PAT_SMALL } else { PAT_LARGE }
}

/// The host's page attribute table has write-combining in entry 4, and the reset values in entries 0, 1 and 3.
fn encode_cache(cache: CacheType, level: Level) -> u64 {
    match cache {
        CacheType::WriteBack => 0,
        CacheType::WriteThrough => PWT,
        CacheType::WriteCombining => pat_bit(level),
        CacheType::Uncached => PCD | PWT,
    }
}

fn decode_cache(raw: u64, level: Level) -> CacheType {
    if raw & pat_bit(level) != 0 {
        return CacheType::WriteCombining;
    }
    match raw & (PCD | PWT) {
        0 => CacheType::WriteBack,
        PWT => CacheType::WriteThrough,
        _ => CacheType::Uncached,
    }
}
