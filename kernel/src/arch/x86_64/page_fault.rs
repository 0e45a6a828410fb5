//! The page fault.
//!
//! Entry code has saved what Rust may change and nothing more; the way through here to
//! [`mm::fault::handle`](crate::mm::fault::handle) and back is short because every delegated fault pays for it.
//!
//! A fault may sleep, so it is handed to the memory manager only where sleeping is allowed: on an address of the task
//! half, with preemption on (no lock held, no interrupt being handled) and interrupts enabled. Any other fault is
//! fatal, unless the instruction has a fixup: on that half, one for an access that is made at once or not at all.
#![expect(
    unsafe_code,
    reason = "CR2, interrupt flag, called from entry code by symbol name"
)]

use core::arch::asm;
use core::fmt;

use super::frame::{Frame, interrupts_enabled};
use super::{Machine, task_memory};
use crate::arch::Cpu;
use crate::arch::fault_code::PageFaultCode;
use crate::arch::user::Registers;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::fault::{self, FaultInfo};

/// Called by `page_fault_entry` in entry.s with interrupts off; returns whether the interrupted code can go on.
#[unsafe(no_mangle)]
extern "C" fn page_fault(frame: &mut Frame) -> bool {
    let addr = cr2();
    let code = PageFaultCode::from_bits_retain(frame.error);
    if !may_sleep(frame, addr) {
        // Task memory reached where nobody may sleep (a lock is held) is the kernel's mistake, whatever the instruction's
        // fixup would make of it, unless it is tried on purpose. Other addresses always are.
        return if addr < USER_TOP {
            give_up(frame)
        } else {
            refuse(frame, addr)
        };
    }
    if code.contains(PageFaultCode::RESERVED) {
        return refuse(frame, addr);
    }
    // Those of user mode end its turn instead (`user::run`).
    let info = FaultInfo::reported(addr, code.access(), false);
    // SAFETY: they were enabled when the fault came; CR2 has been read.
    unsafe { asm!("sti", options(nostack, preserves_flags)) };
    let resolved = fault::handle(&info).is_ok();
    // SAFETY: the way out of an exception runs with interrupts off.
    unsafe { asm!("cli", options(nostack, preserves_flags)) };
    resolved || refuse(frame, addr)
}

/// Whether a fault here can be handed to the memory manager.
#[inline]
fn may_sleep(frame: &Frame, addr: VirtAddr) -> bool {
    addr < USER_TOP && interrupts_enabled(frame.rflags) && Machine::preempt_count() == 0
}

/// An access where nobody may sleep: goes on at the instruction's fixup if it is one that is made at once or not at all.
fn give_up(frame: &mut Frame) -> bool {
    let resume = task_memory::resume_at_once(frame.rip);
    frame.rip = resume.unwrap_or(frame.rip);
    resume.is_some()
}

/// An access that cannot be made: goes on at the instruction's fixup, or does not go on. In the latter case CR2 is
/// restored for the report, since other faults may have come in between.
#[cold]
#[inline(never)]
fn refuse(frame: &mut Frame, addr: VirtAddr) -> bool {
    if let Some(resume) = task_memory::resume_after(frame.rip) {
        frame.rip = resume;
        return true;
    }
    set_cr2(addr);
    false
}

/// Has [`cr2`] say `addr` again, after faults that came in between.
pub(super) fn set_cr2(addr: VirtAddr) {
    // SAFETY: CR2 has no effect; it is read for reports.
    unsafe { asm!("mov cr2, {}", in(reg) addr.as_u64(), options(nomem, nostack, preserves_flags)) };
}

#[inline]
pub(super) fn cr2() -> VirtAddr {
    let addr: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) addr, options(nomem, nostack, preserves_flags)) };
    VirtAddr::new(addr)
}

/// Why a fault was fatal, for the report.
#[derive(Debug)]
pub struct Explanation<'a>(pub &'a Registers);

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frame, addr) = (self.0, cr2());
        write!(
            f,
            "{} at address {addr}",
            PageFaultCode::from_bits_retain(frame.error)
        )?;
        if addr.as_u64() < 4096 {
            return f.write_str(", a null pointer");
        }
        if addr >= USER_TOP {
            return Ok(());
        }
        if Machine::preempt_count() != 0 {
            return f
                .write_str(", touched while preemption is off (a lock is held or an interrupt is handled)");
        }
        if !interrupts_enabled(frame.rflags) {
            return f.write_str(", touched while interrupts are off");
        }
        match fault::last_error() {
            Some((at, why)) if at.align_down(4096) == addr.align_down(4096) => write!(f, ": {why}"),
            _ => Ok(()),
        }
    }
}
