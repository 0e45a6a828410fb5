//! The control block (VMCB): its layout, what is in it for good, and a vCPU's state in it.
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
#![expect(unsafe_code, reason = "a frame of zeros is a control block")]

use core::mem::offset_of;
use core::ops::{Deref, DerefMut};

use kernel::mm::addr::{Pfn, PhysAddr};
use kernel::mm::frame::{Frame, KernelData, OutOfFrames};
use kernel::mm::phys;

use crate::state::{Segment, SystemState, TableRegister};

/// Bits of the block's third intercept word, at 0x0c.
mod intercept3 {
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
mod intercept4 {
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

const INTERCEPTS_3: u32 = {
    use intercept3::*;
    INTR | NMI
        | SMI
        | INIT
        | RDPMC
        | CPUID
        | RSM
        | INVD
        | HLT
        | INVLPGA
        | IOIO
        | MSR
        | TASK_SWITCH
        | FERR_FREEZE
        | SHUTDOWN
};
const INTERCEPTS_4: u32 = {
    use intercept4::*;
    VMRUN | VMMCALL | VMLOAD | VMSAVE | STGI | CLGI | SKINIT | WBINVD | MONITOR | MWAIT | MWAIT_ARMED | XSETBV
};
/// CR8: what is delivered to a guest does not ask for its task priority.
const INTERCEPT_CR: u16 = 1 << 8;
/// All of DR0-DR15, reads and writes.
const INTERCEPT_DR: u16 = 0xffff;
/// #MC: the machine is broken, not the guest.
const INTERCEPT_EXCEPTIONS: u32 = 1 << 18;

/// Bits of [`Vmcb::interrupt_control`].
mod interrupts {
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
pub(super) mod clean {
    /// Intercepts, TSC offset.
    pub const INTERCEPTS: u32 = 1 << 0;
    /// Virtual interrupts.
    pub const INTERRUPTS: u32 = 1 << 3;
    /// All that is used: those above, the permission maps' addresses, address-space identifier, nested paging with PAT, control registers and EFER,
    /// debug registers, descriptor tables, segments and CPL, CR2.
    pub const ALL: u32 = 0x3ff;
}

/// NP_ENABLE at offset 0x90.
const NESTED_PAGING: u64 = 1;
/// In [`Vmcb::interrupt_shadow`].
const SHADOW: u64 = 1;
/// EFER.SVME: has to be set while a guest runs (15.5.1); guests are not told.
const EFER_SVME: u64 = 1 << 12;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Bits of CR4 that a guest may set: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, SMEP,
/// SMAP. The others turn on state that is not switched.
const CR4_GUEST: u64 = 0xfff | 1 << 16 | 1 << 20 | 1 << 21;
/// In [`Vmcb::rip`] before the first run: no instruction stands at an address that is not canonical.
const NOWHERE: u64 = 1 << 63;

/// A segment register.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct VmcbSegment {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u64,
}

/// The block, as the CPU has it.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(super) struct Vmcb {
    intercept_cr: [u16; 2],
    intercept_dr: [u16; 2],
    intercept_exceptions: u32,
    intercepts_3: u32,
    intercepts_4: u32,
    reserved_14: [u8; 0x2c],
    port_map: u64,
    msr_map: u64,
    tsc_offset: u64,
    /// Address-space identifier: tags what the TLB caches for the guest.
    asid: u32,
    /// What VMRUN flushes: `asid::tlb_control`.
    pub tlb_control: u32,
    interrupt_control: u64,
    interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info_1: u64,
    pub exit_info_2: u64,
    /// What was being delivered when the guest stopped.
    pub exit_interrupt: u64,
    nested_control: u64,
    reserved_98: [u8; 0x10],
    /// What VMRUN delivers.
    pub event: u64,
    nested_cr3: u64,
    lbr_control: u64,
    /// What was not changed since the last run: [`clean`].
    pub clean: u32,
    reserved_c4: u32,
    /// The instruction after the one that was intercepted; 0 if that is not so, or if the CPU does not say.
    pub next_rip: u64,
    fetched: [u8; 16],
    reserved_e0: [u8; 0x320],
    es: VmcbSegment,
    cs: VmcbSegment,
    ss: VmcbSegment,
    ds: VmcbSegment,
    fs: VmcbSegment,
    gs: VmcbSegment,
    gdtr: VmcbSegment,
    ldtr: VmcbSegment,
    idtr: VmcbSegment,
    tr: VmcbSegment,
    reserved_4a0: [u8; 0x2b],
    pub cpl: u8,
    reserved_4cc: u32,
    efer: u64,
    reserved_4d8: [u8; 0x70],
    cr4: u64,
    cr3: u64,
    cr0: u64,
    dr7: u64,
    dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x58],
    pub rsp: u64,
    reserved_5e0: [u8; 0x18],
    pub rax: u64,
    star: u64,
    lstar: u64,
    cstar: u64,
    sfmask: u64,
    kernel_gs_base: u64,
    sysenter_cs: u64,
    sysenter_esp: u64,
    sysenter_eip: u64,
    cr2: u64,
    reserved_648: [u8; 0x20],
    pat: u64,
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

impl Vmcb {
    /// Fills in what stays: what is intercepted, the nested root, the two permission maps.
    pub fn set_up(&mut self, root: Pfn, port_map: PhysAddr, msr_map: PhysAddr) {
        self.intercept_cr = [INTERCEPT_CR; 2];
        self.intercept_dr = [INTERCEPT_DR; 2];
        self.intercept_exceptions = INTERCEPT_EXCEPTIONS;
        self.intercepts_3 = INTERCEPTS_3;
        self.intercepts_4 = INTERCEPTS_4;
        self.port_map = port_map.as_u64();
        self.msr_map = msr_map.as_u64();
        self.interrupt_control = interrupts::V_INTR_MASKING;
        self.nested_control = NESTED_PAGING;
        self.nested_cr3 = root.start().as_u64();
        self.rip = NOWHERE;
        self.clean = 0;
    }

    /// The guest's state, in the hypervisor's words; what waits to be delivered is `events`'s business.
    pub fn save(&self) -> SystemState {
        let mut ss = self.ss.to_state();
        if ss.rights & UNUSABLE == 0 {
            // The privilege level is a field of its own; a null SS in 64-bit mode need not carry it.
            ss.rights = ss.rights & !RIGHTS_DPL | u32::from(self.cpl & 3) << RIGHTS_DPL_SHIFT;
        }
        SystemState {
            cs: self.cs.to_state(),
            ds: self.ds.to_state(),
            es: self.es.to_state(),
            fs: self.fs.to_state(),
            gs: self.gs.to_state(),
            ss,
            ldtr: self.ldtr.to_state(),
            tr: self.tr.to_state(),
            gdtr: self.gdtr.to_table(),
            idtr: self.idtr.to_table(),
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer & !EFER_SVME,
            star: self.star,
            lstar: self.lstar,
            cstar: self.cstar,
            sfmask: self.sfmask,
            kernel_gs_base: self.kernel_gs_base,
            sysenter_cs: self.sysenter_cs,
            sysenter_esp: self.sysenter_esp,
            sysenter_eip: self.sysenter_eip,
            pat: self.pat,
            dr6: self.dr6,
            dr7: self.dr7,
            interrupt_shadow: self.interrupt_shadow & SHADOW,
            ..SystemState::default()
        }
    }

    /// Gives the guest this state; likewise.
    pub fn load(&mut self, state: &SystemState) {
        self.cs = VmcbSegment::from_state(&state.cs);
        self.ds = VmcbSegment::from_state(&state.ds);
        self.es = VmcbSegment::from_state(&state.es);
        self.fs = VmcbSegment::from_state(&state.fs);
        self.gs = VmcbSegment::from_state(&state.gs);
        self.ss = VmcbSegment::from_state(&state.ss);
        self.ldtr = VmcbSegment::from_state(&state.ldtr);
        self.tr = VmcbSegment::from_state(&state.tr);
        self.gdtr = VmcbSegment::from_table(&state.gdtr);
        self.idtr = VmcbSegment::from_table(&state.idtr);
        self.cpl = (state.ss.rights >> RIGHTS_DPL_SHIFT) as u8 & 3;
        self.cr0 = state.cr0;
        self.cr2 = state.cr2;
        self.cr3 = state.cr3;
        self.cr4 = state.cr4;
        self.efer = state.efer | EFER_SVME;
        self.star = state.star;
        self.lstar = state.lstar;
        self.cstar = state.cstar;
        self.sfmask = state.sfmask;
        self.kernel_gs_base = state.kernel_gs_base;
        self.sysenter_cs = state.sysenter_cs;
        self.sysenter_esp = state.sysenter_esp;
        self.sysenter_eip = state.sysenter_eip;
        self.pat = state.pat;
        self.dr6 = state.dr6;
        self.dr7 = state.dr7;
        self.interrupt_shadow = state.interrupt_shadow & SHADOW;
        self.rip = NOWHERE;
        self.clean = 0;
    }

    /// Whether the guest has set something in CR4 that it does not have.
    pub fn has_foreign_bits(&self) -> bool {
        self.cr4 & !CR4_GUEST != 0
    }

    /// Whether a guest that goes on at `rip` is still in the shadow of STI or MOV SS: not if whoever emulated an instruction
    /// has moved it on.
    #[inline]
    pub fn in_shadow(&self, rip: u64) -> bool {
        self.interrupt_shadow & SHADOW != 0 && (self.rip == rip || self.rip == NOWHERE)
    }

    /// Ends the shadow if the guest goes on elsewhere.
    #[inline]
    pub fn settle_shadow(&mut self, rip: u64) {
        if self.interrupt_shadow != 0 {
            self.interrupt_shadow = u64::from(self.in_shadow(rip));
        }
    }

    /// Whether a guest with these flags that goes on at `rip` takes an interrupt at once.
    pub fn can_interrupt(&self, rip: u64, rflags: u64) -> bool {
        rflags & INTERRUPT_FLAG != 0 && !self.in_shadow(rip)
    }

    /// Has the guest stop as soon as it takes interrupts: a virtual one is pending, and taking it is intercepted.
    pub fn open_window(&mut self) {
        use interrupts::{V_IGN_TPR, V_INTR_PRIO, V_IRQ};
        self.interrupt_control |= V_IRQ | V_INTR_PRIO | V_IGN_TPR;
        self.intercepts_3 |= intercept3::VINTR;
        self.clean &= !(clean::INTERCEPTS | clean::INTERRUPTS);
    }

    /// Takes that back.
    pub fn close_window(&mut self) {
        use interrupts::{V_IGN_TPR, V_INTR_PRIO, V_IRQ};
        self.interrupt_control &= !(V_IRQ | V_INTR_PRIO | V_IGN_TPR);
        self.intercepts_3 &= !intercept3::VINTR;
        self.clean &= !(clean::INTERCEPTS | clean::INTERRUPTS);
    }

    /// A block of zeros.
    #[cfg(test)]
    pub fn zeroed() -> Self {
        // SAFETY: every field is a number.
        unsafe { core::mem::zeroed() }
    }

    /// EFER, as the CPU finds it.
    #[cfg(test)]
    pub fn efer(&self) -> u64 {
        self.efer
    }

    /// Whether a window is waited for.
    #[cfg(test)]
    pub fn awaits_window(&self) -> bool {
        self.interrupt_control & interrupts::V_IRQ != 0 && self.intercepts_3 & intercept3::VINTR != 0
    }

    /// Gives the guest another address-space identifier. Perhaps for another CPU, which has nothing of the block.
    pub fn set_asid(&mut self, asid: u32) {
        self.asid = asid;
        self.clean = 0;
    }
}

/// Lets guests at the registers that are theirs, in a map of MSRs in which all are intercepted: SYSENTER_*, STAR, LSTAR, CSTAR,
/// SFMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE. VMLOAD and VMSAVE move them. (PAT is in the block, too, but TCG gives guests its
/// own.)
///
/// A register has two bits, for reads and for writes; those from 0xc0000000 begin 2 KiB into the map (15.11).
pub(super) fn let_through(msr_map: &mut [u8]) {
    const LOW: [usize; 3] = [0x174, 0x175, 0x176];
    const HIGH: [usize; 7] = [0x81, 0x82, 0x83, 0x84, 0x100, 0x101, 0x102];
    let high = HIGH.map(|number| 0x2000 + number);
    for index in LOW.into_iter().chain(high) {
        msr_map[index / 4] &= !(3 << (index % 4 * 2));
    }
}

/// The frame of a block.
#[derive(Debug)]
pub(super) struct ControlBlock(Frame<KernelData>);

impl ControlBlock {
    /// A block of zeros.
    pub fn new() -> Result<Self, OutOfFrames> {
        Frame::alloc_zeroed().map(Self)
    }

    /// Where it is, for the CPU.
    #[inline]
    pub fn address(&self) -> PhysAddr {
        self.0.pfn().start()
    }

    fn pointer(&self) -> *mut Vmcb {
        phys::frame_ptr(self.0.pfn()).cast()
    }
}

impl Deref for ControlBlock {
    type Target = Vmcb;
    #[inline]
    fn deref(&self) -> &Vmcb {
        // SAFETY: the frame is this handle's alone, page-aligned and initialised; every bit pattern is a `Vmcb`. The CPU
        // writes to it only in `entry::enter`, which borrows the handle mutably.
        unsafe { &*self.pointer() }
    }
}

impl DerefMut for ControlBlock {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above; the handle is borrowed mutably.
        unsafe { &mut *self.pointer() }
    }
}

/// In [`Segment::rights`]: the register cannot be used.
const UNUSABLE: u32 = 1 << 16;
const RIGHTS_DPL_SHIFT: u32 = 5;
const RIGHTS_DPL: u32 = 3 << RIGHTS_DPL_SHIFT;
/// Type, S, DPL, P: the same bits in both layouts.
const RIGHTS_LOW: u32 = 0xff;
/// AVL, L, D/B, G: bits 12-15 of the rights, bits 8-11 of the attributes.
const RIGHTS_HIGH: u32 = 0xf000;
const RIGHTS_HIGH_SHIFT: u32 = 4;
/// P, in the attributes: clear in a register that holds a null selector.
const PRESENT: u16 = 1 << 7;

impl VmcbSegment {
    fn from_state(segment: &Segment) -> Self {
        let &Segment {
            selector,
            rights,
            limit,
            base,
        } = segment;
        let mut attributes = (rights & RIGHTS_LOW | (rights & RIGHTS_HIGH) >> RIGHTS_HIGH_SHIFT) as u16;
        if rights & UNUSABLE != 0 {
            attributes &= !PRESENT;
        }
        Self {
            selector,
            attributes,
            limit,
            base,
        }
    }

    fn to_state(self) -> Segment {
        let attributes = u32::from(self.attributes);
        let mut rights = attributes & RIGHTS_LOW | attributes << RIGHTS_HIGH_SHIFT & RIGHTS_HIGH;
        if self.attributes & PRESENT == 0 {
            rights |= UNUSABLE;
        }
        Segment {
            selector: self.selector,
            rights,
            limit: self.limit,
            base: self.base,
        }
    }

    fn from_table(table: &TableRegister) -> Self {
        Self {
            limit: table.limit,
            base: table.base,
            ..Self::default()
        }
    }

    fn to_table(self) -> TableRegister {
        TableRegister {
            limit: self.limit,
            base: self.base,
        }
    }
}
