//! A vCPU's system state, to and from its VMCS.
//!
//! CR0 and CR4 are shown to the guest as it set them; what they really are is [`cr`](super::cr)'s business. EFER.LMA goes with the
//! entry control of that meaning.

use super::control::Current;
use super::cr::{CR0_MASK, CR4_MASK, is_carried_out, real_cr4};
use super::detect::ENTRY_LONG_MODE;
use super::events::Events;
use super::exits::Fields;
use super::fields::{self, Field, SegmentFields, segment};
use super::switched::Switched;
use crate::state::{Segment, SystemState, TableRegister};

const EFER_LMA: u64 = 1 << 10;
/// Interruptibility: blocking by STI, by MOV SS.
pub const SHADOW: u64 = 3;
/// Blocking by MOV SS: unlike that by STI it goes with any RFLAGS.
const SHADOW_OF_MOV_SS: u64 = 2;

/// Fields that hold a register as it is.
macro_rules! plain_fields {
    ($use:ident) => {
        $use! {
            cr3: GUEST_CR3, efer: GUEST_EFER, pat: GUEST_PAT, dr7: GUEST_DR7,
            sysenter_cs: GUEST_SYSENTER_CS, sysenter_esp: GUEST_SYSENTER_ESP, sysenter_eip: GUEST_SYSENTER_EIP
        }
    };
}

impl Current<'_> {
    /// The state of the vCPU.
    pub fn save(&self) -> SystemState {
        let mut state = SystemState {
            cs: self.segment(segment::CS),
            ds: self.segment(segment::DS),
            es: self.segment(segment::ES),
            fs: self.segment(segment::FS),
            gs: self.segment(segment::GS),
            ss: self.segment(segment::SS),
            ldtr: self.segment(segment::LDTR),
            tr: self.segment(segment::TR),
            gdtr: self.table(fields::GUEST_GDTR_BASE, fields::GUEST_GDTR_LIMIT),
            idtr: self.table(fields::GUEST_IDTR_BASE, fields::GUEST_IDTR_LIMIT),
            cr0: self.read(fields::GUEST_CR0) & !CR0_MASK | self.read(fields::CR0_SHADOW) & CR0_MASK,
            cr4: self.shown_cr4(),
            interrupt_shadow: (self.read(fields::INTERRUPTIBILITY) & SHADOW != 0).into(),
            ..SystemState::default()
        };
        macro_rules! read {
            ($($register:ident: $field:ident),*) => { $(state.$register = self.read(fields::$field);)* };
        }
        plain_fields!(read);
        self.vcpu.switched.save(&mut state);
        self.vcpu.events.save(&mut state);
        state
    }

    /// Gives the vCPU this state.
    pub fn load(&mut self, state: &SystemState) {
        for (fields, segment) in [
            (segment::CS, &state.cs),
            (segment::DS, &state.ds),
            (segment::ES, &state.es),
            (segment::FS, &state.fs),
            (segment::GS, &state.gs),
            (segment::SS, &state.ss),
            (segment::LDTR, &state.ldtr),
            (segment::TR, &state.tr),
        ] {
            self.set_segment(fields, segment);
        }
        let controls = self.vcpu.controls;
        let entry = match state.efer & EFER_LMA != 0 {
            true => controls.entry | ENTRY_LONG_MODE,
            false => controls.entry,
        };
        for (field, value) in [
            (fields::GUEST_GDTR_BASE, state.gdtr.base),
            (fields::GUEST_GDTR_LIMIT, state.gdtr.limit.into()),
            (fields::GUEST_IDTR_BASE, state.idtr.base),
            (fields::GUEST_IDTR_LIMIT, state.idtr.limit.into()),
            (fields::GUEST_CR0, state.cr0),
            (fields::CR0_SHADOW, state.cr0),
            (fields::GUEST_CR4, real_cr4(state.cr4, controls.cr4_ones)),
            (fields::CR4_SHADOW, state.cr4),
            (fields::ENTRY_CONTROLS, entry.into()),
            (fields::ACTIVITY, 0),
            (fields::PENDING_DEBUG, 0),
            (
                fields::INTERRUPTIBILITY,
                if state.interrupt_shadow != 0 {
                    SHADOW_OF_MOV_SS
                } else {
                    0
                },
            ),
        ] {
            self.write(field, value);
        }
        macro_rules! write {
            ($($register:ident: $field:ident),*) => { $(self.write(fields::$field, state.$register);)* };
        }
        plain_fields!(write);
        let vcpu = &mut *self.vcpu;
        vcpu.switched = Switched::of(state, &vcpu.host.syscall);
        vcpu.events = Events::load(state);
        (vcpu.stale, vcpu.attention) = (true, true);
    }

    /// CR4 as the guest has set it.
    fn shown_cr4(&self) -> u64 {
        self.read(fields::GUEST_CR4) & !CR4_MASK | self.read(fields::CR4_SHADOW) & CR4_MASK
    }

    /// Carries a write of CR4 out that has exited, if it is one that a guest may make.
    pub fn write_cr4(&mut self, new: u64) -> bool {
        let controls = self.vcpu.controls;
        if !is_carried_out(self.shown_cr4(), new, controls.cr4_allowed) {
            return false;
        }
        self.write(fields::GUEST_CR4, real_cr4(new, controls.cr4_ones));
        self.write(fields::CR4_SHADOW, new);
        (self.vcpu.stale, self.vcpu.attention) = (true, true);
        true
    }

    fn segment(&self, fields: SegmentFields) -> Segment {
        Segment {
            selector: self.read(fields.selector) as u16,
            rights: self.read(fields.rights) as u32,
            limit: self.read(fields.limit) as u32,
            base: self.read(fields.base),
        }
    }

    fn set_segment(&mut self, fields: SegmentFields, segment: &Segment) {
        self.write(fields.selector, segment.selector.into());
        self.write(fields.rights, segment.rights.into());
        self.write(fields.limit, segment.limit.into());
        self.write(fields.base, segment.base);
    }

    fn table(&self, base: Field, limit: Field) -> TableRegister {
        TableRegister {
            limit: self.read(limit) as u32,
            base: self.read(base),
        }
    }
}
