//! Both formats under the kernel's generic check, each against a walk of its own that is written from the manual.

use alloc::vec::Vec;

use kernel::arch::host::{Config, SoftMachine};
use kernel::mm::addr::{GuestPhysAddr, Pfn, PhysAddr};
use kernel::mm::pt::check::{self, CheckedFormat, Seen};
use kernel::mm::pt::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, PageTable, Prot, PtFormat};
use proptest::prelude::*;

use super::{Caps, Ept, Npt, set_caps};
use crate::soft::{self, SoftFormat};

const BASE: u64 = (7 << 30) - (2 << 20);

fn all_caps() {
    set_caps(Caps {
        leaves_1g: true,
        execute_only: true,
    });
}

/// What a walk written from the manual finds.
fn seen<F: SoftFormat>(root: Pfn, addr: u64) -> Option<Seen> {
    let found = soft::walk::<F>(root, addr)?;
    Some(Seen {
        frame: Pfn::containing(found.page),
        prot: found.prot,
    })
}

impl CheckedFormat for Ept {
    fn prots() -> Vec<Prot> {
        all_caps();
        let (r, w, x) = (Prot::READ, Prot::WRITE, Prot::EXEC);
        [Prot::empty(), r, x, r | w, r | x, r | w | x].into()
    }

    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen> {
        seen::<Self>(root, addr)
    }
}

impl CheckedFormat for Npt {
    fn prots() -> Vec<Prot> {
        all_caps();
        let (r, w, x) = (Prot::READ, Prot::WRITE, Prot::EXEC);
        [Prot::empty(), r, r | w, r | x, r | w | x].into()
    }

    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen> {
        seen::<Self>(root, addr)
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
    assert_eq!(
        Ept::encode(&rw, Level::PAGE),
        0x1234_5000 | 1 << 63 | 6 << 3 | 0b011
    );
    assert_eq!(Npt::encode(&rw, Level::PAGE), 0x1234_5000 | 1 << 63 | 0b111);
    let rwx = Entry::Leaf(Leaf {
        frame: Pfn::new(0x200),
        prot: Prot::READ | Prot::WRITE | Prot::EXEC,
        attr: Attr {
            flags: AttrFlags::ACCESSED | AttrFlags::DIRTY,
            cache: CacheType::Uncached,
        },
    });
    assert_eq!(
        Ept::encode(&rwx, Level::MID),
        0x20_0000 | 1 << 63 | 0x300 | 0x80 | 0b111
    );
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

#[test]
fn only_violations_of_absent_pages_that_are_marked_for_it_are_convertible() {
    let convertible = |entry: &Entry| Ept::encode(entry, Level::PAGE) >> 63 == 0;
    for marker in [Marker::None, Marker::UffdWp, Marker::Poison, Marker::Guard] {
        assert_eq!(convertible(&Entry::Absent(marker)), marker == super::DELEGATED);
    }
    assert!(
        !convertible(&leaf(Prot::READ, AttrFlags::empty())),
        "a store to it"
    );
    assert!(!convertible(&leaf(Prot::empty(), AttrFlags::empty())));
}

#[test]
fn entries_of_a_fresh_table_that_nobody_wrote_are_not_convertible() {
    let machine = SoftMachine::start(Config::default());
    let mut table = PageTable::<Ept>::new().expect("RAM is plenty");
    let page = GuestPhysAddr::new(BASE);
    let marked = table.cursor_at(page).mark(Level::PAGE, super::DELEGATED);
    assert_eq!(marked, Ok(Some(Marker::None)));
    let mut node = table.root().start();
    for level in [Level::ROOT, Level::UPPER, Level::MID, Level::PAGE] {
        let word = |index: usize| {
            machine
                .machine()
                .peek(node + index as u64 * 8)
                .expect("it is RAM")
        };
        let way = level.index(BASE);
        assert!((0..512).all(|index| index == way || word(index) == 1 << 63));
        node = PhysAddr::new(word(way) & 0x000f_ffff_ffff_f000);
    }
}
