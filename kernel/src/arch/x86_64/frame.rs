//! Registers as the entry code (entry.s) leaves them on the stack: all of them ([`Registers`]), or only those from RAX on
//! ([`Frame`]).

use core::fmt;
use core::mem::offset_of;

use crate::arch::user::Registers;

/// What page faults and interrupts leave, which pay for every register that is saved: [`Registers`] without those that Rust
/// code preserves by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named after the registers")]
pub struct Frame {
    /// The registers that Rust code may change, from RAX to R11.
    pub scratch: [u64; 9],
    /// Number of the exception or interrupt.
    pub vector: u64,
    /// The exception's error code; 0 where there is none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

// Entry code calls with the stack 16-aligned, and so is either: the CPU aligns it before it pushes `ss`.
const _: () = {
    let skipped = offset_of!(Registers, rax);
    assert!(size_of::<Frame>() == 128 && size_of::<Frame>() + skipped == size_of::<Registers>());
    assert!(offset_of!(Frame, vector) + skipped == offset_of!(Registers, vector));
    assert!(offset_of!(Frame, ss) + skipped == offset_of!(Registers, ss));
};

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// Whether interrupts were enabled with these flags.
#[inline]
pub fn interrupts_enabled(rflags: u64) -> bool {
    rflags & INTERRUPTS != 0
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, cells: [(&str, u64); 4]| {
            for (name, value) in cells {
                write!(f, "  {name:>3} {value:016x}")?;
            }
            writeln!(f)
        };
        row(
            f,
            [
                ("rax", self.rax),
                ("rbx", self.rbx),
                ("rcx", self.rcx),
                ("rdx", self.rdx),
            ],
        )?;
        row(
            f,
            [
                ("rsi", self.rsi),
                ("rdi", self.rdi),
                ("rbp", self.rbp),
                ("rsp", self.rsp),
            ],
        )?;
        row(
            f,
            [
                ("r8", self.r8),
                ("r9", self.r9),
                ("r10", self.r10),
                ("r11", self.r11),
            ],
        )?;
        row(
            f,
            [
                ("r12", self.r12),
                ("r13", self.r13),
                ("r14", self.r14),
                ("r15", self.r15),
            ],
        )?;
        writeln!(
            f,
            "  rip {:016x}  cs {:#x}  ss {:#x}  rflags {:#x}",
            self.rip, self.cs, self.ss, self.rflags
        )
    }
}
