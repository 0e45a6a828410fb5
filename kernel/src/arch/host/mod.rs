//! A software machine, so that the kernel's logic runs under `cargo test`.
//!
//! ```text
//!   kernel code ──► Machine (the traits of arch) ──► the calling thread's Processor
//!                                                         │ preemption, interrupts, root, Tlb
//!                                                         ▼
//!                                                    SoftMachine ── Arena (RAM)
//!                                                         │            ▲
//!   TaskMemory ──► task_memory ──► tlb ──► mmu ────────────┴────────────┘
//!                      └── page fault ──► mm::fault::handle ──► again, or the access fails
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`machine`] | start, enter, leave; the account of flushes and stale uses |
//! | [`arena`] | RAM |
//! | [`processor`] | a CPU's own state, and which CPU a thread is |
//! | [`mmu`], [`tlb`] | the page walk, and a translation cache that never forgets what was not flushed |
//! | [`task_memory`] | loads, stores and fetches as a task makes them |
//!
//! What a test gets from it beyond "the kernel's code runs": a missing flush, a walk through a freed table, a reserved
//! bit, a lock held over something that may sleep, and an unbalanced preemption count each fail the test that does it.
//!
//! [`Switch`](super::Switch) is the one trait without an implementation here: a task of a host test is a thread of the host
//! (see `task::threads`), and a thread cannot be moved to another stack.
#![expect(
    unsafe_code,
    reason = "stands in for hardware: physical memory as raw pointers, raw copies for tasks"
)]

use core::mem::MaybeUninit;

use super::{Clock, Cpu, Irq, Memory, TaskMemory, Tlb};
use crate::cpu::Local;
use crate::mm::addr::{Pfn, PhysAddr, VirtAddr};
use crate::mm::kernel::KernelMm;
use crate::mm::pt::Level;
use crate::mm::range::VirtRange;

pub mod arena;
pub mod machine;
pub mod mmu;
pub mod processor;
pub mod task_memory;
pub mod tlb;
pub mod user;

#[cfg(test)]
mod tests;

pub use machine::{Config, Entered, FlushCall, Running, SoftMachine};
pub use tlb::{Cached, MissedFlush, Mode, StaleUse};

/// The host's stand-in for the CPU and its machine.
#[derive(Debug)]
pub struct Machine;

impl Cpu for Machine {
    fn local() -> &'static Local {
        &processor::current().local
    }

    fn id() -> usize {
        processor::current().id
    }

    fn preempt_disable() {
        processor::current().preempt_disable();
    }

    fn preempt_enable() {
        processor::current().preempt_enable();
    }

    fn preempt_count() -> usize {
        processor::current().preempt_depth() as usize
    }

    /// Noted only: the host's own scheduler runs the threads that stand for tasks.
    fn request_reschedule() {
        processor::current().set_reschedule(true);
    }

    fn take_reschedule() -> bool {
        processor::current().set_reschedule(false)
    }

    fn relax() {
        // The thread that is waited for may need this core.
        std::thread::yield_now();
    }

    fn wait_for_interrupt() {
        processor::current().set_interrupts(true);
        std::thread::yield_now();
    }
}

impl Irq for Machine {
    type Flags = bool;

    fn disable() -> bool {
        processor::current().set_interrupts(false)
    }

    fn restore(flags: bool) {
        processor::current().set_interrupts(flags);
    }

    fn were_enabled(flags: bool) -> bool {
        flags
    }

    fn enabled() -> bool {
        processor::current().interrupts()
    }

    fn enable() {
        processor::current().set_interrupts(true);
    }
}

impl Tlb for Machine {
    fn flush_page(addr: VirtAddr) {
        let processor = processor::current();
        if let Some(machine) = processor.machine {
            machine.flush(FlushCall::Page {
                cpu: processor.id,
                addr,
            });
        }
    }

    fn flush_all() {
        let processor = processor::current();
        if let Some(machine) = processor.machine {
            machine.flush(FlushCall::All { cpu: processor.id });
        }
    }

    fn load_root(root: Pfn) {
        SoftMachine::current().flush(FlushCall::Root {
            cpu: processor::current().id,
            root,
        });
    }

    fn root() -> Pfn {
        Pfn::new(processor::current().root())
    }

    /// Takes the other CPUs' translation caches in turn, as their interrupt handlers would: an access that is under way
    /// ends first.
    fn shoot_down(cpus: u32, range: VirtRange) {
        let Some(machine) = processor::current().machine else {
            return;
        };
        for cpu in (0..super::MAX_CPUS).filter(|cpu| cpus >> cpu & 1 != 0) {
            machine.flush(FlushCall::Range {
                cpu,
                start: range.start,
                end: range.end,
            });
        }
    }
}

impl Clock for Machine {
    /// Advances by one with every look, so that two looks never agree and waiting ends.
    fn ticks() -> u64 {
        SoftMachine::current().advance(1)
    }

    fn frequency() -> u64 {
        1_000_000
    }
}

impl Memory for Machine {
    fn direct_map(addr: PhysAddr) -> *mut u8 {
        match SoftMachine::current().arena().pointer(addr, 0) {
            Some(pointer) => pointer,
            None => panic!(
                "the direct map has nothing at {addr:?}: RAM is {:?}",
                SoftMachine::current().ram()
            ),
        }
    }

    fn max_leaf() -> Level {
        Level::UPPER
    }

    fn mm() -> &'static KernelMm {
        SoftMachine::current().mm()
    }

    fn note_freed(first: Pfn, order: u8) {
        if let Some(machine) = processor::current().machine {
            machine.note_freed(first, order);
        }
    }
}

impl TaskMemory for Machine {
    unsafe fn copy_in(dst: *mut u8, src: VirtAddr, len: usize) -> usize {
        // SAFETY: the caller vouches for `dst`; it need not be initialised.
        let dst = unsafe { core::slice::from_raw_parts_mut(dst.cast::<MaybeUninit<u8>>(), len) };
        task_memory::load(dst, src, Mode::Supervisor)
    }

    unsafe fn copy_in_at_once(dst: *mut u8, src: VirtAddr, len: usize) -> usize {
        // SAFETY: the caller vouches for `dst`; it need not be initialised.
        let dst = unsafe { core::slice::from_raw_parts_mut(dst.cast::<MaybeUninit<u8>>(), len) };
        task_memory::load_at_once(dst, src, Mode::Supervisor)
    }

    unsafe fn copy_out(dst: VirtAddr, src: *const u8, len: usize) -> usize {
        // SAFETY: the caller vouches for `src`.
        let src = unsafe { core::slice::from_raw_parts(src, len) };
        task_memory::store(dst, src, Mode::Supervisor)
    }

    fn load_u64(src: VirtAddr) -> Option<u64> {
        task_memory::load_word(src, Mode::Supervisor)
    }

    fn store_u64(dst: VirtAddr, value: u64) -> bool {
        task_memory::store_word(dst, value, Mode::Supervisor)
    }

    fn load_u32(src: VirtAddr) -> Option<u32> {
        task_memory::load_half(src, Mode::Supervisor)
    }

    fn compare_exchange_u32(dst: VirtAddr, old: u32, new: u32) -> Option<u32> {
        task_memory::compare_exchange_half(dst, old, new, Mode::Supervisor)
    }
}
