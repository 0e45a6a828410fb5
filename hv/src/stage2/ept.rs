//! The entry format of Intel's extended page tables (Intel SDM vol. 3C, sections 29.3.2 "EPT Translation Mechanism" and
//! 29.3.3 "EPT-Induced VM Exits", tables 29-1 to 29-6).
//!
//! | bits | table | leaf | absent, or leaf without rights |
//! | --- | --- | --- | --- |
//! | 0, 1, 2 | read, write, execute: all set | the rights | 0 |
//! | 3-5 | 0 (reserved) | memory type | leaf: memory type; absent: bits 3-4 are the marker |
//! | 6 | 0 (reserved) | ignore PAT: 0 | 0 |
//! | 7 | 0 | 1 above page level | leaf: as if it had rights |
//! | 8, 9 | accessed | accessed, dirty | leaf: kept |
//! | 12-51 | node | frame | leaf: frame |
//! | 52 | | software: borrowed | leaf: kept |
//! | 53 | | software: userfault write-protect | leaf: kept |
//! | 54 | | 0 | software: a leaf without rights |
//! | 57-61 | 0: features that are left off | 0 | 0 |
//! | 63 | 0 (ignored) | suppress #VE: 1 | suppress #VE: 0 for the marker [`DELEGATED`](super::DELEGATED), else 1 |
//!
//! The CPU ignores bits 52-56 of every entry (57-58 and 60-61 too, as long as their features are off), and everything but
//! bit 63 of an entry whose bits 0-2 are clear. With EPT-violation #VE turned on, violations are convertible where bit 63 of
//! the last entry of the walk is 0 (26.5.7.1): so only absent pages that are marked for it are, and an entry that holds
//! nothing is not all zero.
//!
//! A misconfigured entry stops the guest instead of raising a violation (29.3.3.1): writable but not readable, executable
//! but not readable without the capability, a reserved memory type, a reserved bit. `can_encode` refuses the first
//! two, and the others cannot be expressed.

use kernel::mm::addr::{GuestPhysAddr, Pfn, PhysAddr};
use kernel::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, Prot, PtFormat};

const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const RIGHTS: u64 = READ | WRITE | EXECUTE;
const TYPE_SHIFT: u32 = 3;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const BORROWED: u64 = 1 << 52;
const UFFD_WP: u64 = 1 << 53;
const NO_RIGHTS: u64 = 1 << 54;
const SUPPRESS_VE: u64 = 1 << 63;
const MARKER_SHIFT: u32 = 3;

/// The format.
#[derive(Debug)]
pub struct Ept;

impl PtFormat for Ept {
    type Addr = GuestPhysAddr;

    const EMPTY: u64 = SUPPRESS_VE;

    fn max_leaf() -> Level {
        super::caps::max_leaf()
    }

    fn can_encode_leaf(leaf: &Leaf) -> bool {
        !leaf.attr.flags.intersects(super::MEANINGLESS) && rights_are_possible(leaf.prot)
    }

    #[inline]
    fn encode(entry: &Entry, level: Level) -> u64 {
        match entry {
            Entry::Absent(super::DELEGATED) => super::DELEGATED.number() << MARKER_SHIFT,
            Entry::Absent(marker) => SUPPRESS_VE | marker.number() << MARKER_SHIFT,
            // The leaf entry alone decides about rights.
            Entry::Table(pfn) => pfn.start().as_u64() | RIGHTS,
            Entry::Leaf(leaf) => encode_leaf(leaf, level),
        }
    }

    #[inline]
    fn decode(raw: u64, level: Level) -> Entry {
        if raw & (RIGHTS | NO_RIGHTS) == 0 {
            return Entry::Absent(Marker::from_number(raw >> MARKER_SHIFT));
        }
        if level > Level::PAGE && raw & LARGE == 0 {
            return Entry::Table(Pfn::containing(PhysAddr::new(raw & FRAME)));
        }
        Entry::Leaf(decode_leaf(raw, level))
    }
}

fn rights_are_possible(prot: Prot) -> bool {
    if prot.contains(Prot::USER) {
        return false;
    }
    prot.is_empty() || prot.contains(Prot::READ) || (prot == Prot::EXEC && super::caps::caps().execute_only)
}

/// Pairs of a flag and its bit, for both directions.
const FLAG_BITS: [(AttrFlags, u64); 4] = [
    (AttrFlags::ACCESSED, ACCESSED),
    (AttrFlags::DIRTY, DIRTY),
    (AttrFlags::BORROWED, BORROWED),
    (AttrFlags::UFFD_WP, UFFD_WP),
];

/// Pairs of a right and its bit. There is no bit for user mode: without mode-based execute control the CPU does not tell
/// the guest's modes apart.
const RIGHT_BITS: [(Prot, u64); 3] = [(Prot::READ, READ), (Prot::WRITE, WRITE), (Prot::EXEC, EXECUTE)];

#[inline]
fn encode_leaf(leaf: &Leaf, level: Level) -> u64 {
    let mut raw = SUPPRESS_VE | leaf.frame.start().as_u64() | memory_type(leaf.attr.cache) << TYPE_SHIFT;
    for (flag, bit) in FLAG_BITS {
        if leaf.attr.flags.contains(flag) {
            raw |= bit;
        }
    }
    for (right, bit) in RIGHT_BITS {
        if leaf.prot.contains(right) {
            raw |= bit;
        }
    }
    if level > Level::PAGE {
        raw |= LARGE;
    }
    if leaf.prot.is_empty() {
        raw |= NO_RIGHTS;
    }
    raw
}

fn decode_leaf(raw: u64, level: Level) -> Leaf {
    let mut flags = AttrFlags::empty();
    for (flag, bit) in FLAG_BITS {
        flags.set(flag, raw & bit != 0);
    }
    let mut prot = Prot::empty();
    for (right, bit) in RIGHT_BITS {
        prot.set(right, raw & bit != 0);
    }
    let frame = Pfn::containing(PhysAddr::new(raw & FRAME & !(level.size() - 1)));
    Leaf {
        frame,
        prot,
        attr: Attr {
            flags,
            cache: cache_type(raw >> TYPE_SHIFT & 7),
        },
    }
}

/// Encodings of memory types (SDM vol. 3A, table 13-2).
const fn memory_type(cache: CacheType) -> u64 {
    match cache {
        CacheType::Uncached => 0,
        CacheType::WriteCombining => 1,
        CacheType::WriteThrough => 4,
        CacheType::WriteBack => 6,
    }
}

const fn cache_type(raw: u64) -> CacheType {
    match raw {
        1 => CacheType::WriteCombining,
        4 => CacheType::WriteThrough,
        6 => CacheType::WriteBack,
        _ => CacheType::Uncached,
    }
}
