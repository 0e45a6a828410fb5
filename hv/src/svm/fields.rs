//! The control block (VMCB) by name.
//!
//! Offsets are those of APM vol. 2, appendix B. The first KiB says how the guest is run and how it stopped; the rest is its
//! state, of which VMRUN and #VMEXIT move a part and VMLOAD and VMSAVE the other (15.5.1, 15.5.2):
//!
//! | moved by | state |
//! | --- | --- |
//! | VMRUN, #VMEXIT | CS, DS, ES, SS, GDTR, IDTR, CPL; CR0, CR2, CR3, CR4, EFER, PAT; DR6, DR7; RAX, RSP, RIP, RFLAGS |
//! | VMLOAD, VMSAVE | FS, GS, TR, LDTR; KERNEL_GS_BASE, STAR, LSTAR, CSTAR, SFMASK; SYSENTER_* |
//! | the entry code | the other general registers |
//! | nobody | the FPU (`hv::fpu`), DR0-DR3 and CR8 (accesses are intercepted), XCR0 (XSETBV is intercepted) |
//!
//! The CPU may keep what it read of a block from one run to the next. The [clean bits](clean) say what software has not
//! changed since (15.15.2); whoever writes to a field here takes its bit away.

use core::mem::offset_of;

/// Bits of the block's third intercept word, at 0x0c.
pub mod intercept3 {
    pub const INTR: u32 = 1 << 0;
    pub const NMI: u32 = 1 << 1;
    pub const SMI: u32 = 1 << 2;
    pub const INIT: u32 = 1 << 3;
    pub const VINTR: u32 = 1 << 4;
    pub const RDPMC: u32 = 1 << 15;
    pub const CPUID: u32 = 1 << 18;
    pub const RSM: u32 = 1 << 19;
    pub const INVD: u32 = 1 << 22;
    pub const HLT: u32 = 1 << 24;
    pub const INVLPGA: u32 = 1 << 26;
    pub const IOIO: u32 = 1 << 27;
    pub const MSR: u32 = 1 << 28;
    pub const TASK_SWITCH: u32 = 1 << 29;
    pub const FERR_FREEZE: u32 = 1 << 30;
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of the fourth intercept word, at 0x10.
pub mod intercept4 {
    pub const VMRUN: u32 = 1 << 0;
    pub const VMMCALL: u32 = 1 << 1;
    pub const VMLOAD: u32 = 1 << 2;
    pub const VMSAVE: u32 = 1 << 3;
    pub const STGI: u32 = 1 << 4;
    pub const CLGI: u32 = 1 << 5;
    pub const SKINIT: u32 = 1 << 6;
    pub const WBINVD: u32 = 1 << 9;
    pub const MONITOR: u32 = 1 << 10;
    pub const MWAIT: u32 = 1 << 11;
    /// MWAIT while the monitor is armed: a bit of its own.
    pub const MWAIT_ARMED: u32 = 1 << 12;
    pub const XSETBV: u32 = 1 << 13;
}

/// Bits of [`Vmcb::interrupt_control`].
pub mod interrupts {
    /// A virtual interrupt is pending.
    pub const V_IRQ: u64 = 1 << 8;
    /// Its priority: the highest.
    pub const V_INTR_PRIO: u64 = 0xf << 16;
    /// Whatever the guest's task priority is.
    pub const V_IGN_TPR: u64 = 1 << 20;
    /// The host's RFLAGS.IF decides about physical interrupts, and CR8 is the guest's own.
    pub const V_INTR_MASKING: u64 = 1 << 24;
}

/// Which parts of the block software has not changed since the last run (APM vol. 2, 15.15.3).
pub mod clean {
    /// Intercepts, TSC offset.
    pub const INTERCEPTS: u32 = 1 << 0;
    /// Virtual interrupts.
    pub const INTERRUPTS: u32 = 1 << 3;
    /// All that is used: those above, the permission maps' addresses, the address-space identifier, nested paging with PAT,
    /// control registers and EFER, debug registers, descriptor tables, segments and CPL, CR2.
    pub const ALL: u32 = 0x3ff;
}

/// In [`Vmcb::interrupt_shadow`].
pub const SHADOW: u64 = 1;

/// A segment register.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VmcbSegment {
    pub selector: u16,
    pub attributes: u16,
    pub limit: u32,
    pub base: u64,
}

/// The block, as the CPU has it.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Vmcb {
    pub intercept_cr: [u16; 2],
    pub intercept_dr: [u16; 2],
    pub intercept_exceptions: u32,
    pub intercepts_3: u32,
    pub intercepts_4: u32,
    reserved_14: [u8; 0x2c],
    pub port_map: u64,
    pub msr_map: u64,
    pub tsc_offset: u64,
    /// Address-space identifier: tags what the TLB caches for the guest.
    pub asid: u32,
    /// What VMRUN flushes: `asid::tlb_control`.
    pub tlb_control: u32,
    pub interrupt_control: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info_1: u64,
    pub exit_info_2: u64,
    /// What was being delivered when the guest stopped.
    pub exit_interrupt: u64,
    pub nested_control: u64,
    reserved_98: [u8; 0x10],
    /// What VMRUN delivers.
    pub event: u64,
    pub nested_cr3: u64,
    pub lbr_control: u64,
    /// What was not changed since the last run: [`clean`].
    pub clean: u32,
    reserved_c4: u32,
    /// The instruction after the one that was intercepted; 0 if that is not so, or if the CPU does not say.
    pub next_rip: u64,
    pub fetched: [u8; 16],
    reserved_e0: [u8; 0x320],
    pub es: VmcbSegment,
    pub cs: VmcbSegment,
    pub ss: VmcbSegment,
    pub ds: VmcbSegment,
    pub fs: VmcbSegment,
    pub gs: VmcbSegment,
    pub gdtr: VmcbSegment,
    pub ldtr: VmcbSegment,
    pub idtr: VmcbSegment,
    pub tr: VmcbSegment,
    reserved_4a0: [u8; 0x2b],
    pub cpl: u8,
    reserved_4cc: u32,
    pub efer: u64,
    reserved_4d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x58],
    pub rsp: u64,
    reserved_5e0: [u8; 0x18],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    reserved_648: [u8; 0x20],
    pub pat: u64,
    reserved_670: [u8; 0x990],
}

const _: () = {
    assert!(size_of::<Vmcb>() == 0x1000);
    assert!(offset_of!(Vmcb, intercepts_3) == 0x0c);
    assert!(offset_of!(Vmcb, port_map) == 0x40);
    assert!(offset_of!(Vmcb, asid) == 0x58);
    assert!(offset_of!(Vmcb, interrupt_control) == 0x60);
    assert!(offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, exit_interrupt) == 0x88);
    assert!(offset_of!(Vmcb, nested_control) == 0x90);
    assert!(offset_of!(Vmcb, event) == 0xa8);
    assert!(offset_of!(Vmcb, nested_cr3) == 0xb0);
    assert!(offset_of!(Vmcb, clean) == 0xc0);
    assert!(offset_of!(Vmcb, next_rip) == 0xc8);
    assert!(offset_of!(Vmcb, es) == 0x400);
    assert!(offset_of!(Vmcb, tr) == 0x490);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, dr6) == 0x568);
    assert!(offset_of!(Vmcb, rip) == 0x578);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, pat) == 0x668);
};
