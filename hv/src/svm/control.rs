//! What is in a control block for good, and what waits in it: a window, a shadow.
#![expect(unsafe_code, reason = "a frame of zeros is a control block")]

use core::ops::{Deref, DerefMut};

use kernel::mm::addr::{Pfn, PhysAddr};
use kernel::mm::frame::{Frame, KernelData, OutOfFrames};
use kernel::mm::phys;

use super::fields::{SHADOW, Vmcb, clean, intercept3, intercept4, interrupts};

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

/// NP_ENABLE at offset 0x90.
const NESTED_PAGING: u64 = 1;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Bits of CR4 that a guest may set: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, SMEP,
/// SMAP. The others turn on state that is not switched.
const CR4_GUEST: u64 = 0xfff | 1 << 16 | 1 << 20 | 1 << 21;
/// In [`Vmcb::rip`] before the first run: no instruction stands at an address that is not canonical.
pub(super) const NOWHERE: u64 = 1 << 63;

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
