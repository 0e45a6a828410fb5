//! What a vCPU holds, vendor-neutral: what is saved with a snapshot, and what a new vCPU starts with.

use core::fmt;

/// General registers, and what moves with every instruction. The order of the first fifteen is that of the entry code.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the registers' names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rip,
            rsp,
            rflags,
            rax,
            ..
        } = self;
        write!(
            f,
            "rip {rip:#x} rsp {rsp:#x} rflags {rflags:#x} rax {rax:#x} rcx {:#x} rdx {:#x} rsi {:#x} rdi {:#x}",
            self.rcx, self.rdx, self.rsi, self.rdi
        )
    }
}

/// A segment register with its hidden part.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Descriptor bits as VMX has them (SDM vol. 3C, table 25-2): type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15;
    /// bit 16: unusable.
    pub rights: u32,
    /// Bytes, less one.
    pub limit: u32,
    /// Where it begins.
    pub base: u64,
}

/// GDTR or IDTR.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Bytes, less one.
    pub limit: u32,
    /// Where it begins.
    pub base: u64,
}

/// Everything of a vCPU besides [`Registers`] and the FPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the registers' names")]
pub struct SystemState {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub dr6: u64,
    pub dr7: u64,
    /// 1 while the guest is in the shadow of STI or MOV SS.
    pub interrupt_shadow: u64,
    /// What is delivered before the guest's next instruction, because its delivery was cut short, or because it was injected;
    /// 0: nothing. As both vendors have it: vector in bits 0-7, kind 8-10, whether there is an error code 11, valid 31, the
    /// error code in 32-63; and 16-19 are the instruction's length where an instruction led to it.
    pub event: u64,
    /// An interrupt that `event` has displaced, which follows as soon as the guest can take it; likewise.
    pub displaced: u64,
}

/// IA32_PAT after a reset.
pub const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;

impl SystemState {
    /// 64-bit mode, privilege level 0, paging on with the tables at `cr3`, flat segments, no interrupt table. The segment
    /// registers are loaded as if from a table of null, code (8) and data (16); the guest brings its own table.
    pub fn long_mode(cr3: u64) -> Self {
        const CODE: u32 = 0xa09b;
        const DATA: u32 = 0xc093;
        const BUSY_TSS: u32 = 0x008b;
        const UNUSABLE: u32 = 1 << 16;
        let flat = |selector, rights| Segment {
            selector,
            rights,
            limit: u32::MAX,
            base: 0,
        };
        let data = flat(16, DATA);
        Self {
            cs: flat(8, CODE),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            ldtr: Segment {
                rights: UNUSABLE,
                ..Segment::default()
            },
            tr: Segment {
                rights: BUSY_TSS,
                limit: 0x67,
                ..Segment::default()
            },
            // PE, ET, NE, WP, PG.
            cr0: 0x8001_0031,
            cr3,
            // PAE, OSFXSR, OSXMMEXCPT.
            cr4: 0x620,
            // LME, LMA, NXE.
            efer: 0xd00,
            pat: PAT_AT_RESET,
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            ..Self::default()
        }
    }
}

/// Something to be delivered to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Injection {
    /// A maskable interrupt.
    Interrupt(u8),
    /// A hardware exception, with its error code if it has one.
    Exception {
        /// Which one.
        vector: u8,
        /// Its error code.
        code: Option<u32>,
    },
}
