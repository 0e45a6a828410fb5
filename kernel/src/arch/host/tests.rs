//! What the software machine itself promises. Page tables are written here by hand, bit by bit.

use super::machine::{Config, FlushCall, SoftMachine};
use super::tlb::{Cached, MissedFlush, Mode};
use super::{Machine, task_memory};
use crate::arch::{Memory, TaskMemory, Tlb};
use crate::mm::addr::{Pfn, PhysAddr, VirtAddr};
use crate::mm::fault::Access;
use crate::mm::frame::{Anon, Frame, Table};

const RW: u64 = 0b111;
const RO: u64 = 0b101;
const GLOBAL: u64 = 1 << 8;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const PAGE: VirtAddr = VirtAddr::new(0x40_0000_0000);

/// A table for one 2 MiB region around [`PAGE`], written by hand.
struct HandMade {
    tables: [Frame<Table>; 4],
}

fn entry(table: &Frame<Table>, addr: VirtAddr, level: u32) -> PhysAddr {
    table.pfn().start() + (addr.as_u64() >> (12 + 9 * (level - 1)) & 511) * 8
}

fn write(place: PhysAddr, raw: u64) {
    assert!(SoftMachine::current().arena().store(place, &raw.to_le_bytes()));
}

fn read(place: PhysAddr) -> u64 {
    SoftMachine::current()
        .arena()
        .word(place)
        .expect("in RAM")
        .load(core::sync::atomic::Ordering::Relaxed)
}

impl HandMade {
    fn new() -> Self {
        let tables = core::array::from_fn(|_| Frame::<Table>::alloc_zeroed().expect("RAM is plenty"));
        for level in (2..=4).rev() {
            let below = &tables[4 - level as usize + 1];
            write(
                entry(&tables[4 - level as usize], PAGE, level),
                below.pfn().start().as_u64() | RW,
            );
        }
        let made = Self { tables };
        Machine::load_root(made.tables[0].pfn());
        made
    }

    /// Where the entry of `level` for `addr` stands.
    fn place(&self, addr: VirtAddr, level: u32) -> PhysAddr {
        entry(&self.tables[4 - level as usize], addr, level)
    }

    fn map(&self, addr: VirtAddr, frame: &Frame<Anon>, bits: u64) {
        write(self.place(addr, 1), frame.pfn().start().as_u64() | bits);
    }
}

fn frame(word: u64) -> Frame<Anon> {
    let frame = Frame::alloc_zeroed().expect("RAM is plenty");
    write(frame.pfn().start(), word);
    frame
}

fn load(addr: VirtAddr) -> Option<u64> {
    Machine::load_u64(addr)
}

#[test]
fn load_and_store_reach_the_mapped_frame_and_mark_the_entry() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, RW);
    assert_eq!(load(PAGE), Some(7));
    assert_eq!(read(tables.place(PAGE, 1)) & DIRTY, 0);
    assert!(Machine::store_u64(PAGE + 8, 9));
    assert_ne!(read(tables.place(PAGE, 1)) & DIRTY, 0);
    assert_eq!(read(frame.pfn().start() + 8), 9);
    Machine::load_root(Pfn::new(0));
}

#[test]
fn access_without_mapping_or_right_fails() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, RO | 1 << 63);
    assert_eq!(load(PAGE + 0x1000), None);
    assert!(!Machine::store_u64(PAGE, 1), "CR0.WP holds for the supervisor");
    assert!(!task_memory::fetch(PAGE, Mode::User));
    assert_eq!(load(VirtAddr::new(1 << 47)), None, "not canonical");
    Machine::load_root(Pfn::new(0));
}

#[test]
fn user_mode_and_supervisor_fetch_obey_the_user_bit() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, 0b011);
    assert_eq!(task_memory::load_word(PAGE, Mode::User), None);
    assert!(task_memory::fetch(PAGE, Mode::Supervisor));
    tables.map(PAGE + 0x1000, &frame, RW);
    assert!(task_memory::fetch(PAGE + 0x1000, Mode::User));
    assert!(!task_memory::fetch(PAGE + 0x1000, Mode::Supervisor), "SMEP");
    Machine::load_root(Pfn::new(0));
}

#[test]
fn large_leaf_maps_its_whole_range() {
    let _machine = SoftMachine::start(Config { memory: 8 << 20 });
    let tables = HandMade::new();
    write(tables.place(PAGE, 2), 0x40_0000 | RW | LARGE);
    write(PhysAddr::new(0x40_0000 + 0x12_3458), 5);
    assert_eq!(load(PAGE + 0x12_3458), Some(5));
    Machine::load_root(Pfn::new(0));
}

#[test]
#[should_panic(expected = "page tables are broken")]
fn reserved_bit_fails_the_test() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, RW | 1 << 50);
    load(PAGE);
}

#[test]
fn bytes_not_copied_are_counted_from_the_faulting_page_on() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, RW);
    let mut buffer = [0xaa_u8; 0x20];
    // SAFETY: the buffer has the length that is passed.
    let left = unsafe { Machine::copy_in(buffer.as_mut_ptr(), PAGE + 0xff0, buffer.len()) };
    assert_eq!(
        (left, &buffer[..0x10], &buffer[0x10..]),
        (0x10, &[0; 0x10][..], &[0xaa; 0x10][..])
    );
    Machine::load_root(Pfn::new(0));
}

#[test]
fn unmapped_page_stays_reachable_until_flushed_and_its_use_is_reported() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    tables.map(PAGE, &frame, RW);
    assert_eq!(load(PAGE), Some(7));
    write(tables.place(PAGE, 1), 0);
    assert_eq!(load(PAGE), Some(7));
    let missed = machine.take_missed_flushes();
    assert!(matches!(missed[..], [MissedFlush::Used(used)] if used.addr == PAGE && used.current.is_err()));
    Machine::flush_page(PAGE);
    assert_eq!(load(PAGE), None);
    Machine::load_root(Pfn::new(0));
}

#[test]
fn narrowed_rights_and_another_frame_are_reported_and_widened_rights_are_not() {
    let machine = SoftMachine::start(Config::default());
    let (first, second, tables) = (frame(1), frame(2), HandMade::new());
    tables.map(PAGE, &first, RO);
    assert_eq!(load(PAGE), Some(1));
    tables.map(PAGE, &first, RW);
    assert_eq!(load(PAGE), Some(1));
    assert_eq!(machine.take_missed_flushes(), []);
    assert!(!Machine::store_u64(PAGE, 1), "the stale entry faults once");
    assert!(Machine::store_u64(PAGE, 1), "and is gone then");
    tables.map(PAGE, &first, RO | DIRTY);
    assert!(
        Machine::store_u64(PAGE, 3),
        "the stale right to store goes through"
    );
    tables.map(PAGE, &second, RW);
    assert_eq!(load(PAGE), Some(3));
    let missed = machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Used(a), MissedFlush::Used(b)]
            if (a.access, b.access) == (Access::Write, Access::Read)),
        "{missed:?}"
    );
    Machine::load_root(Pfn::new(0));
}

#[test]
fn cleared_dirty_bit_without_flush_is_reported_at_the_next_store() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(1), HandMade::new());
    tables.map(PAGE, &frame, RW);
    assert!(Machine::store_u64(PAGE, 2));
    tables.map(PAGE, &frame, RW);
    assert!(Machine::store_u64(PAGE, 3));
    assert_eq!(machine.take_missed_flushes().len(), 1);
    Machine::load_root(Pfn::new(0));
}

#[test]
fn walk_through_a_replaced_table_is_reported() {
    let machine = SoftMachine::start(Config::default());
    let (old, tables) = (frame(1), HandMade::new());
    tables.map(PAGE, &old, RW);
    assert_eq!(load(PAGE), Some(1));
    write(tables.place(PAGE, 2), 0);
    assert_eq!(load(PAGE + 0x1000), None);
    let missed = machine.take_missed_flushes();
    assert!(matches!(missed[..], [MissedFlush::Used(used)] if matches!(used.cached, Cached::Table(_))));
    Machine::load_root(Pfn::new(0));
}

#[test]
fn new_root_drops_all_but_global_pages() {
    let machine = SoftMachine::start(Config::default());
    let (local, global, tables) = (frame(1), frame(2), HandMade::new());
    tables.map(PAGE, &local, RW);
    tables.map(PAGE + 0x1000, &global, RW | GLOBAL);
    assert_eq!((load(PAGE), load(PAGE + 0x1000)), (Some(1), Some(2)));
    write(tables.place(PAGE, 1), 0);
    write(tables.place(PAGE + 0x1000, 1), 0);
    Machine::load_root(tables.tables[0].pfn());
    assert_eq!((load(PAGE), load(PAGE + 0x1000)), (None, Some(2)));
    assert_eq!(machine.take_missed_flushes().len(), 1);
    Machine::flush_page(PAGE + 0x1000);
    assert_eq!(load(PAGE + 0x1000), None);
    Machine::load_root(Pfn::new(0));
}

#[test]
fn frame_freed_while_a_cpu_can_reach_it_is_reported() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(1), HandMade::new());
    let pfn = frame.pfn();
    tables.map(PAGE, &frame, RW);
    assert_eq!(load(PAGE), Some(1));
    write(tables.place(PAGE, 1), 0);
    drop(frame);
    let missed = machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Freed { frame, .. }] if frame == pfn),
        "{missed:?}"
    );
    Machine::load_root(Pfn::new(0));
}

#[test]
fn a_page_that_is_reached_at_its_new_address_before_the_old_one_is_flushed_is_caught() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(7), HandMade::new());
    let new = PAGE + 0x5000;
    tables.map(PAGE, &frame, RW);
    assert_eq!(load(PAGE), Some(7));
    write(tables.place(PAGE, 1), 0);
    tables.map(new, &frame, RW);
    assert_eq!(load(new), Some(7));
    let missed = machine.take_missed_flushes();
    assert!(
        matches!(missed[..], [MissedFlush::Moved { cpu: 0, from, to, .. }] if (from, to) == (PAGE, new)),
        "{missed:?}"
    );
    Machine::load_root(Pfn::new(0));
}

#[test]
fn a_page_that_moves_after_a_flush_and_one_at_two_addresses_are_fine() {
    let _machine = SoftMachine::start(Config::default());
    let (moved, twice, tables) = (frame(7), frame(8), HandMade::new());
    let new = PAGE + 0x5000;
    tables.map(PAGE, &moved, RW);
    assert_eq!(load(PAGE), Some(7));
    write(tables.place(PAGE, 1), 0);
    Machine::flush_page(PAGE);
    tables.map(new, &moved, RW);
    assert_eq!(load(new), Some(7));
    for addr in [PAGE, PAGE + 0x1000] {
        tables.map(addr, &twice, RW);
        assert_eq!(load(addr), Some(8));
    }
    Machine::load_root(Pfn::new(0));
}

#[test]
fn lost_flush_leaves_the_entry_and_every_flush_is_recorded() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(1), HandMade::new());
    tables.map(PAGE, &frame, RW);
    assert_eq!(load(PAGE), Some(1));
    write(tables.place(PAGE, 1), 0);
    machine.take_flushes();
    machine.lose_flushes(1);
    Machine::flush_page(PAGE);
    assert_eq!(load(PAGE), Some(1));
    Machine::flush_all();
    assert_eq!(load(PAGE), None);
    let expected = [FlushCall::Page { cpu: 0, addr: PAGE }, FlushCall::All { cpu: 0 }];
    assert_eq!(
        (machine.take_flushes(), machine.take_missed_flushes().len()),
        (expected.into(), 1)
    );
    Machine::load_root(Pfn::new(0));
}

#[test]
#[should_panic(expected = "a flush is missing")]
fn leaving_with_an_unread_report_fails_the_test() {
    let _machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(1), HandMade::new());
    tables.map(PAGE, &frame, RW);
    load(PAGE);
    write(tables.place(PAGE, 1), 0);
    load(PAGE);
    Machine::load_root(Pfn::new(0));
}

#[test]
#[should_panic(expected = "1 frame(s) of kind anon were not given back")]
fn leaving_with_a_frame_in_use_fails_the_test() {
    let _machine = SoftMachine::start(Config::default());
    core::mem::forget(frame(1));
}

#[test]
fn another_cpu_may_use_a_stale_entry_until_the_flush_reaches_it() {
    let machine = SoftMachine::start(Config::default());
    let (frame, tables) = (frame(1), HandMade::new());
    tables.map(PAGE, &frame, RW);
    std::thread::scope(|scope| {
        let soft = machine.machine();
        let root = tables.tables[0].pfn();
        let place = tables.place(PAGE, 1);
        scope.spawn(move || {
            let _cpu = soft.enter();
            Machine::load_root(root);
            assert_eq!(load(PAGE), Some(1));
            write(place, 0);
            assert_eq!(load(PAGE), Some(1));
            Machine::flush_page(PAGE);
            assert_eq!(load(PAGE), None);
        });
    });
    assert_eq!(machine.take_missed_flushes(), []);
    Machine::load_root(Pfn::new(0));
}

#[test]
#[should_panic(expected = "lock(s) or preemption guards are held")]
fn access_to_task_memory_under_a_lock_fails_the_test() {
    let _machine = SoftMachine::start(Config::default());
    let lock = crate::sync::SpinLock::new(());
    let _guard = lock.lock();
    load(PAGE);
}

#[test]
#[should_panic(expected = "preempt_enable without")]
fn unbalanced_preempt_enable_fails_the_test() {
    use crate::arch::Cpu;
    Machine::preempt_enable();
}

#[test]
fn direct_map_reaches_ram_only() {
    let machine = SoftMachine::start(Config { memory: 1 << 20 });
    let (start, end) = machine.ram();
    assert!(Machine::direct_map(start).addr().is_multiple_of(4096));
    assert!(std::panic::catch_unwind(|| Machine::direct_map(start - 1)).is_err());
    assert!(std::panic::catch_unwind(|| Machine::direct_map(end + 1)).is_err());
}
