//! Every exception: its name, what its error code says, and the report of one that cannot be survived.
//!
//! The kernel survives three: a page fault that the memory manager resolves ([`super::page_fault`]), an impossible
//! access of task memory at an instruction that has a fixup, and a violation of stage 2 that a guest's own monitor resolves
//! ([`super::guest_fault`]). Everything else is a bug or broken hardware and ends in
//! [`trace::panic`](crate::trace::panic) with the registers at that moment.
#![expect(unsafe_code, reason = "called from entry code by symbol name")]

use core::fmt;

use x86_64::registers::control::{Cr2, Cr3, Cr4};

use super::{guest_fault, page_fault, task_memory, unwind};
use crate::arch::fault_code::{PageFaultCode, SelectorCode};
use crate::arch::user::Registers;
use crate::trace::panic::{self, Fatal};

/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Single step.
pub const DEBUG: u8 = 1;
/// INT3.
pub const BREAKPOINT: u8 = 3;
/// INTO.
pub const OVERFLOW: u8 = 4;
/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// General protection fault.
pub const GENERAL_PROTECTION: u8 = 13;
/// Page fault.
pub const PAGE_FAULT: u8 = 14;
/// Machine check.
pub const MACHINE_CHECK: u8 = 18;
/// Stage 2 does not allow an access of the guest that this is.
pub const VIRTUALIZATION: u8 = 20;

/// Names of the exceptions (SDM vol. 3A table 7-1, APM vol. 2 table 8-1).
const NAMES: [(&str, &str); 32] = [
    ("#DE", "division error"),
    ("#DB", "debug exception"),
    ("NMI", "non-maskable interrupt"),
    ("#BP", "breakpoint"),
    ("#OF", "overflow"),
    ("#BR", "bound range exceeded"),
    ("#UD", "invalid opcode"),
    ("#NM", "device not available"),
    ("#DF", "double fault"),
    ("9", "coprocessor segment overrun"),
    ("#TS", "invalid TSS"),
    ("#NP", "segment not present"),
    ("#SS", "stack fault"),
    ("#GP", "general protection fault"),
    ("#PF", "page fault"),
    ("15", "reserved exception"),
    ("#MF", "x87 floating-point error"),
    ("#AC", "alignment check"),
    ("#MC", "machine check"),
    ("#XM", "SIMD floating-point error"),
    ("#VE", "virtualisation exception"),
    ("#CP", "control protection exception"),
    ("22", "reserved exception"),
    ("23", "reserved exception"),
    ("24", "reserved exception"),
    ("25", "reserved exception"),
    ("26", "reserved exception"),
    ("27", "reserved exception"),
    ("#HV", "hypervisor injection exception"),
    ("#VC", "VMM communication exception"),
    ("#SX", "security exception"),
    ("31", "reserved exception"),
];

/// Called by `trap` and `fatal` in entry.s; returns when the interrupted code can go on.
#[unsafe(no_mangle)]
extern "C" fn exception(frame: &mut Registers) {
    let general_protection = u64::from(GENERAL_PROTECTION);
    if frame.vector == general_protection
        && let Some(resume) = task_memory::resume_after(frame.rip)
    {
        frame.rip = resume;
        return;
    }
    if frame.vector as u8 == VIRTUALIZATION && guest_fault::violated(frame.rflags) {
        return;
    }
    die(frame)
}

fn die(frame: &Registers) -> ! {
    panic::fatal(&Fatal {
        message: format_args!("{}", Description(frame)),
        registers: &State(frame),
        pc: frame.rip,
        caller: jumped_from(frame),
        frame_pointer: frame.rbp,
    })
}

/// After a call of something that is no code, the top of the stack says who called; there is no frame of its own.
fn jumped_from(frame: &Registers) -> Option<u64> {
    let is_fetch = frame.vector as u8 == PAGE_FAULT && Cr2::read_raw() == frame.rip;
    is_fetch.then(|| unwind::read(frame.rsp)).flatten()
}

/// What happened, in one line.
struct Description<'a>(&'a Registers);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let (short, name) = NAMES
            .get(frame.vector as usize)
            .copied()
            .unwrap_or(("?", "unknown exception"));
        if frame.vector as u8 == DOUBLE_FAULT && overflowed(frame.rsp) {
            return write!(
                f,
                "kernel stack overflow: stack pointer {:#x} is in a guard page ({short})",
                frame.rsp
            );
        }
        write!(f, "{name} ({short})")?;
        match frame.vector as u8 {
            PAGE_FAULT => write!(f, ": {}", page_fault::Explanation(frame))?,
            10..=13 => write!(f, ": {}", SelectorCode(frame.error))?,
            17 | 21 | 29 | 30 => write!(f, ": error code {:#x}", frame.error)?,
            _ => {}
        }
        let mode = match frame.cs & 3 {
            0 => "the kernel",
            _ => "user mode",
        };
        write!(f, ", in {mode} at {:#x}", frame.rip)
    }
}

/// Whether a double fault came from pushing onto a full stack: the address whose access failed (CR2) is where the
/// next push would have gone. Local variables can be larger than a push, hence the allowance.
fn overflowed(rsp: u64) -> bool {
    const ALLOWANCE: u64 = 4 * 4096;
    Cr2::read_raw().abs_diff(rsp) < ALLOWANCE
}

/// Every register, those of the fault included, for the text console.
struct State<'a>(&'a Registers);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let (root, flags) = Cr3::read_raw();
        let cr3 = root.start_address().as_u64() | u64::from(flags);
        write!(
            f,
            "  cr2 {:016x}  cr3 {cr3:#x}  cr4 {:#x}",
            Cr2::read_raw(),
            Cr4::read_raw()
        )?;
        let frame = self.0;
        write!(f, "  error code {:#x}", frame.error)?;
        if frame.vector as u8 == PAGE_FAULT {
            write!(f, " ({})", PageFaultCode::from_bits_retain(frame.error))?;
        }
        writeln!(f)
    }
}
