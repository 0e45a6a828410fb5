//! Faults on delegated memory of a guest, as they come in: an injected vector, or #VE.
//!
//! Like a page fault ([`super::page_fault`]), such a fault is the interrupted task's own and may sleep on its stack, where the
//! task may: with interrupts on and preemption on. Elsewhere it is left to the machine's owner.
#![expect(unsafe_code, reason = "interrupt flag")]

use core::arch::asm;

use super::frame::interrupts_enabled;
use super::{Machine, percpu};
use crate::abi::guest::RingEntry;
use crate::arch::Cpu;
use crate::guest::monitor::{self, Monitor, Violated};

/// The vector of [`GUEST_FAULT`](super::interrupt::GUEST_FAULT) has come, right in front of an instruction that touches an
/// absent page with these flags. Interrupts are off. False when nobody has asked for it.
pub(super) fn injected(rflags: u64) -> bool {
    let Some(monitor) = monitor::current() else {
        return false;
    };
    if let Some(entry) = monitor.injected() {
        wait(rflags, monitor, entry);
    }
    if percpu::reschedule_is_due() {
        crate::task::preempt();
    }
    true
}

/// #VE at an instruction with these flags. Interrupts are off. False when nobody has asked for it.
pub(super) fn violated(rflags: u64) -> bool {
    let Some(monitor) = monitor::current() else {
        return false;
    };
    match monitor.violated() {
        None => return false,
        Some(Violated::InOtherView) => {}
        Some(Violated::Fault(entry)) => wait(rflags, monitor, entry),
    }
    true
}

fn wait(rflags: u64, monitor: &Monitor, entry: RingEntry) {
    if !interrupts_enabled(rflags) || Machine::preempt_count() != 0 {
        return monitor.leave_to_owner(entry);
    }
    // SAFETY: they were enabled when the access was made, and what tells of it has been read.
    unsafe { asm!("sti", options(nostack, preserves_flags)) };
    monitor.fault(entry);
    // SAFETY: the way out of an exception runs with interrupts off.
    unsafe { asm!("cli", options(nostack, preserves_flags)) };
}
