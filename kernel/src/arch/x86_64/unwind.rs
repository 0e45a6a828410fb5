//! What a backtrace needs from the machine.
#![expect(
    unsafe_code,
    reason = "reads the frame pointer, and memory that may not be there"
)]

use core::arch::asm;
use core::mem::offset_of;

use super::frame::Frame;
use crate::arch::user::Registers;

/// First address of the kernel half.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

unsafe extern "C" {
    static page_fault_returns: u8;
    static interrupt_returns: u8;
    static exception_returns: u8;
}

/// The frame pointer of the caller.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let fp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) fp, options(nomem, nostack, preserves_flags)) };
    fp
}

/// The word at `addr` in the kernel half; `None` when nothing is mapped there.
pub fn read(addr: u64) -> Option<u64> {
    if addr < KERNEL_HALF || !addr.is_multiple_of(8) {
        return None;
    }
    let (value, done): (u64, u64);
    // SAFETY: an aligned read that changes nothing; where nothing is mapped it resumes at label 3 with `done` 0.
    unsafe {
        asm!(
            "2: mov {value}, [{addr}]",
            "mov {done:e}, 1",
            "3:",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 3b, {when}",
            ".popsection",
            when = const super::task_memory::ASKING,
            addr = in(reg) addr,
            value = inout(reg) 0u64 => value,
            done = inout(reg) 0u64 => done,
            options(nostack, readonly, preserves_flags),
        );
    }
    (done != 0).then_some(value)
}

/// When `address` is where entry code goes on after its call into Rust, the address it interrupted; `above` is the
/// address just above the return address, which is where the saved registers begin.
pub fn interrupted(address: u64, above: u64) -> Option<u64> {
    let at = |symbol: *const u8| symbol.addr() as u64 == address;
    let offset = if at(&raw const page_fault_returns) || at(&raw const interrupt_returns) {
        offset_of!(Frame, rip)
    } else if at(&raw const exception_returns) {
        offset_of!(Registers, rip)
    } else {
        return None;
    };
    read(above + offset as u64)
}
