//! The generic check on stage 1, against the software machine's page walk.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::check::{self, CheckedFormat, Seen};
use super::{Level, Prot};
use crate::arch::host::{Mode, SoftMachine};
use crate::arch::{Machine, Stage1, Tlb};
use crate::mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::mm::fault::Access;
use crate::mm::range::VirtRange;

impl CheckedFormat for Stage1 {
    fn prots() -> Vec<Prot> {
        let (r, w, x, u) = (Prot::READ, Prot::WRITE, Prot::EXEC, Prot::USER);
        [
            Prot::empty(),
            r,
            r | w,
            r | x,
            r | u,
            r | w | u,
            r | x | u,
            r | w | x | u,
        ]
        .into()
    }

    fn cpu_walk(root: Pfn, addr: u64) -> Option<Seen> {
        let walk = SoftMachine::current().walk(root, VirtAddr::new(addr))?;
        let mut prot = Prot::READ;
        prot.set(Prot::WRITE, walk.rights.write);
        prot.set(Prot::EXEC, walk.rights.execute);
        prot.set(Prot::USER, walk.rights.user);
        let span = Level::PAGE.size() << (9 * (walk.level - 1));
        Some(Seen {
            frame: Pfn::containing(walk.base + (addr & (span - 1))),
            prot,
        })
    }

    fn load(root: Pfn) {
        Machine::load_root(root);
    }

    fn touch(addr: u64) -> bool {
        SoftMachine::current()
            .probe(VirtAddr::new(addr), Access::Read, Mode::Supervisor)
            .is_ok()
    }

    fn invalidate(range: VirtRange) {
        let mut addr = range.start;
        while addr < range.end && range.pages() <= 64 {
            Machine::flush_page(addr);
            addr = addr + PAGE_SIZE;
        }
        if range.pages() > 64 {
            Machine::flush_all();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn stage_1_entries_survive_encoding((entry, level) in check::entries()) {
        check::round_trip::<Stage1>(&entry, level);
    }

    #[test]
    fn stage_1_does_what_a_map_of_pages_does(ops in check::ops::<Stage1>(24)) {
        check::run::<Stage1>(0x1234_4000_0000 - (2 << 20), &ops);
    }
}
