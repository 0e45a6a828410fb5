//! The generic check on stage 1, against the software machine's page walk.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::check::{self, CheckedFormat, Seen};
use super::{Level, Prot};
use crate::arch::host::{MissedFlush, Mode, SoftMachine};
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

/// Every raw access of a table's life once; these also run under Miri (see the frame allocator's tests for the command).
mod small {
    use super::super::{
        Attr, AttrFlags, CollapseError, Entry, Flush, InstallError, Invalidator, Leaf, Lifted, Marker,
        PageTable, Progress, SplitError, Writable, lookup_from,
    };
    use super::*;
    use crate::arch::host::Config;
    use crate::mm::frame::{Anon, Folio, Frame, Kind, OutOfFrames, allocator};

    const PAGE: VirtAddr = VirtAddr::new(0x40_0000_0000);
    const RW: Prot = Prot::READ.union(Prot::WRITE);

    /// No CPU has these tables loaded.
    struct Nobody;

    impl Invalidator<VirtAddr> for Nobody {
        fn invalidate(&self, _range: VirtRange, _pages: u64) {}
    }

    fn table() -> PageTable<Stage1> {
        PageTable::new().expect("RAM is plenty")
    }

    fn folio() -> Folio {
        Frame::<Anon>::alloc().expect("RAM is plenty").into()
    }

    fn leaf_at(table: &PageTable<Stage1>, addr: VirtAddr) -> Option<Leaf> {
        match table.lookup(addr).0 {
            Entry::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    #[test]
    fn a_page_is_mapped_protected_copied_and_unmapped() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let (first, second) = (folio(), folio());
        let (first_pfn, second_pfn) = (first.pfn(), second.pfn());
        let mut flush = Flush::new();
        let mut cursor = table.cursor(VirtRange::page(PAGE));
        cursor
            .install(Level::PAGE, first, RW, Attr::default())
            .expect("nothing is there");
        let shared = cursor.share().expect("the leaf owns its folio");
        assert_eq!((shared.pfn(), shared.owners()), (first_pfn, 2));
        assert!(cursor.rewrite(Prot::READ, Attr::default(), &mut flush));
        assert_eq!(shared.owners(), 2);
        flush.spend(&Nobody);
        cursor.replace(second, RW, Attr::flags(AttrFlags::DIRTY), &Nobody);
        assert_eq!(shared.owners(), 1, "the old page went with its translation");
        let leaf = leaf_at(&table, PAGE).expect("mapped");
        assert_eq!((leaf.frame, leaf.prot), (second_pfn, RW));
        assert_eq!(lookup_from::<Stage1>(table.root(), PAGE), table.lookup(PAGE));
        let mut flush = Flush::new();
        assert_eq!(
            table.cursor(VirtRange::page(PAGE)).unmap(false, &mut flush),
            Ok(Progress::Done)
        );
        flush.spend(&Nobody);
        assert_eq!(table.lookup(PAGE).0, Entry::EMPTY);
    }

    #[test]
    fn a_page_that_is_replaced_is_gone_from_every_cpu_before_the_new_one_is_there() {
        /// Looks at the entry at the moment of the flush.
        struct Watch(Pfn, core::cell::Cell<u32>);
        impl Invalidator<VirtAddr> for Watch {
            fn invalidate(&self, range: VirtRange, _pages: u64) {
                assert_eq!(range, VirtRange::page(PAGE));
                assert_eq!(lookup_from::<Stage1>(self.0, PAGE).0, Entry::EMPTY);
                self.1.set(self.1.get() + 1);
            }
        }
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let watch = Watch(table.root(), core::cell::Cell::new(0));
        let (first, second) = (folio(), folio());
        let pfn = second.pfn();
        let mut cursor = table.cursor(VirtRange::page(PAGE));
        cursor
            .install(Level::PAGE, first, Prot::READ, Attr::default())
            .expect("nothing is there");
        cursor.replace(second, RW, Attr::default(), &watch);
        assert_eq!(watch.1.get(), 1);
        assert_eq!(leaf_at(&table, PAGE).expect("mapped").frame, pfn);
        let mut flush = Flush::new();
        let progress = table.cursor(VirtRange::page(PAGE)).unmap(false, &mut flush);
        assert_eq!(progress, Ok(Progress::Done));
        flush.spend(&Nobody);
    }

    #[test]
    fn the_end_of_protection_lets_a_page_be_written_unless_it_is_shared() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let range = VirtRange::new(PAGE, PAGE + 3 * PAGE_SIZE);
        let shared = folio();
        let mut cursor = table.cursor(range);
        for folio in [shared.clone(), folio()] {
            cursor
                .install(Level::PAGE, folio, RW, Attr::flags(AttrFlags::DIRTY))
                .expect("nothing is there");
            cursor.advance(Level::PAGE);
        }
        let mut flush = Flush::new();
        let whole = |table: &mut PageTable<Stage1>, flush: &mut Flush<VirtAddr>| {
            table.cursor(range).write_protect(Some(Level::PAGE), flush)
        };
        assert_eq!(whole(&mut table, &mut flush), Ok(()));
        assert!(!flush.is_empty());
        flush.spend(&Nobody);
        for at in [PAGE, PAGE + PAGE_SIZE] {
            let leaf = leaf_at(&table, at).expect("mapped");
            assert_eq!((leaf.prot, leaf.is_protected()), (Prot::READ, true));
            assert!(leaf.attr.flags.contains(AttrFlags::DIRTY), "what was noted stays");
        }
        let last = PAGE + 2 * PAGE_SIZE;
        assert_eq!(table.lookup(last).0, Entry::Absent(Marker::UffdWp));

        table.cursor(range).write_unprotect(Writable::Unshared);
        let prots = [PAGE, PAGE + PAGE_SIZE].map(|at| leaf_at(&table, at).map(|leaf| leaf.prot));
        assert_eq!(prots, [Some(Prot::READ), Some(RW)]);
        assert_eq!(table.lookup(last).0, Entry::EMPTY);

        assert_eq!(whole(&mut table, &mut flush), Ok(()));
        flush.spend(&Nobody);
        drop(shared);
        table.write_unprotect_page(PAGE, Writable::Unshared);
        table.write_unprotect_page(PAGE + PAGE_SIZE, Writable::Nothing);
        let prots = [PAGE, PAGE + PAGE_SIZE].map(|at| leaf_at(&table, at).map(|leaf| leaf.prot));
        assert_eq!(prots, [Some(RW), Some(Prot::READ)]);
    }

    #[test]
    fn the_end_of_protection_leaves_forked_pages_to_the_next_store() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        for writable in [Writable::Nothing, Writable::Unshared, Writable::Everything] {
            let mut cursor = table.cursor(VirtRange::page(PAGE));
            let mut flush = Flush::new();
            let attr = Attr::flags(AttrFlags::FORKED);
            assert_eq!(cursor.unmap(false, &mut flush), Ok(Progress::Done));
            cursor.seek(PAGE);
            cursor
                .install(Level::PAGE, folio(), Prot::READ, attr)
                .expect("nothing is there");
            cursor.write_protect(None, &mut flush).expect("the node is there");
            flush.spend(&Nobody);
            table.cursor(VirtRange::page(PAGE)).write_unprotect(writable);
            let leaf = leaf_at(&table, PAGE).expect("mapped");
            assert_eq!((leaf.prot, leaf.attr), (Prot::READ, attr), "{writable:?}");
        }
    }

    #[test]
    fn no_frame_for_a_node_stops_protection_of_absent_pages_there() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let edge = PAGE + Level::MID.size();
        table
            .cursor(VirtRange::page(PAGE))
            .mark(Level::PAGE, Marker::Poison)
            .expect("RAM is plenty");
        let mut flush = Flush::new();
        let range = VirtRange::new(PAGE, edge + PAGE_SIZE);
        allocator().inject_failure(0);
        let result = table.cursor(range).write_protect(Some(Level::PAGE), &mut flush);
        allocator().stop_injection();
        assert_eq!(result, Err(OutOfFrames));
        assert!(flush.is_empty(), "no leaf was there");
        assert_eq!(table.lookup(PAGE).0, Entry::Absent(Marker::Poison));
        let last = VirtAddr::new(edge.as_u64() - PAGE_SIZE);
        assert_eq!(table.lookup(last).0, Entry::Absent(Marker::UffdWp));
        assert_eq!(table.lookup(edge).0, Entry::EMPTY);
    }

    #[test]
    fn a_mapped_page_refuses_another_and_hands_it_back() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let (first, second) = (folio(), folio());
        let pfn = second.pfn();
        let mut cursor = table.cursor(VirtRange::page(PAGE));
        cursor
            .install(Level::PAGE, first, RW, Attr::default())
            .expect("nothing is there");
        let refused = cursor.install(Level::PAGE, second, RW, Attr::default());
        assert!(matches!(refused, Err(InstallError::Occupied(back)) if back.pfn() == pfn));
        assert!(matches!(
            cursor.install_borrowed(Level::PAGE, pfn, RW, Attr::default()),
            Ok(None)
        ));
        assert_eq!(cursor.mark(Level::PAGE, Marker::Poison), Ok(None));
    }

    #[test]
    fn no_frame_for_a_node_changes_nothing_and_hands_the_page_back() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        for successes in 0..3 {
            let (mut table, folio) = (table(), folio());
            let (pfn, tables) = (folio.pfn(), allocator().stats().of(Kind::Table));
            allocator().inject_failure(successes);
            let result = table
                .cursor(VirtRange::page(PAGE))
                .install(Level::PAGE, folio, RW, Attr::default());
            allocator().stop_injection();
            assert!(matches!(result, Err(InstallError::OutOfFrames(back)) if back.pfn() == pfn));
            assert_eq!(table.lookup(PAGE).0, Entry::EMPTY);
            assert!(
                allocator().stats().of(Kind::Table) >= tables,
                "nodes that were made may stay"
            );
        }
    }

    #[test]
    fn a_dropped_table_gives_back_nodes_and_pages() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let before = allocator().stats().in_use;
        let mut table = table();
        let page = folio();
        let cursor = &mut table.cursor(VirtRange::page(PAGE));
        cursor
            .install(Level::PAGE, page, RW, Attr::default())
            .expect("nothing is there");
        drop(table);
        assert_eq!(allocator().stats().in_use, before);
    }

    #[test]
    fn a_large_leaf_splits_and_collapses_with_frames_rights_and_attributes() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let device = Pfn::new(0x8_0000);
        let span = VirtRange::new(PAGE, PAGE + Level::MID.size());
        let mut flush = Flush::new();
        let mut cursor = table.cursor(span);
        let attr = Attr::flags(AttrFlags::UFFD_WP);
        assert!(matches!(
            cursor.install_borrowed(Level::MID, device, RW, attr),
            Ok(Some(_))
        ));
        assert_eq!(cursor.split(&mut flush), Ok(()));
        assert_eq!(cursor.split(&mut flush), Err(SplitError::NotALargeLeaf));
        cursor.seek(PAGE + 0x1000);
        assert!(cursor.rewrite(RW, Attr::flags(AttrFlags::UFFD_WP | AttrFlags::DIRTY), &mut flush));
        assert_eq!(cursor.collapse(Level::MID, &mut flush), Ok(()));
        assert_eq!(
            cursor.collapse(Level::MID, &mut flush),
            Err(CollapseError::NoNode)
        );
        flush.spend(&Nobody);
        let leaf = leaf_at(&table, PAGE + 0x5000).expect("mapped");
        assert_eq!((leaf.frame, leaf.prot), (device, RW));
        assert!(
            leaf.attr.flags.contains(AttrFlags::UFFD_WP | AttrFlags::DIRTY),
            "one of 512 was dirty"
        );
    }

    #[test]
    fn owned_frames_do_not_collapse_into_a_block_that_cannot_exist() {
        let _machine = SoftMachine::start(Config { memory: 8 << 20 });
        let mut table = table();
        let block = Frame::<Anon>::alloc_order(Level::MID.order()).expect("RAM is plenty");
        let mut cursor = table.cursor(VirtRange::new(PAGE, PAGE + Level::UPPER.size()));
        cursor
            .install(Level::MID, block.into(), RW, Attr::default())
            .expect("nothing is there");
        let mut flush = Flush::new();
        assert_eq!(
            cursor.collapse(Level::UPPER, &mut flush),
            Err(CollapseError::TooLarge)
        );
        assert!(flush.is_empty());
    }

    #[test]
    #[should_panic(expected = "another size than its folio")]
    fn a_large_leaf_of_a_small_folio_is_refused() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let mut cursor = table.cursor(VirtRange::new(PAGE, PAGE + Level::MID.size()));
        let _never = cursor.install(Level::MID, folio(), RW, Attr::default());
    }

    #[test]
    #[should_panic(expected = "not aligned to its size")]
    fn a_large_leaf_of_unaligned_frames_is_refused() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let mut cursor = table.cursor(VirtRange::new(PAGE, PAGE + Level::MID.size()));
        let _never = cursor.install_borrowed(Level::MID, Pfn::new(0x8_0001), RW, Attr::default());
    }

    /// A CPU that has the table loaded and stores to a page the moment before it is told to flush.
    struct Storing(VirtAddr, core::cell::RefCell<Vec<bool>>);

    impl Invalidator<VirtAddr> for Storing {
        fn invalidate(&self, range: VirtRange, _pages: u64) {
            let stored = SoftMachine::current().probe(self.0, Access::Write, Mode::Supervisor);
            self.1.borrow_mut().push(stored.is_ok());
            Stage1::invalidate(range);
        }
    }

    /// The machine, and a loaded table with a page at [`PAGE`] that the CPU has stored to.
    fn stored_to() -> (crate::arch::host::Running, PageTable<Stage1>, Pfn) {
        let machine = SoftMachine::start(Config { memory: 256 << 10 });
        let (mut table, page) = (table(), folio());
        let pfn = page.pfn();
        table
            .cursor_at(PAGE)
            .install(Level::PAGE, page, RW, Attr::flags(AttrFlags::UFFD_WP))
            .expect("nothing is there");
        Machine::load_root(table.root());
        machine
            .probe(PAGE, Access::Write, Mode::Supervisor)
            .expect("mapped");
        (machine, table, pfn)
    }

    #[test]
    fn a_page_that_moves_keeps_its_owner_and_its_dirty_bit_and_is_nowhere_while_the_cpus_flush() {
        let (machine, mut table, pfn) = stored_to();
        let to = PAGE + 0x8000_0000;
        let cpu = Storing(to, Default::default());
        let mut lifted = Lifted::new();
        let mut route = table.route(PAGE, to, 1, &mut lifted);
        assert_eq!((route.pages(), route.is_bare()), (1, false));
        assert_eq!(route.lift(0), Ok(()));
        let rights = RW | Prot::USER;
        route.land(&cpu, |leaf| {
            (rights, Attr::flags(leaf.attr.flags - AttrFlags::UFFD_WP))
        });
        assert_eq!(
            *cpu.1.borrow(),
            [false],
            "not there yet when the old address is flushed"
        );
        assert_eq!(table.lookup(PAGE).0, Entry::EMPTY);
        let leaf = leaf_at(&table, to).expect("moved");
        let mut lifted = Lifted::new();
        let owners = table.route(to, PAGE, 1, &mut lifted).owners(&leaf);
        let used = AttrFlags::ACCESSED | AttrFlags::DIRTY;
        assert_eq!(
            (leaf.frame, leaf.prot, leaf.attr),
            (pfn, rights, Attr::flags(used))
        );
        assert!(machine.probe(PAGE, Access::Read, Mode::Supervisor).is_err());
        assert!(machine.probe(to, Access::Read, Mode::Supervisor).is_ok());
        assert_eq!((owners, allocator().stats().of(Kind::Anon)), (1, 1));
        Machine::load_root(Pfn::new(0));
    }

    /// What [`Route`](super::super::Route) does, but with the store before the flush.
    #[test]
    fn a_page_that_is_put_down_before_the_cpus_have_flushed_is_caught_by_the_machine() {
        use super::super::node::Taken;
        let (machine, mut table, _) = stored_to();
        let to = PAGE + 0x3000;
        let cpu = Storing(to, Default::default());
        let place = table.cursor_at(PAGE).current_place();
        let taken = Taken::out_of(place.node, place.index, Level::PAGE, &Entry::EMPTY);
        taken.put_down(place.node, place.index + 3, Level::PAGE, &|leaf| {
            (leaf.prot, leaf.attr)
        });
        let mut flush = Flush::new();
        flush.touch(PAGE.as_u64(), PAGE_SIZE);
        flush.spend(&cpu);
        assert_eq!(*cpu.1.borrow(), [true]);
        let missed = machine.take_missed_flushes();
        assert!(
            matches!(missed[..], [MissedFlush::Moved { from: PAGE, to: new, .. }] if new == to),
            "{missed:?}"
        );
        Machine::load_root(Pfn::new(0));
    }

    #[test]
    fn a_route_ends_with_a_node_before_its_own_start_and_after_sixty_four_pages() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let page = |number: u64| PAGE + number * PAGE_SIZE;
        for (from, to, pages, expected) in [
            (0, 1000, 1, 1),
            (0, 1024, 500, 64),
            (500, 1024, 500, 12),
            (0, 1532, 500, 4),
            (0, 3, 10, 3),
            (3, 0, 10, 3),
            (7, 7, 10, 1),
        ] {
            let mut lifted = Lifted::new();
            let route = table.route(page(from), page(to), pages, &mut lifted);
            assert_eq!(route.pages(), expected, "{pages} pages from {from} to {to}");
            assert!(route.is_bare());
        }
    }

    #[test]
    fn no_frame_for_a_node_at_the_new_address_leaves_the_page_where_it_is() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let to = PAGE + (1 << 39);
        for successes in 0..3 {
            let mut table = table();
            let page = folio();
            let cursor = &mut table.cursor_at(PAGE);
            cursor
                .install(Level::PAGE, page, RW, Attr::default())
                .expect("nothing is there");
            let before = leaf_at(&table, PAGE);
            allocator().inject_failure(successes);
            let mut lifted = Lifted::new();
            let mut route = table.route(PAGE, to, 1, &mut lifted);
            let lifted = route.lift(0);
            route.land(&Nobody, |leaf| (leaf.prot, leaf.attr));
            allocator().stop_injection();
            assert_eq!(lifted, Err(crate::mm::frame::OutOfFrames));
            assert_eq!(
                (leaf_at(&table, PAGE), table.lookup(to).0),
                (before, Entry::EMPTY)
            );
        }
    }

    #[test]
    #[should_panic(expected = "1 entries were lifted and did not land")]
    fn a_leaf_that_is_lifted_and_does_not_land_panics() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        table
            .cursor_at(PAGE)
            .install(Level::PAGE, folio(), RW, Attr::default())
            .expect("nothing is there");
        let mut lifted = Lifted::new();
        let mut route = table.route(PAGE, PAGE + PAGE_SIZE, 1, &mut lifted);
        route.lift(0).expect("the node is there");
        drop(route);
    }

    #[test]
    #[should_panic(expected = "was dropped instead of spent")]
    fn a_flush_that_is_not_spent_panics() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let mut table = table();
        let page = folio();
        let mut cursor = table.cursor(VirtRange::page(PAGE));
        cursor
            .install(Level::PAGE, page, RW, Attr::default())
            .expect("nothing is there");
        let mut flush = Flush::new();
        assert!(cursor.rewrite(Prot::READ, Attr::default(), &mut flush));
        drop(flush);
    }

    #[test]
    fn the_kernel_half_is_seen_through_every_table() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let kernel_page = VirtAddr::new(0xffff_8000_0000_0000);
        let mut kernel = table();
        kernel
            .pin_root_entries(VirtRange::page(kernel_page))
            .expect("RAM is plenty");
        let task = PageTable::with_upper_half_of(&kernel).expect("RAM is plenty");
        let mut cursor = kernel.cursor(VirtRange::page(kernel_page));
        assert!(matches!(
            cursor.install_borrowed(Level::PAGE, Pfn::new(0x99), RW, Attr::default()),
            Ok(Some(_))
        ));
        assert_eq!(
            leaf_at(&task, kernel_page).map(|leaf| leaf.frame),
            Some(Pfn::new(0x99))
        );
        drop(task);
        assert!(
            leaf_at(&kernel, kernel_page).is_some(),
            "the other table owned none of it"
        );
    }

    #[test]
    #[should_panic(expected = "a part of another table")]
    fn a_task_table_does_not_change_the_kernel_half() {
        let _machine = SoftMachine::start(Config { memory: 256 << 10 });
        let kernel = table();
        let mut task = PageTable::with_upper_half_of(&kernel).expect("RAM is plenty");
        let _cursor = task.cursor(VirtRange::page(VirtAddr::new(0xffff_8000_0000_0000)));
    }
}
