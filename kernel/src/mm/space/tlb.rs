//! Which CPUs may hold translations of a space, and how they drop them.
//!
//! A CPU holds translations of the space whose root it has loaded; loading another root drops them (no PCIDs). Only the
//! boot CPU runs tasks at present, so on bare metal the set of other CPUs to be told is always empty, which the machine
//! asserts; on the software machine every task has a CPU of its own and is told.

use core::sync::atomic::Ordering;

use super::Space;
use crate::arch::{Cpu, Irq, Machine, Tlb};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::kernel;
use crate::mm::pt::Invalidator;
use crate::mm::range::VirtRange;

/// From this many pages on, dropping everything is cheaper than dropping page by page (Linux's default
/// `tlb_single_page_flush_ceiling`).
const FLUSH_ALL_FROM: u64 = 33;

impl Space {
    /// Makes this the space of this CPU. Interrupts are off, and the caller keeps the space alive until another one is
    /// loaded.
    #[inline]
    pub fn activate(&self) {
        if Machine::root() == self.root {
            return;
        }
        let cpu = 1 << Machine::id();
        self.loaded_on.fetch_or(cpu, Ordering::AcqRel);
        Machine::load_root(self.root);
    }

    /// Notes that this CPU has loaded another root.
    pub fn deactivate(&self) {
        self.loaded_on.fetch_and(!(1 << Machine::id()), Ordering::AcqRel);
    }

    /// Loads the kernel's own root if this space's is loaded on this CPU.
    pub fn unload_here(&self) {
        let flags = Machine::disable();
        if Machine::root() == self.root {
            Machine::load_root(kernel::get().root());
        }
        self.deactivate();
        Machine::restore(flags);
    }
}

impl Invalidator<VirtAddr> for Space {
    fn invalidate(&self, range: VirtRange, pages: u64) {
        Machine::preempt_disable();
        let me = 1 << Machine::id();
        let loaded_on = self.loaded_on.load(Ordering::Acquire);
        Machine::shoot_down(loaded_on & !me, range);
        if loaded_on & me != 0 {
            flush_local(range, pages);
        }
        Machine::preempt_enable();
        self.secondary.take_away(range);
    }
}

/// Drops this CPU's translations of `range`, of which `pages` entries changed.
pub(in crate::mm) fn flush_local(range: VirtRange, pages: u64) {
    if pages >= FLUSH_ALL_FROM || range.pages() >= FLUSH_ALL_FROM {
        Machine::flush_all();
        return;
    }
    let mut page = range.start;
    while page < range.end {
        Machine::flush_page(page);
        page = page + PAGE_SIZE;
    }
}
