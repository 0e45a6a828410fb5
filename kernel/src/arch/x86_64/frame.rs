//! Registers as the entry code (entry.s) leaves them on the stack.

use core::fmt;

/// What every entry leaves: the registers that Rust code may change, and what the CPU pushed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named after the registers")]
pub struct Frame {
    pub rax: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r10: u64,
    pub r8: u64,
    pub r9: u64,
    pub rcx: u64,
    pub r11: u64,
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

/// All registers: what exceptions other than the ordinary page fault leave.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named after the registers")]
pub struct FullFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rest: Frame,
}

// Entry code calls with the stack 16-aligned: the CPU aligns it before it pushes `ss`.
const _: () = assert!(size_of::<Frame>() == 128 && size_of::<FullFrame>() == 176);

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

impl Frame {
    /// Whether user mode was interrupted.
    #[inline]
    pub fn from_user(&self) -> bool {
        self.cs & 3 != 0
    }

    /// Whether interrupts were enabled.
    #[inline]
    pub fn interrupts_enabled(&self) -> bool {
        self.rflags & INTERRUPTS != 0
    }
}

impl fmt::Display for FullFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.rest;
        let row = |f: &mut fmt::Formatter<'_>, cells: [(&str, u64); 4]| {
            for (name, value) in cells {
                write!(f, "  {name:>3} {value:016x}")?;
            }
            writeln!(f)
        };
        row(
            f,
            [("rax", r.rax), ("rbx", self.rbx), ("rcx", r.rcx), ("rdx", r.rdx)],
        )?;
        row(
            f,
            [("rsi", r.rsi), ("rdi", r.rdi), ("rbp", self.rbp), ("rsp", r.rsp)],
        )?;
        row(f, [("r8", r.r8), ("r9", r.r9), ("r10", r.r10), ("r11", r.r11)])?;
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
            r.rip, r.cs, r.ss, r.rflags
        )
    }
}
