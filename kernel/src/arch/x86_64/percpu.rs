//! The block that GS points to on each CPU.
//!
//! Everything in it is reached by a single GS-relative instruction, so that neither an interrupt nor (once there are
//! several CPUs) a migration can come in between. The preemption word holds the count in its low bits and, inverted,
//! the note that a reschedule is due in its top bit: the word is zero exactly when the scheduler must run, and
//! `preempt_enable` is one decrement and one branch.
#![expect(unsafe_code, reason = "GS-relative accesses and the GS base register")]

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use super::Machine;
use crate::arch::user::Registers;
use crate::arch::{Cpu, Irq};
use crate::cpu::{self, Local};
use crate::task::Task;

/// Set in the preemption word while *no* reschedule is due.
const NOT_DUE: u32 = 1 << 31;
/// The word at the start: preemption is disabled once, until `kernel_main` enables it. So a page
/// fault before that is fatal instead of asking for a running task.
const AT_START: u32 = NOT_DUE | 1;

/// What GS points to.
#[repr(C)]
#[derive(Debug)]
struct Block {
    local: AtomicPtr<Local>,
    preempt: AtomicU32,
    id: AtomicU32,
    running: AtomicPtr<Task>,
    // The rest is user/entry.s's.
    /// Where `user_run` goes on when user mode is left.
    kernel_stack: AtomicU64,
    /// The end of the registers of the task whose user mode runs.
    registers_end: AtomicU64,
    /// User mode's stack pointer, for a moment.
    user_stack_pointer: AtomicU64,
    /// Where the CPU looks for the stack on which interrupts of user mode come in (TSS.RSP0).
    entry_stack: AtomicU64,
    /// What the CPU's registers of user mode hold ([`loaded`]).
    loaded: AtomicU64,
}

/// Offsets in the block, for entry code.
pub(super) const KERNEL_STACK: usize = offset_of!(Block, kernel_stack);
pub(super) const REGISTERS_END: usize = offset_of!(Block, registers_end);
pub(super) const USER_STACK_POINTER: usize = offset_of!(Block, user_stack_pointer);
pub(super) const ENTRY_STACK: usize = offset_of!(Block, entry_stack);

impl Block {
    const fn new() -> Self {
        Self {
            local: AtomicPtr::new(ptr::null_mut()),
            preempt: AtomicU32::new(AT_START),
            id: AtomicU32::new(0),
            running: AtomicPtr::new(ptr::null_mut()),
            kernel_stack: AtomicU64::new(0),
            registers_end: AtomicU64::new(0),
            user_stack_pointer: AtomicU64::new(0),
            entry_stack: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
        }
    }
}

static BOOT_BLOCK: Block = Block::new();

/// Points GS to the boot CPU's block.
pub fn init_boot_cpu() {
    BOOT_BLOCK
        .local
        .store(ptr::from_ref(cpu::of(0)).cast_mut(), Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(&raw const BOOT_BLOCK));
    // What SWAPGS brings in while user mode runs; user mode starts with 0.
    KernelGsBase::write(VirtAddr::zero());
}

/// Tells this CPU's entry code where the TSS has the stack for entries from user mode.
pub(super) fn set_entry_stack(field: *mut u64) {
    BOOT_BLOCK
        .entry_stack
        .store(field.expose_provenance() as u64, Ordering::Relaxed);
}

/// Has system calls of user mode come in on the kernel's stack at `kernel_stack`, and its registers saved below
/// `registers_end`, as entry code does when it goes there (user/entry.s). Interrupts are off.
pub(super) fn set_user_stacks(kernel_stack: u64, registers_end: *const Registers) {
    let end = registers_end.expose_provenance() as u64;
    // SAFETY: GS points to this CPU's block, whose ENTRY_STACK points to the field of the TSS (`set_entry_stack`).
    unsafe {
        asm!("mov gs:[{kernel}], {0}", "mov gs:[{registers}], {1}", "mov {0}, gs:[{entry}]", "mov [{0}], {1}",
             inout(reg) kernel_stack => _, in(reg) end, kernel = const KERNEL_STACK,
             registers = const REGISTERS_END, entry = const ENTRY_STACK, options(nostack, preserves_flags));
    }
}

/// What this CPU's registers of user mode hold (see [`super::user::Extra`]); 0 at first. Preemption is off for as long as the
/// answer is used.
#[inline]
pub(super) fn loaded() -> u64 {
    let loaded: u64;
    // SAFETY: GS points to this CPU's block (`init_boot_cpu`).
    unsafe {
        asm!("mov {0}, gs:[{1}]", out(reg) loaded, const offset_of!(Block, loaded),
             options(nostack, preserves_flags, readonly));
    }
    loaded
}

/// Notes what this CPU's registers of user mode hold from now on. Preemption is off.
#[inline]
pub(super) fn set_loaded(loaded: u64) {
    // SAFETY: GS points to this CPU's block.
    unsafe {
        asm!("mov gs:[{1}], {0}", in(reg) loaded, const offset_of!(Block, loaded),
             options(nostack, preserves_flags));
    }
}

/// Runs the scheduler if it is due and nothing forbids it. Out of line: almost never taken.
#[cold]
#[inline(never)]
fn preempt_now() {
    // With interrupts off the caller is in a section that must not be left; the note stays and is found by whoever
    // enables interrupts next, at the latest on the way out of the next tick.
    if Machine::enabled() {
        crate::task::preempt();
    }
}

/// Whether the scheduler is due and preemption is on: the whole word is zero.
#[inline]
pub(super) fn reschedule_is_due() -> bool {
    word() == 0
}

#[inline]
fn word() -> u32 {
    let word: u32;
    // SAFETY: GS points to this CPU's block (`init_boot_cpu`), which lives for ever.
    unsafe {
        asm!("mov {0:e}, gs:[{1}]", out(reg) word, const offset_of!(Block, preempt),
             options(nostack, preserves_flags, readonly));
    }
    word
}

/// The task that runs on this CPU; null before there are tasks.
#[inline]
pub(super) fn running() -> *const Task {
    let task: *const Task;
    // SAFETY: GS points to this CPU's block.
    unsafe {
        asm!("mov {0}, gs:[{1}]", out(reg) task, const offset_of!(Block, running),
             options(nostack, preserves_flags, pure, readonly));
    }
    task
}

/// Notes which task runs on this CPU.
#[inline]
pub(super) fn set_running(task: *const Task) {
    // SAFETY: GS points to this CPU's block.
    unsafe {
        asm!("mov gs:[{1}], {0}", in(reg) task, const offset_of!(Block, running),
             options(nostack, preserves_flags));
    }
}

impl Cpu for Machine {
    #[inline]
    fn local() -> &'static Local {
        let local: *const Local;
        // SAFETY: GS points to this CPU's block; its first word points to a static and never changes.
        unsafe {
            asm!("mov {0}, gs:[{1}]", out(reg) local, const offset_of!(Block, local),
                 options(nostack, preserves_flags, readonly));
            &*local
        }
    }

    #[inline]
    fn id() -> usize {
        let id: u32;
        // SAFETY: GS points to this CPU's block.
        unsafe {
            asm!("mov {0:e}, gs:[{1}]", out(reg) id, const offset_of!(Block, id),
                 options(nostack, preserves_flags, readonly));
        }
        id as usize
    }

    #[inline]
    fn preempt_disable() {
        // SAFETY: GS points to this CPU's block. Not `nomem`: accesses to protected data stay behind it.
        unsafe { asm!("inc dword ptr gs:[{0}]", const offset_of!(Block, preempt), options(nostack)) };
    }

    #[inline]
    fn preempt_enable() {
        // SAFETY: GS points to this CPU's block. Not `nomem`: accesses to protected data stay before it.
        unsafe {
            asm!("dec dword ptr gs:[{0}]", "jz {1}", const offset_of!(Block, preempt), label { preempt_now() },
                 options(nostack));
        }
    }

    #[inline]
    fn preempt_count() -> usize {
        (word() & !NOT_DUE) as usize
    }

    #[inline]
    fn request_reschedule() {
        // SAFETY: GS points to this CPU's block; only the top bit changes.
        unsafe {
            asm!("and dword ptr gs:[{0}], {1}", const offset_of!(Block, preempt), const !NOT_DUE as i32,
                 options(nostack));
        }
    }

    #[inline]
    fn take_reschedule() -> bool {
        let was_due = word() & NOT_DUE == 0;
        // SAFETY: GS points to this CPU's block; only the top bit changes.
        unsafe {
            asm!("or dword ptr gs:[{0}], {1}", const offset_of!(Block, preempt), const NOT_DUE as i32,
                 options(nostack));
        }
        was_due
    }

    #[inline]
    fn relax() {
        core::hint::spin_loop();
    }

    #[inline]
    fn wait_for_interrupt() {
        // STI takes effect after the instruction that follows it, so no interrupt is lost between the two.
        x86_64::instructions::interrupts::enable_and_hlt();
    }
}
