//! The entry format of stage 1: x86-64 with four levels (Intel SDM vol. 3A, section 5.5, revision of June 2025; AMD
//! APM vol. 2, section 5.3).
//!
//! | bits | present entry | absent entry |
//! | --- | --- | --- |
//! | 0 | 1 | 0 |
//! | 1 | writable | 0 |
//! | 2 | user | software: a leaf without rights |
//! | 3, 4, 7/12 | PWT, PCD, PAT: memory type | with bit 2 clear: bits 3-4 are the marker |
//! | 5, 6 | accessed, dirty | kept when bit 2 is set, like everything below |
//! | 7 | leaf, above page level | |
//! | 8 | global | |
//! | 9 | software: the frame is borrowed | the same |
//! | 10 | software: userfault write-protect | the same |
//! | 11 | software: forked | the same |
//! | 12-51 | frame | the same |
//! | 63 | no execute | 0 |

use crate::mm::addr::{Pfn, PhysAddr, VirtAddr};
use crate::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, Prot, PtFormat};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const PAT_SMALL: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const BORROWED: u64 = 1 << 9;
const UFFD_WP: u64 = 1 << 10;
const FORKED: u64 = 1 << 11;
/// Where present entries have the user bit.
const NO_RIGHTS: u64 = 1 << 2;
const PAT_LARGE: u64 = 1 << 12;
const NO_EXEC: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const MARKER_SHIFT: u32 = 3;

/// The format.
#[derive(Debug)]
pub struct Stage1;

impl PtFormat for Stage1 {
    type Addr = VirtAddr;

    fn max_leaf() -> Level {
        super::max_leaf()
    }

    fn can_encode_leaf(leaf: &Leaf) -> bool {
        // Whatever is allowed implies loading, and a leaf without rights has none for user mode either.
        leaf.prot.is_empty() || leaf.prot.contains(Prot::READ)
    }

    #[inline(always)]
    fn encode(entry: &Entry, level: Level) -> u64 {
        match entry {
            Entry::Absent(marker) => marker.number() << MARKER_SHIFT,
            // The leaf entry alone decides about rights.
            Entry::Table(pfn) => pfn.start().as_u64() | PRESENT | WRITABLE | USER,
            Entry::Leaf(leaf) => encode_leaf(leaf, level),
        }
    }

    #[inline]
    fn decode_table(raw: u64, level: Level) -> Option<Pfn> {
        let table = level > Level::PAGE && raw & (PRESENT | LARGE) == PRESENT;
        table.then(|| Pfn::containing(PhysAddr::new(raw & FRAME)))
    }

    #[inline]
    fn decode(raw: u64, level: Level) -> Entry {
        if raw == 0 {
            return Entry::EMPTY;
        }
        if raw & (PRESENT | NO_RIGHTS) == 0 {
            return Entry::Absent(Marker::from_number(raw >> MARKER_SHIFT));
        }
        if let Some(pfn) = Self::decode_table(raw, level) {
            return Entry::Table(pfn);
        }
        Entry::Leaf(decode_leaf(raw, level))
    }

    #[inline]
    fn frame_with(raw: u64, level: Level, prot: Prot, flags: AttrFlags) -> Option<Pfn> {
        let mut mask = PRESENT | u64::from(prot.bits()) & RIGHTS | u64::from(flags.bits());
        let mut bits = mask;
        if prot.contains(Prot::EXEC) {
            mask |= NO_EXEC;
        }
        if level > Level::PAGE {
            (mask, bits) = (mask | LARGE, bits | LARGE);
        }
        (raw & mask == bits).then(|| leaf_frame(raw, level))
    }

    #[inline]
    fn to_protect(raw: u64, level: Level) -> Option<u64> {
        if raw & PRESENT == 0 {
            let is_leaf = raw & NO_RIGHTS != 0;
            return is_leaf.then_some(!raw & UFFD_WP);
        }
        let is_leaf = level == Level::PAGE || raw & LARGE != 0;
        is_leaf.then_some(raw & WRITABLE | !raw & UFFD_WP)
    }

    #[inline]
    fn to_unprotect(raw: u64, _: Level, write: bool) -> u64 {
        // Whatever is present may be loaded from.
        let gains = write && raw & (PRESENT | WRITABLE) == PRESENT;
        if gains { UFFD_WP | WRITABLE } else { UFFD_WP }
    }

    #[inline]
    fn protected_frame(raw: u64, level: Level) -> Option<Pfn> {
        const MASK: u64 = PRESENT | WRITABLE | BORROWED | UFFD_WP | FORKED;
        // In tables the bit for the protection is clear.
        (raw & MASK == PRESENT | UFFD_WP).then(|| leaf_frame(raw, level))
    }
}

// Flags and rights stand where the entry has them.
const _: () = assert!(
    AttrFlags::ACCESSED.bits() as u64 == ACCESSED
        && AttrFlags::DIRTY.bits() as u64 == DIRTY
        && AttrFlags::GLOBAL.bits() as u64 == GLOBAL
        && AttrFlags::UFFD_WP.bits() as u64 == UFFD_WP
        && AttrFlags::BORROWED.bits() as u64 == BORROWED
        && AttrFlags::FORKED.bits() as u64 == FORKED
);
const _: () = assert!(
    Prot::READ.bits() as u64 == PRESENT
        && Prot::WRITE.bits() as u64 == WRITABLE
        && Prot::USER.bits() as u64 == USER
);
const RIGHTS: u64 = PRESENT | WRITABLE | USER;

#[inline(always)]
fn encode_leaf(leaf: &Leaf, level: Level) -> u64 {
    let mut raw = leaf.frame.start().as_u64() | u64::from(leaf.attr.flags.bits());
    if level > Level::PAGE {
        raw |= LARGE;
    }
    if leaf.attr.cache != CacheType::WriteBack {
        raw |= encode_cache(leaf.attr.cache, level);
    }
    if leaf.prot.is_empty() {
        return raw | NO_RIGHTS;
    }
    raw |= u64::from(leaf.prot.bits()) & RIGHTS;
    if !leaf.prot.contains(Prot::EXEC) {
        raw |= NO_EXEC;
    }
    raw
}

#[inline]
fn decode_leaf(raw: u64, level: Level) -> Leaf {
    let flags = AttrFlags::from_bits_truncate(raw as u16);
    let mut prot = Prot::empty();
    if raw & PRESENT != 0 {
        prot = Prot::from_bits_truncate((raw & RIGHTS) as u8);
        prot.set(Prot::EXEC, raw & NO_EXEC == 0);
    }
    Leaf {
        frame: leaf_frame(raw, level),
        prot,
        attr: Attr {
            flags,
            cache: decode_cache(raw, level),
        },
    }
}

/// Bits below the leaf's own size (PAT among them) are not part of the frame.
#[inline]
fn leaf_frame(raw: u64, level: Level) -> Pfn {
    Pfn::containing(PhysAddr::new(raw & FRAME & !(level.size() - 1)))
}

const fn pat_bit(level: Level) -> u64 {
    if level.number() == 1 { PAT_SMALL } else { PAT_LARGE }
}

/// The page attribute table is programmed so that entry 4 is write-combining; 0, 1 and 3 are the reset values
/// (SDM vol. 3A, table 13-12).
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
