//! The kernel's own half of the address space: what the tables that it builds for itself let a CPU do.

use kernel::arch::host::mmu::Mapping;
use kernel::arch::host::{Config, Running, SoftMachine};
use kernel::arch::{Machine, Stage1, Tlb};
use kernel::bootinfo::{BootInfo, Door, Region, RegionKind, Segment, SegmentKind};
use kernel::mm::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use kernel::mm::frame::{Kind, allocator};
use kernel::mm::kernel as mm;
use kernel::mm::kmap::{self, DIRECT_MAP, STACKS};
use kernel::mm::pt::{Attr, CacheType, Level, PageTable, Prot};
use kernel::mm::range::VirtRange;
use kernel::mm::stack::{KernelStack, STACK_SIZE, is_guard};

/// Where the image is linked.
const IMAGE: VirtAddr = VirtAddr::new(0xffff_ffff_8020_0000);
/// Where this loader put it: not where it is linked for, and in the middle of RAM.
const LOADED: PhysAddr = PhysAddr::new(0x60_0000);

/// A machine whose loader has mapped an image of six pages: two each of code, constants and data. The first data page is
/// the guard below the boot stack.
struct Loaded {
    info: BootInfo,
    loader: PageTable<Stage1>,
    machine: Running,
}

fn page(start: VirtAddr, number: u64) -> VirtAddr {
    start + number * PAGE_SIZE
}

fn loaded() -> Loaded {
    let machine = SoftMachine::start(Config { memory: 8 << 20 });
    let mut loader = PageTable::new().expect("RAM is plenty");
    let image = VirtRange::new(IMAGE, page(IMAGE, 6));
    let mut cursor = loader.cursor(image);
    for number in 0..6 {
        // Everything may be written and executed: loaders are generous.
        let (frame, prot) = (
            Pfn::containing(LOADED).offset(number),
            Prot::READ | Prot::WRITE | Prot::EXEC,
        );
        cursor
            .install_borrowed(Level::PAGE, frame, prot, Attr::default())
            .expect("RAM is plenty");
        cursor.advance(Level::PAGE);
    }
    Machine::load_root(loader.root());
    let (start, end) = machine.ram();
    let region = |start, end, kind| Region { start, end, kind };
    let hole = PhysAddr::new(0x80_0000);
    let memory = [
        region(start, hole, RegionKind::Usable),
        region(hole, hole + PAGE_SIZE, RegionKind::Other),
        region(hole + PAGE_SIZE, end, RegionKind::Reserved),
    ];
    let segment = |first, kind| Segment {
        range: VirtRange::new(page(IMAGE, first), page(IMAGE, first + 2)),
        kind,
    };
    let image = [
        segment(0, SegmentKind::Text),
        segment(2, SegmentKind::Rodata),
        segment(4, SegmentKind::Data),
    ];
    let mut info = BootInfo::new(Door::Pvh, DIRECT_MAP);
    info.memory.extend(memory);
    info.image.extend(image);
    info.boot_stack = VirtRange::new(page(IMAGE, 5), page(IMAGE, 6));
    info.direct_map_len = end.as_u64();
    Loaded {
        info,
        loader,
        machine,
    }
}

impl Loaded {
    /// What the CPU finds with the kernel's own tables.
    fn with_tables<R>(self, f: impl FnOnce(&SoftMachine, Pfn) -> R) -> R {
        let table = kmap::build(&self.info).expect("RAM is plenty");
        let result = f(&self.machine, table.root());
        drop(table);
        Machine::load_root(mm::get().root());
        drop(self.loader);
        result
    }
}

fn direct(addr: PhysAddr) -> VirtAddr {
    DIRECT_MAP + addr.as_u64()
}

fn reached(mapping: &Mapping, addr: VirtAddr) -> PhysAddr {
    mapping.base + (addr.as_u64() & ((PAGE_SIZE << (9 * (mapping.level - 1))) - 1))
}

#[test]
fn the_direct_map_has_all_ram_at_its_address_and_nothing_else() {
    loaded().with_tables(|machine, root| {
        let (start, end) = machine.ram();
        for number in 0..=Pfn::containing(end).as_u64() {
            let physical = Pfn::new(number).start();
            let is_ram = (start..end).contains(&physical) && physical != PhysAddr::new(0x80_0000);
            let found = machine.walk(root, direct(physical));
            assert_eq!(
                found.map(|m| reached(&m, direct(physical))),
                is_ram.then_some(physical),
                "{physical:?}"
            );
        }
    });
}

#[test]
fn large_leaves_are_used_where_they_fit() {
    loaded().with_tables(|machine, root| {
        let level = |addr| {
            machine
                .walk(root, direct(PhysAddr::new(addr)))
                .map(|mapping| mapping.level)
        };
        assert_eq!(level(0x20_0000), Some(2), "nothing special in these 2 MiB");
        assert_eq!(
            level(0x60_0000),
            Some(1),
            "code must not be writable through the direct map"
        );
        assert_eq!(level(0x80_1000), Some(1), "begins in the middle of 2 MiB");
    });
}

#[test]
fn nothing_can_be_written_and_executed_in_any_alias() {
    loaded().with_tables(|machine, root| {
        let (_, end) = machine.ram();
        let ram = (0..Pfn::containing(end).as_u64()).map(|number| direct(Pfn::new(number).start()));
        let image = (0..6).map(|number| page(IMAGE, number));
        let mut writable = vec![];
        let mut executable = vec![];
        for addr in ram.chain(image) {
            let Some(mapping) = machine.walk(root, addr) else {
                continue;
            };
            assert!(!(mapping.rights.write && mapping.rights.execute), "{addr:?}");
            assert!(!mapping.rights.user, "{addr:?} is not for user mode");
            let frame = reached(&mapping, addr);
            if mapping.rights.write {
                writable.push(frame);
            }
            if mapping.rights.execute {
                executable.push(frame);
            }
        }
        assert_eq!(
            executable,
            [LOADED, LOADED + PAGE_SIZE],
            "the code and only the code"
        );
        assert!(executable.iter().all(|frame| !writable.contains(frame)));
    });
}

#[test]
fn the_image_has_the_rights_of_its_parts_wherever_the_loader_put_it() {
    loaded().with_tables(|machine, root| {
        let rights: Vec<_> = (0..6)
            .map(|number| {
                let mapping = machine.walk(root, page(IMAGE, number))?;
                assert_eq!(mapping.base, LOADED + number * PAGE_SIZE);
                Some((mapping.rights.write, mapping.rights.execute))
            })
            .collect();
        let (code, constants, data) = (Some((false, true)), Some((false, false)), Some((true, false)));
        assert_eq!(
            rights,
            [code, code, constants, constants, None, data],
            "with a guard below the boot stack"
        );
    });
}

#[test]
#[should_panic(expected = "the loader mapped the image")]
fn an_image_that_the_loader_did_not_map_is_a_panic() {
    let mut loaded = loaded();
    loaded.info.image[0].range.start = page(IMAGE, 0) - PAGE_SIZE;
    let _table = kmap::build(&loaded.info);
}

#[test]
fn no_memory_for_the_tables_is_an_error() {
    for successes in [0, 1, 5] {
        let loaded = loaded();
        allocator().inject_failure(successes);
        let result = kmap::build(&loaded.info);
        allocator().stop_injection();
        assert!(result.is_err());
        Machine::load_root(mm::get().root());
        let Loaded { loader, machine, .. } = loaded;
        drop(loader);
        assert_eq!(
            allocator().stats().of(Kind::Table),
            1,
            "only the root that the machine started with"
        );
        drop(machine);
    }
}

fn mapping_at(machine: &SoftMachine, addr: VirtAddr) -> Option<Mapping> {
    machine.walk(mm::get().root(), addr)
}

#[test]
fn a_kernel_stack_is_mapped_to_its_top_with_a_guard_below() {
    let machine = SoftMachine::start(Config::default());
    let stack = KernelStack::new().expect("RAM is plenty");
    let range = stack.range();
    assert_eq!(
        (range.len(), stack.top() as u64),
        (STACK_SIZE, range.end.as_u64())
    );
    assert!(STACKS.covers(&range));
    for number in 0..range.pages() {
        let mapping = mapping_at(&machine, page(range.start, number)).expect("mapped");
        assert!(mapping.rights.write && !mapping.rights.execute && !mapping.rights.user);
    }
    for below in [1, STACK_SIZE] {
        let addr = range.start - below;
        assert!(mapping_at(&machine, addr).is_none(), "{addr:?}");
        assert!(is_guard(addr));
    }
    assert!(!is_guard(range.start) && !is_guard(range.end - 1));
}

#[test]
fn stacks_do_not_overlap_and_give_everything_back() {
    let machine = SoftMachine::start(Config::default());
    let stacks: Vec<_> = (0..5)
        .map(|_| KernelStack::new().expect("RAM is plenty"))
        .collect();
    for (i, a) in stacks.iter().enumerate() {
        assert!(stacks[i + 1..].iter().all(|b| !a.range().overlaps(&b.range())));
    }
    assert_eq!(allocator().stats().of(Kind::Stack), 5 * STACK_SIZE / PAGE_SIZE);
    let ranges: Vec<_> = stacks.iter().map(KernelStack::range).collect();
    drop(stacks);
    assert_eq!(allocator().stats().of(Kind::Stack), 0);
    assert!(
        ranges
            .iter()
            .all(|range| mapping_at(&machine, range.start).is_none())
    );
}

#[test]
fn no_frame_for_a_stack_is_an_error_that_keeps_nothing() {
    // The first stack of a machine needs its pages and three nodes.
    for successes in 0..STACK_SIZE / PAGE_SIZE + 3 {
        let _machine = SoftMachine::start(Config::default());
        allocator().inject_failure(successes);
        assert!(KernelStack::new().is_err(), "after {successes} frames");
        allocator().stop_injection();
        assert_eq!(allocator().stats().of(Kind::Stack), 0, "after {successes} frames");
        assert!(KernelStack::new().is_ok());
    }
}

#[test]
fn device_memory_is_uncached_and_keeps_its_offset() {
    let machine = SoftMachine::start(Config::default());
    let registers = PhysAddr::new(0xfee0_0123);
    let at = kmap::map_device(registers, 0x2000, CacheType::Uncached).expect("RAM is plenty");
    assert_eq!(at.page_offset(), 0x123);
    for offset in [0, 0x1000, 0x1fff] {
        let mapping = mapping_at(&machine, at + offset).expect("mapped");
        assert_eq!(reached(&mapping, at + offset), registers + offset);
        assert!(mapping.rights.write && !mapping.rights.execute);
    }
}
