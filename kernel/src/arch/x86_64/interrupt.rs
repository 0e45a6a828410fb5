//! Interrupts, and preemption on the way out of them.
//!
//! | vector | from |
//! | --- | --- |
//! | 0x20-0x2f | the legacy controller; masked, so only its spurious 0x27 and 0x2f can come |
//! | [`TIMER`] | the local APIC's timer, or the hypervisor's |
//! | [`STANDARD_INPUT`] | COM2, through the I/O APIC |
//! | [`GUEST_FAULT`] | our own hypervisor: delegated memory was touched |
//! | [`APIC_ERROR`] | the local APIC found an error |
//! | [`SPURIOUS`] | the local APIC had nothing to deliver after all |
//!
//! A handler runs with interrupts off and preemption disabled, except that of [`GUEST_FAULT`], which is the interrupted task's
//! own ([`super::guest_fault`]).
#![expect(unsafe_code, reason = "called from entry code by symbol name")]

use core::sync::atomic::{AtomicU64, Ordering};

use super::frame::Frame;
use super::{Machine, guest_fault, percpu, pic, timer};
use crate::arch::Cpu;

/// The tick.
pub const TIMER: u8 = 0x40;
/// Bytes have come on COM2.
pub const STANDARD_INPUT: u8 = 0x41;
/// A guest's monitor is told of a fault.
pub const GUEST_FAULT: u8 = 0x50;
/// The local APIC's error interrupt.
pub const APIC_ERROR: u8 = 0xfe;
/// The local APIC's spurious interrupt; its low four bits are 1 as older APICs demand (SDM vol. 3A 12.9).
pub const SPURIOUS: u8 = 0xff;

static UNEXPECTED: AtomicU64 = AtomicU64::new(0);

/// Interrupts that came on a vector nobody serves.
pub fn unexpected() -> u64 {
    UNEXPECTED.load(Ordering::Relaxed)
}

/// Called by `interrupt_entry` in entry.s with interrupts off.
#[unsafe(no_mangle)]
extern "C" fn interrupt(frame: &Frame) {
    if frame.vector as u8 == GUEST_FAULT && guest_fault::injected(frame.rflags) {
        return;
    }
    of_task(frame.vector as u8);
}

/// Serves an interrupt of a task that can be left here: of user mode, or of the kernel with interrupts on. Interrupts are off.
pub(super) fn of_task(vector: u8) {
    Machine::preempt_disable();
    serve(vector);
    Machine::preempt_enable();
    // Interrupts are off, so the line above has left a due reschedule alone. Whatever was interrupted had interrupts
    // on; with preemption on as well it can be left here as well as anywhere.
    if percpu::reschedule_is_due() {
        crate::task::preempt();
    }
}

fn serve(vector: u8) {
    match vector {
        TIMER => {
            timer::end_of_interrupt();
            crate::trace::deadline::check();
            crate::task::on_tick();
        }
        STANDARD_INPUT => {
            timer::end_of_interrupt();
            crate::drivers::stdio::on_interrupt();
        }
        SPURIOUS => {}
        vector if pic::owns(vector) => pic::acknowledge_spurious(vector),
        _ => {
            timer::end_of_interrupt();
            if UNEXPECTED.fetch_add(1, Ordering::Relaxed) == 0 {
                log::warn!(
                    "interrupt on vector {vector:#x}, which nobody serves; further ones are only counted"
                );
            }
        }
    }
}
