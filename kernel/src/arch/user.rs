//! User mode's registers, as the kernel keeps them while user mode does not run. Data only; the machine runs them
//! (`x86_64::user` on bare metal).

/// The general registers, the flags and where to go on. The order is that in which entry code pushes them.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "named after the registers")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// Why user mode was left: an exception, an interrupt, or [`SYSCALL`]. Also how it is entered: after a system call by
    /// SYSRET, which changes RCX and R11; else by IRET, which changes nothing.
    pub vector: u64,
    /// The exception's error code; 0 where there is none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Registers>() == 176);

/// [`Registers::vector`] of a system call.
pub const SYSCALL: u64 = 256;
/// User mode's code segment, with its privilege level.
pub const USER_CODE: u64 = 0x23;
/// User mode's stack segment.
pub const USER_STACK: u64 = 0x1b;

/// RFLAGS that user mode may set: CF PF AF ZF SF TF DF OF RF NT AC ID.
pub const USER_FLAGS: u64 = 0x0025_4dd5 | 1 << 14 | 1 << 18 | 1 << 21;
/// RFLAGS that are always set in user mode: the reserved bit 1, and interrupts.
pub const FIXED_FLAGS: u64 = 1 << 1 | 1 << 9;

impl Registers {
    /// A program's first: everything 0 but where it begins and its stack.
    pub fn start(rip: u64, rsp: u64) -> Self {
        Self {
            rip,
            rsp,
            cs: USER_CODE,
            ss: USER_STACK,
            rflags: FIXED_FLAGS,
            ..Self::default()
        }
    }

    /// Has user mode entered with every register as it stands here; called by whoever changes more than the result of a
    /// system call. What the CPU would not take is put right, but for `rip`, which has to be an address of user mode.
    pub fn restore_all(&mut self) {
        self.vector = 0;
        self.cs = USER_CODE;
        self.ss = USER_STACK;
        self.rflags = self.rflags & USER_FLAGS | FIXED_FLAGS;
    }
}

/// Why user mode was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// SYSCALL was executed. The number is in RAX, the arguments in RDI, RSI, RDX, R10, R8 and R9.
    Syscall,
    /// A page fault.
    PageFault(crate::mm::fault::FaultInfo),
    /// Another exception.
    Exception {
        /// Which.
        vector: u8,
        /// Its error code; 0 where there is none.
        error: u64,
    },
    /// An interrupt came in between. It has been served.
    Interrupt,
}

/// The x87, SSE and AVX registers of user mode, as they are saved.
#[derive(Clone, Copy, Debug)]
pub struct FpuArea<'a> {
    /// What XSAVE writes in its standard format, or FXSAVE.
    pub bytes: &'a [u8],
    /// The components in it, as in XCR0; 0: FXSAVE alone.
    pub components: u64,
}
