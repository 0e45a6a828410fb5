//! The line between the generic kernel and the machine.
//!
//! The traits below are the whole contract. On bare metal [`Machine`] is `x86_64::Machine`; in host builds it is
//! `host::Machine`, a software machine on which the same kernel code is tested. Nothing outside this folder names a
//! CPU architecture.
#![expect(unsafe_code, reason = "the machine itself")]

use crate::mm::addr::{Pfn, PhysAddr, VirtAddr};
use crate::mm::range::VirtRange;

#[cfg(target_os = "none")]
pub mod x86_64;
#[cfg(target_os = "none")]
pub use x86_64::interrupt::GUEST_FAULT;
#[cfg(target_os = "none")]
pub use x86_64::user::{Extra, claim_fpu, run as run_user, user_capabilities};
#[cfg(target_os = "none")]
pub use x86_64::{Machine, hypercall};

#[cfg(not(target_os = "none"))]
pub mod host;
#[cfg(not(target_os = "none"))]
pub use host::Machine;
#[cfg(not(target_os = "none"))]
pub use host::user::{Extra, claim_fpu, run as run_user, user_capabilities};

/// Most CPUs that per-CPU tables are sized for.
pub const MAX_CPUS: usize = 16;

/// The CPU that runs this code.
pub trait Cpu {
    /// The per-CPU record of this CPU. Meaningful while preemption is off, or for a task pinned to its CPU.
    fn local() -> &'static crate::cpu::Local;
    /// Number of this CPU, `0..MAX_CPUS`.
    fn id() -> usize;
    /// Adds one level of "do not preempt".
    fn preempt_disable();
    /// Drops one level; when it was the last and a reschedule is due, the scheduler runs before this returns.
    fn preempt_enable();
    /// Levels of "do not preempt" in force; 0 means that the scheduler may run. Interrupt handlers run with at least 1.
    fn preempt_count() -> usize;
    /// Notes that the scheduler shall run on this CPU as soon as preemption and interrupts allow. The note is kept
    /// with the count, so that [`preempt_enable`](Self::preempt_enable) looks at both in one instruction; the way out
    /// of an interrupt looks at it too.
    fn request_reschedule();
    /// Takes the note back: the scheduler calls this when it runs. Says whether it was there.
    fn take_reschedule() -> bool;
    /// A hint that this is a busy-wait loop.
    fn relax();
    /// Enables interrupts and stops until one arrives, without a window in between.
    fn wait_for_interrupt();
}

/// Interrupts on this CPU.
pub trait Irq {
    /// Whether interrupts were enabled; what `restore` takes back.
    type Flags: Copy;
    /// Disables interrupts and says what was before.
    fn disable() -> Self::Flags;
    /// Restores what `disable` returned.
    fn restore(flags: Self::Flags);
    /// Whether interrupts were enabled when `disable` returned `flags`.
    fn were_enabled(flags: Self::Flags) -> bool;
    /// Whether interrupts are enabled.
    fn enabled() -> bool;
    /// Enables interrupts: the first thing a new task does.
    fn enable();
}

/// Translations of this CPU. Other CPUs are the business of [`crate::mm::space`].
pub trait Tlb {
    /// Drops what is cached for the page at `addr`.
    fn flush_page(addr: VirtAddr);
    /// Drops everything that is not global.
    fn flush_all();
    /// Makes `root` the page-table root of this CPU and drops what is not global.
    ///
    /// The caller keeps the tables alive until another root is loaded.
    fn load_root(root: Pfn);
    /// [`load_root`](Self::load_root) for the kernel's first root: drops everything that the loader's tables left
    /// behind, also what they called global.
    fn load_first_root(root: Pfn) {
        Self::load_root(root);
    }
    /// The current root.
    fn root() -> Pfn;
    /// Has the CPUs in `cpus` (bit n: CPU n, never the caller's) drop what they cached for `range`; returns when none of
    /// them can use it any more.
    ///
    /// # Panics
    /// A CPU is named and the machine has no way to reach it: only the boot CPU runs on bare metal at present.
    fn shoot_down(cpus: u32, range: VirtRange) {
        assert_eq!(cpus, 0, "no way to reach other CPUs for {range:?}");
    }
}

/// Time.
pub trait Clock {
    /// A counter that never goes back. Under QEMU's icount one tick is one guest instruction.
    fn ticks() -> u64;
    /// Ticks per second.
    fn frequency() -> u64;
}

/// Physical memory through the direct map.
pub trait Memory {
    /// Where the kernel sees physical address `addr`.
    fn direct_map(addr: PhysAddr) -> *mut u8;
    /// Copies a page.
    ///
    /// # Safety
    /// `src` is valid for reads and `dst` for writes of a page each, and they do not overlap.
    #[inline]
    unsafe fn copy_page(dst: *mut u8, src: *const u8) {
        // SAFETY: the caller's contract.
        unsafe { core::ptr::copy_nonoverlapping(src, dst, crate::mm::addr::PAGE_SIZE as usize) }
    }
    /// Fills a page with zero bytes.
    ///
    /// # Safety
    /// `page` is valid for writes of a page.
    #[inline]
    unsafe fn zero_page(page: *mut u8) {
        // SAFETY: the caller's contract.
        unsafe { core::ptr::write_bytes(page, 0, crate::mm::addr::PAGE_SIZE as usize) }
    }
    /// Largest level at which the CPU takes stage-1 leaves (1 GiB where it has them).
    fn max_leaf() -> crate::mm::pt::Level;
    /// The memory manager's state for this machine.
    fn mm() -> &'static crate::mm::kernel::KernelMm;
    /// The block of 2^`order` frames at `first` is about to go back to the allocator. The software machine checks that
    /// no CPU can still reach it; hardware has nothing to do.
    #[inline]
    fn note_freed(first: Pfn, order: u8) {
        let _ = (first, order);
    }
}

/// Stacks and switching between them.
pub trait Switch {
    /// Prepares the stack that ends below `top` (16-aligned) so that the first switch to the returned stack pointer
    /// calls `entry` on it, with what [`switch`](Self::switch) would have returned.
    ///
    /// # Safety
    /// `top` is the end of a writable stack of at least 256 bytes that nothing else uses.
    unsafe fn prepare(top: *mut u8, entry: extern "C" fn(left: *mut usize) -> !) -> usize;

    /// Saves the callee-saved registers and the stack pointer to `*save`, and continues on the stack pointer `load`.
    /// When somebody switches back, returns the `save` of that switch: it tells who was left.
    ///
    /// # Safety
    /// `load` came from `prepare` or from an earlier `switch` that saved it, its stack is alive, and no CPU runs on
    /// it. Interrupts are off on this CPU.
    unsafe fn switch(save: *mut usize, load: usize) -> *mut usize;

    /// What [`set_running`](Self::set_running) stored on this CPU. One instruction, so that a migration cannot come in
    /// between: the answer is right for the task that asks wherever it runs.
    fn running() -> *const crate::task::Task;

    /// Notes which task runs on this CPU. Interrupts are off.
    fn set_running(task: *const crate::task::Task);
}

/// Memory of the current task, reached with faults that end in an error instead of a panic.
///
/// An access may sleep: the page may be delegated to a monitor. No lock may be held. Why an access failed is in
/// [`crate::mm::fault::last_error`].
pub trait TaskMemory {
    /// Copies `len` bytes from task memory; returns how many were *not* copied.
    ///
    /// # Safety
    /// `dst` is valid for `len` bytes of writes.
    unsafe fn copy_in(dst: *mut u8, src: VirtAddr, len: usize) -> usize;

    /// [`copy_in`](Self::copy_in) of what can be read as the page tables stand: the first byte that faults ends it, and nobody is
    /// asked. Does not sleep; preemption is off.
    ///
    /// # Safety
    /// `dst` is valid for `len` bytes of writes.
    unsafe fn copy_in_at_once(dst: *mut u8, src: VirtAddr, len: usize) -> usize;

    /// Copies `len` bytes to task memory; returns how many were *not* copied.
    ///
    /// # Safety
    /// `src` is valid for `len` bytes of reads.
    unsafe fn copy_out(dst: VirtAddr, src: *const u8, len: usize) -> usize;

    /// Loads an aligned word with one instruction; `None` when the access failed.
    fn load_u64(src: VirtAddr) -> Option<u64>;

    /// Stores an aligned word with one instruction; `false` when the access failed.
    fn store_u64(dst: VirtAddr, value: u64) -> bool;

    /// Loads four aligned bytes with one instruction; `None` when the access failed.
    fn load_u32(src: VirtAddr) -> Option<u32>;

    /// Stores `new` to four aligned bytes if they are `old`, in one step; what was there, or `None` when the access failed.
    /// A store's faults are raised in either case.
    fn compare_exchange_u32(dst: VirtAddr, old: u32, new: u32) -> Option<u32>;
}

#[cfg(any(test, target_os = "none"))]
mod fault_code;
mod stage1;
pub mod user;
pub use stage1::Stage1;

/// Largest level at which stage-1 tables of this machine may have leaves.
pub fn max_leaf() -> crate::mm::pt::Level {
    <Machine as Memory>::max_leaf()
}
