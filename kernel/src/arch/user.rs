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

/// How x87, SSE and AVX registers are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FpuFormat {
    /// The components, as in XCR0; 0: FXSAVE alone.
    pub components: u64,
    /// Bytes that FXSAVE writes, or XSAVE in its standard format.
    pub size: usize,
}

/// Bytes of the part of an area that FXSAVE knows.
pub const LEGACY: usize = 512;
/// Bytes of XSAVE's header, behind it.
pub const HEADER: usize = 64;
/// Bytes of a label behind an area.
pub const TRAILER: usize = 4;

/// Where the label's words are: no CPU reads or writes them.
pub const LABEL: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// What stands behind an area that is labelled.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;

/// MXCSR in an area, and as a program finds it.
const MXCSR: usize = 24;
const INITIAL_MXCSR: u32 = 0x1f80;
/// Components that are always saved, and those that MXCSR is loaded with.
const X87_AND_SSE: u64 = 3;
const SSE: u64 = 2;
const SSE_AND_AVX: u64 = 6;

impl FpuFormat {
    /// Bytes in the frame of a signal.
    pub fn frame_len(&self) -> usize {
        match self.components {
            0 => LEGACY,
            _ => self.size + TRAILER,
        }
    }

    /// What says, from [`LABEL`] on, what an area of XSAVE's in the frame of a signal is (`struct _fpx_sw_bytes`).
    pub fn label(&self) -> [u64; 6] {
        let len = self.size as u64;
        let promised = len + TRAILER as u64;
        [
            u64::from(FP_XSTATE_MAGIC1) | promised << 32,
            self.components,
            len,
            0,
            0,
            0,
        ]
    }

    /// Has an area of XSAVE's, with [`TRAILER`] bytes behind it, say what it is.
    pub fn label_area(&self, area: &mut [u8]) {
        for (bytes, word) in area[LABEL..LEGACY].chunks_exact_mut(8).zip(self.label()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // Even in their initial state: handlers look at them.
        area[LEGACY] |= X87_AND_SSE as u8;
        area[self.size..].copy_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    }

    /// What the first words of a label say: which components are behind it, and how many bytes before [`FP_XSTATE_MAGIC2`].
    /// `None`: it is no label, or one of another CPU's.
    pub fn labelled(&self, words: &[u64; 3]) -> Option<(u64, usize)> {
        let [magic, promised] = [words[0] as u32, (words[0] >> 32) as u32];
        let len = words[2] as u32 as usize;
        let fits = (LEGACY + HEADER..=self.size).contains(&len) && promised as usize >= len;
        (magic == FP_XSTATE_MAGIC1 && self.components != 0 && fits).then_some((words[1], len))
    }

    /// Makes `area`, which a program has written to, one from which the CPU loads `components` of the program's and resets the
    /// others; without `components`, one that FXRSTOR would load. False where the CPU would have refused to.
    #[must_use]
    pub fn put_right(&self, area: &mut [u8], components: Option<u64>) -> bool {
        let (legacy, extended) = area.split_at_mut(LEGACY);
        let wanted = components.unwrap_or(X87_AND_SSE);
        // All components load it that have their registers in it.
        let mxcsr = &mut legacy[MXCSR..MXCSR + 4];
        if wanted & SSE_AND_AVX != 0 && mxcsr[2..] != [0, 0] {
            return false;
        }
        if wanted & SSE == 0 {
            mxcsr.copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
        }
        if self.components == 0 {
            return true;
        }
        let header = &mut extended[..HEADER];
        let (present, rest) = header.split_at_mut(8);
        let held = match components {
            None => X87_AND_SSE,
            Some(_) => {
                let present = u64::from_le_bytes(present.try_into().expect("8 bytes"));
                if present & !self.components != 0 || rest[..16] != [0; 16] {
                    return false;
                }
                present & wanted
            }
        };
        present.copy_from_slice(&held.to_le_bytes());
        rest.fill(0);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const FORMAT: FpuFormat = FpuFormat {
        components: 7,
        size: 832,
    };

    fn area() -> [u8; 832 + TRAILER] {
        let mut area = [0; 832 + TRAILER];
        area[MXCSR..MXCSR + 4].copy_from_slice(&0x3f80_u32.to_le_bytes());
        area[LEGACY] = 7;
        FORMAT.label_area(&mut area);
        area
    }

    fn words(area: &[u8]) -> [u64; 3] {
        let word = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().expect("8 bytes"));
        [word(LABEL), word(LABEL + 8), word(LABEL + 16)]
    }

    #[test]
    fn an_area_says_what_it_is_and_an_odd_label_is_none() {
        let mut area = [0; 832 + TRAILER];
        FORMAT.label_area(&mut area);
        assert_eq!(area[LEGACY], 3, "x87 and SSE are there");
        assert_eq!(area[832..], FP_XSTATE_MAGIC2.to_le_bytes());
        assert_eq!(FORMAT.labelled(&words(&area)), Some((7, 832)));
        let smaller = FpuFormat { size: 576, ..FORMAT };
        assert_eq!(smaller.labelled(&words(&area)), None, "longer than there is");
        let none = FpuFormat {
            components: 0,
            ..FORMAT
        };
        assert_eq!(none.labelled(&words(&area)), None, "XSAVE is not there");
        for (word, value) in [(0, 0), (2, 575), (2, 833)] {
            let mut words = words(&area);
            words[word] = value;
            assert_eq!(FORMAT.labelled(&words), None, "{word}: {value}");
        }
    }

    #[test]
    fn an_area_is_refused_for_what_the_cpu_would_refuse() {
        let refused = |at: usize, components: Option<u64>| {
            let mut area = area();
            area[at] ^= 0x80;
            !FORMAT.put_right(&mut area, components)
        };
        let (mxcsr, unknown, compacted, reserved) = (MXCSR + 2, LEGACY + 7, LEGACY + 15, LEGACY + 24);
        for (at, all, x87, legacy) in [
            (mxcsr, true, false, true),
            (unknown, true, true, false),
            (compacted, true, true, false),
            (reserved, false, false, false),
        ] {
            assert_eq!(refused(at, Some(7)), all, "{at}");
            assert_eq!(refused(at, Some(1)), x87, "{at}");
            assert_eq!(refused(at, None), legacy, "{at}");
        }
    }

    #[test]
    fn components_that_are_not_taken_from_an_area_are_reset() {
        let put_right = |components: Option<u64>| {
            let mut area = area();
            area[LEGACY + 30] = 1;
            assert!(FORMAT.put_right(&mut area, components));
            assert_eq!(area[LEGACY + 1..LEGACY + HEADER], [0; HEADER - 1]);
            let mxcsr = u32::from_le_bytes(area[MXCSR..MXCSR + 4].try_into().expect("4 bytes"));
            (area[LEGACY], mxcsr)
        };
        assert_eq!(put_right(Some(7)), (7, 0x3f80));
        assert_eq!(put_right(Some(u64::MAX)), (7, 0x3f80));
        assert_eq!(put_right(Some(4)), (4, INITIAL_MXCSR), "MXCSR is SSE's");
        assert_eq!(put_right(Some(0)), (0, INITIAL_MXCSR));
        assert_eq!(put_right(None), (3, 0x3f80));
    }
}
