//! Both formats under the kernel's generic check, each against a walk of its own that is written from the manual.

use alloc::vec::Vec;

use kernel::arch::host::SoftMachine;
use kernel::mm::addr::{Pfn, PhysAddr};
use kernel::mm::pt::check::{self, CheckedFormat, Seen};
use kernel::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Prot, PtFormat};
use proptest::prelude::*;

use super::{Caps, Ept, Npt, set_caps};

/// Bits 45:12, for a CPU with 46 physical address bits.
const FRAME: u64 = 0x3fff_ffff_f000;
const BASE: u64 = (7 << 30) - (2 << 20);

fn all_caps() {
    set_caps(Caps {
        leaves_1g: true,
        execute_only: true,
    });
}

/// What one entry says to the CPU.
enum Step {
    Absent,
    Table(PhysAddr, Prot),
    Leaf(PhysAddr, Prot),
}

/// Walks four levels with `read` and joins the rights of all entries.
fn walk(root: Pfn, addr: u64, read: fn(u64, u32) -> Step) -> Option<Seen> {
    let (mut table, mut rights) = (root.start(), Prot::all());
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let raw = SoftMachine::current()
            .peek(table + (addr >> shift & 511) * 8)
            .expect("tables lie in RAM");
        match read(raw, level) {
            Step::Absent => return None,
            Step::Table(next, prot) => (table, rights) = (next, rights & prot),
            Step::Leaf(base, prot) => {
                let frame = Pfn::containing(base + (addr & ((1 << shift) - 1)));
                return Some(Seen {
                    frame,
                    prot: rights & prot,
                });
            }
        }
    }
    unreachable!("level 1 has no tables below")
}

/// An EPT entry as the SDM's tables 29-1 to 29-6 have it, for a CPU with execute-only and without mode-based execute
/// control.
fn read_ept(raw: u64, level: u32) -> Step {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, raw & 1 != 0);
    prot.set(Prot::WRITE, raw & 2 != 0);
    prot.set(Prot::EXEC, raw & 4 != 0);
    if prot.is_empty() {
        return Step::Absent;
    }
    assert!(
        !prot.contains(Prot::WRITE) || prot.contains(Prot::READ),
        "misconfiguration: write-only {raw:#x}"
    );
    assert_eq!(
        raw & (0x000f_ffff_ffff_f000 & !FRAME),
        0,
        "misconfiguration: address too wide {raw:#x}"
    );
    let is_leaf = level == 1 || (level <= 3 && raw & 0x80 != 0);
    let base = PhysAddr::new(raw & FRAME);
    if is_leaf {
        assert!(
            matches!(raw >> 3 & 7, 0 | 1 | 4 | 5 | 6),
            "misconfiguration: reserved memory type {raw:#x}"
        );
        assert!(
            base.is_aligned(1 << (12 + 9 * (level - 1))),
            "misconfiguration: reserved bits {raw:#x}"
        );
        Step::Leaf(base, prot)
    } else {
        assert_eq!(
            raw & 0xf8 & if level == 4 { 0xf8 } else { 0x78 },
            0,
            "misconfiguration: reserved bits {raw:#x}"
        );
        Step::Table(base, prot)
    }
}

/// A nested entry as the APM's figures 5-20 to 5-27 have it, seen by a guest access, which is a user access (15.25.5).
fn read_npt(raw: u64, level: u32) -> Step {
    if raw & 1 == 0 {
        return Step::Absent;
    }
    assert_ne!(raw & 4, 0, "guest accesses fault without the user bit: {raw:#x}");
    assert_eq!(
        raw & (0x000f_ffff_ffff_f000 & !FRAME),
        0,
        "reserved: address too wide {raw:#x}"
    );
    let mut prot = Prot::READ;
    prot.set(Prot::WRITE, raw & 2 != 0);
    prot.set(Prot::EXEC, raw >> 63 == 0);
    if level == 1 {
        return Step::Leaf(PhysAddr::new(raw & FRAME), prot);
    }
    if raw & 0x80 == 0 {
        return Step::Table(PhysAddr::new(raw & FRAME), prot);
    }
    assert!(level <= 3, "reserved: bit 7 at the root {raw:#x}");
    // Bit 12 of a large leaf is PAT; the rest below the page size must be zero.
    let base = PhysAddr::new(raw & FRAME & !0x1000);
    assert!(
        base.is_aligned(1 << (12 + 9 * (level - 1))),
        "reserved bits {raw:#x}"
    );
    Step::Leaf(base, prot)
}

impl CheckedFormat for Ept {
    fn prots() -> Vec<Prot> {
        all_caps();
        let (r, w, x) = (Prot::READ, Prot::WRITE, Prot::EXEC);
        [Prot::empty(), r, x, r | w, r | x, r | w | x].into()
    }

    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen> {
        walk(root, addr, read_ept)
    }
}

impl CheckedFormat for Npt {
    fn prots() -> Vec<Prot> {
        all_caps();
        let (r, w, x) = (Prot::READ, Prot::WRITE, Prot::EXEC);
        [Prot::empty(), r, r | w, r | x, r | w | x].into()
    }

    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen> {
        walk(root, addr, read_npt)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn ept_entries_survive_encoding((entry, level) in check::entries()) {
        all_caps();
        check::round_trip::<Ept>(&entry, level);
    }

    #[test]
    fn npt_entries_survive_encoding((entry, level) in check::entries()) {
        all_caps();
        check::round_trip::<Npt>(&entry, level);
    }

    #[test]
    fn ept_does_what_a_map_of_pages_does(ops in check::ops::<Ept>(24)) {
        check::run::<Ept>(BASE, &ops);
    }

    #[test]
    fn npt_does_what_a_map_of_pages_does(ops in check::ops::<Npt>(24)) {
        check::run::<Npt>(BASE, &ops);
    }
}

fn leaf(prot: Prot, flags: AttrFlags) -> Entry {
    let attr = Attr {
        flags,
        cache: CacheType::WriteBack,
    };
    Entry::Leaf(Leaf {
        frame: Pfn::new(0x12345),
        prot,
        attr,
    })
}

#[test]
fn ept_refuses_what_would_be_a_misconfiguration() {
    all_caps();
    for prot in [Prot::WRITE, Prot::WRITE | Prot::EXEC] {
        assert!(
            !Ept::can_encode(&leaf(prot, AttrFlags::empty()), Level::PAGE),
            "{prot:?}"
        );
    }
    assert!(
        !Ept::can_encode(&leaf(Prot::READ, AttrFlags::empty()), Level::MID),
        "frame not aligned to the leaf"
    );
    assert!(
        !Ept::can_encode(&leaf(Prot::READ, AttrFlags::empty()), Level::ROOT),
        "no leaves at the root"
    );
    assert!(
        !Ept::can_encode(&Entry::Table(Pfn::new(1)), Level::PAGE),
        "no tables below pages"
    );
}

#[test]
fn npt_refuses_rights_without_reading() {
    for prot in [Prot::WRITE, Prot::EXEC, Prot::WRITE | Prot::EXEC] {
        assert!(
            !Npt::can_encode(&leaf(prot, AttrFlags::empty()), Level::PAGE),
            "{prot:?}"
        );
    }
}

#[test]
fn stage_2_has_no_user_right_and_no_global_or_forked_leaves() {
    for (prot, flags) in [
        (Prot::READ | Prot::USER, AttrFlags::empty()),
        (Prot::READ, AttrFlags::GLOBAL),
        (Prot::READ, AttrFlags::FORKED),
    ] {
        assert!(!Ept::can_encode(&leaf(prot, flags), Level::PAGE));
        assert!(!Npt::can_encode(&leaf(prot, flags), Level::PAGE));
    }
}

#[test]
fn entries_have_the_bits_of_the_manuals() {
    let rw = leaf(Prot::READ | Prot::WRITE, AttrFlags::empty());
    assert_eq!(Ept::encode(&rw, Level::PAGE), 0x1234_5000 | 6 << 3 | 0b011);
    assert_eq!(Npt::encode(&rw, Level::PAGE), 0x1234_5000 | 1 << 63 | 0b111);
    let rwx = Entry::Leaf(Leaf {
        frame: Pfn::new(0x200),
        prot: Prot::READ | Prot::WRITE | Prot::EXEC,
        attr: Attr {
            flags: AttrFlags::ACCESSED | AttrFlags::DIRTY,
            cache: CacheType::Uncached,
        },
    });
    assert_eq!(Ept::encode(&rwx, Level::MID), 0x20_0000 | 0x300 | 0x80 | 0b111);
    assert_eq!(
        Npt::encode(&rwx, Level::MID),
        0x20_0000 | 0x80 | 0x60 | 0x18 | 0b111
    );
    let table = Entry::Table(Pfn::new(0x77));
    assert_eq!(
        (Ept::encode(&table, Level::MID), Npt::encode(&table, Level::MID)),
        (0x7_7007, 0x7_7007)
    );
}

#[test]
fn leaf_without_rights_is_absent_to_the_cpu_and_keeps_its_frame() {
    let none = leaf(Prot::empty(), AttrFlags::DIRTY);
    assert_eq!(Ept::encode(&none, Level::PAGE) & 0b111, 0);
    assert_eq!(Npt::encode(&none, Level::PAGE) & 1, 0);
    check::round_trip::<Ept>(&none, Level::PAGE);
    check::round_trip::<Npt>(&none, Level::PAGE);
}
