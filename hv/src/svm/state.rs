//! A vCPU's system state, to and from its control block.
//!
//! Segment rights have the same bits on both vendors' CPUs, at other places; a register that cannot be used is one that is
//! not present. EFER.SVME is set underneath, and not shown.

use super::control::NOWHERE;
use super::fields::{SHADOW, Vmcb, VmcbSegment};
use crate::state::{Segment, SystemState, TableRegister};

/// EFER.SVME: has to be set while a guest runs (15.5.1); guests are not told.
const EFER_SVME: u64 = 1 << 12;
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

impl Vmcb {
    /// The guest's state, in the hypervisor's words; what waits to be delivered is `events`'s business.
    pub fn save(&self) -> SystemState {
        let mut ss = self.ss.to_state();
        // The privilege level is a field of its own; a null SS in 64-bit mode need not carry it.
        ss.rights = ss.rights & !RIGHTS_DPL | u32::from(self.cpl & 3) << RIGHTS_DPL_SHIFT;
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
}

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
