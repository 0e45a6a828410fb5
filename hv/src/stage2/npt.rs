//! The entry format of AMD's nested page tables (AMD64 APM vol. 2, revision 3.42, sections 15.25 "Nested Paging" and 5.3
//! "Long-Mode Page Translation").
//!
//! The nested table has the host's long-mode format, so this is [`Stage1`] with two twists (15.25.5): every guest access
//! counts as a user access, so the user bit is set in every present entry and says nothing, and the global bit is ignored.
//!
//! | bits | present | absent, or leaf without rights |
//! | --- | --- | --- |
//! | 0 | 1 | 0 |
//! | 1 | writable | 0 |
//! | 2 | user (always 1) | software: a leaf without rights |
//! | 3, 4, 7/12 | leaf: PWT, PCD, PAT, against the host's PAT (15.25.8) | leaf: kept; absent: bits 3-4 are the marker |
//! | 5, 6 | accessed; leaf: dirty | leaf: kept |
//! | 7 | leaf above page level | leaf: kept |
//! | 8 | 0 (global means nothing here) | 0 |
//! | 9, 10 | software: borrowed, userfault write-protect | leaf: kept |
//! | 11 | 0 (no leaf of stage 2 is forked) | 0 |
//! | 12-51 | frame | leaf: frame |
//! | 63 | no execute | 0 |

use kernel::arch::Stage1;
use kernel::mm::addr::{GuestPhysAddr, Pfn};
use kernel::mm::pt::{Entry, Leaf, Level, Prot, PtFormat};

/// The format.
#[derive(Debug)]
pub struct Npt;

impl PtFormat for Npt {
    type Addr = GuestPhysAddr;

    fn max_leaf() -> Level {
        super::caps::max_leaf()
    }

    fn can_encode_leaf(leaf: &Leaf) -> bool {
        !leaf.attr.flags.intersects(super::MEANINGLESS)
            && !leaf.prot.contains(Prot::USER)
            && Stage1::can_encode_leaf(leaf)
    }

    #[inline]
    fn encode(entry: &Entry, level: Level) -> u64 {
        match entry {
            Entry::Leaf(leaf) if !leaf.prot.is_empty() => {
                let prot = leaf.prot | Prot::USER;
                Stage1::encode(&Entry::Leaf(Leaf { prot, ..*leaf }), level)
            }
            _ => Stage1::encode(entry, level),
        }
    }

    #[inline]
    fn decode(raw: u64, level: Level) -> Entry {
        match Stage1::decode(raw, level) {
            Entry::Leaf(leaf) => Entry::Leaf(Leaf {
                prot: leaf.prot - Prot::USER,
                ..leaf
            }),
            entry => entry,
        }
    }

    #[inline]
    fn decode_table(raw: u64, level: Level) -> Option<Pfn> {
        Stage1::decode_table(raw, level)
    }
}
