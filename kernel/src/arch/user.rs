//! User mode's registers, as the kernel keeps them while user mode does not run. Data only; the machine runs them
//! (`x86_64::user` on bare metal).

/// The general registers, the flags and where to go on. The order is that in which entry code pushes them, whoever was
/// interrupted: an exception in the kernel leaves the same, which user mode is never entered with.
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
    pub rax: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r10: u64,
    pub r8: u64,
    pub r9: u64,
    pub rcx: u64,
    pub r11: u64,
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

/// A system call as user mode makes it. Stands in [`Registers`] as it is here, from RAX on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Request {
    /// The one that is in these registers.
    #[inline]
    pub fn of(registers: &Registers) -> Self {
        Self {
            number: registers.rax,
            args: [
                registers.rdi,
                registers.rsi,
                registers.rdx,
                registers.r10,
                registers.r8,
                registers.r9,
            ],
        }
    }
}

/// Why user mode was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// SYSCALL was executed, and nobody has answered the [`Request`].
    Syscall,
    /// There is something to look at before user mode goes on.
    Notice,
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
    /// What FXSAVE writes; or what XSAVE writes in its standard format, [labelled](label_area) for a signal's frame.
    pub bytes: &'a [u8],
    /// The components in it, as in XCR0; 0: FXSAVE alone.
    pub components: u64,
}

/// Bytes of the part of an area that FXSAVE knows.
pub const LEGACY: usize = 512;
/// Bytes of XSAVE's header, behind it.
pub const HEADER: usize = 64;
/// Bytes of a label behind an area.
pub const TRAILER: usize = 4;

/// Where the label's words are: no CPU reads or writes them.
const SOFTWARE_WORDS: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// Has an area of XSAVE's, with [`TRAILER`] bytes behind it, say what it is, as signals' frames do (`struct _fpx_sw_bytes`).
pub fn label_area(area: &mut [u8], components: u64) {
    let size = area.len() - TRAILER;
    let words = &mut area[SOFTWARE_WORDS..LEGACY];
    words.fill(0);
    words[..4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
    words[4..8].copy_from_slice(&(size as u32 + TRAILER as u32).to_le_bytes());
    words[8..16].copy_from_slice(&components.to_le_bytes());
    words[16..20].copy_from_slice(&(size as u32).to_le_bytes());
    // x87 and SSE are always there, even in their initial state: handlers look at them.
    area[LEGACY] |= 3;
    area[size..].copy_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
}

/// How many bytes of an area, at most `size`, the label in its legacy part promises; `None`: it has none.
pub fn labelled_len(legacy: &[u8], size: usize) -> Option<usize> {
    let word = |at: usize| {
        let at = SOFTWARE_WORDS + at;
        u32::from_le_bytes(legacy[at..at + 4].try_into().expect("4 bytes"))
    };
    let len = word(16) as usize;
    let fits = (LEGACY + HEADER..=size).contains(&len);
    (word(0) == FP_XSTATE_MAGIC1 && word(4) as usize >= len + TRAILER && fits).then_some(len)
}

/// Whether the last bytes are those behind a labelled area.
pub fn ends_label(bytes: &[u8]) -> bool {
    bytes.ends_with(&FP_XSTATE_MAGIC2.to_le_bytes())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_area_says_how_long_it_is_and_an_odd_label_is_none() {
        let mut area = [0; 832 + TRAILER];
        label_area(&mut area, 7);
        assert_eq!(area[LEGACY], 3, "x87 and SSE are there");
        assert!(ends_label(&area));
        assert_eq!(labelled_len(&area, 832), Some(832));
        assert_eq!(labelled_len(&area, 576), None, "longer than there is");
        let mut odd = area;
        odd[SOFTWARE_WORDS] ^= 1;
        assert_eq!(labelled_len(&odd, 832), None);
    }
}
