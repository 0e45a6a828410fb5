//! What is delivered to a guest: EVENTINJ, and what EXITINTINFO gives back (APM vol. 2, 15.7.2 and 15.20).
//!
//! Both have one layout, so what was cut short by an exit goes back as it came. A software interrupt does not: RIP still
//! stands at its instruction, which is executed again. So do INT3 and INTO, unless it was we who injected them.
//!
//! What waits for VMRUN stands in the block. An exception goes first; an interrupt that it displaces there follows as soon as
//! the guest can take one.

use super::fields::Vmcb;
use crate::state::{Injection, Registers, SystemState};
use crate::vendor::Injected;

const VALID: u64 = 1 << 31;
const HAS_CODE: u64 = 1 << 11;
const CODE_SHIFT: u32 = 32;
const VECTOR: u64 = 0xff;
const TYPE: u64 = 7 << 8;
const TYPE_EXCEPTION: u64 = 3 << 8;
const TYPE_SOFTWARE: u64 = 4 << 8;
/// What the CPU reads: the others of the lower half are reserved.
const DEFINED: u64 = !(u32::MAX as u64) | VALID | HAS_CODE | TYPE | VECTOR;

/// INT3 and INTO, as exceptions.
const BREAKPOINT: u64 = 3;
const OVERFLOW: u64 = 4;

/// Whether it is an event at all.
#[inline]
pub(super) fn is_valid(event: u64) -> bool {
    event & VALID != 0
}

/// Whether the guest's own instruction brings the event about again when it is executed again.
fn comes_again(event: u64) -> bool {
    match event & TYPE {
        TYPE_SOFTWARE => true,
        TYPE_EXCEPTION => matches!(event & VECTOR, BREAKPOINT | OVERFLOW),
        _ => false,
    }
}

fn is_exception(event: u64) -> bool {
    event & TYPE == TYPE_EXCEPTION
}

fn encode(what: Injection) -> u64 {
    match what {
        Injection::Interrupt(vector) => VALID | u64::from(vector),
        Injection::Exception { vector, code } => {
            let event = VALID | TYPE_EXCEPTION | u64::from(vector);
            code.map_or(event, |code| event | HAS_CODE | u64::from(code) << CODE_SHIFT)
        }
    }
}

/// What a vCPU remembers about events besides its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Events {
    /// An interrupt or an NMI that an exception displaced; 0: none.
    displaced: u64,
    /// Somebody has been told that the guest cannot take an interrupt now.
    awaited: bool,
}

impl Events {
    /// See [`Vendor::inject`](crate::vendor::Vendor::inject).
    pub fn inject(&mut self, vmcb: &mut Vmcb, registers: &Registers, what: Injection) -> Injected {
        let event = encode(what);
        if is_exception(event) {
            if is_valid(vmcb.event) && !is_exception(vmcb.event) {
                self.displaced = vmcb.event;
            }
            vmcb.event = event;
            return Injected::Queued;
        }
        let first = !is_valid(vmcb.event) && self.displaced == 0;
        if !first || !vmcb.can_interrupt(registers.rip, registers.rflags) {
            self.awaited = true;
            vmcb.open_window();
            return Injected::NotNow;
        }
        vmcb.event = event;
        if self.awaited {
            self.awaited = false;
            vmcb.close_window();
        }
        Injected::Queued
    }

    /// Whether something was displaced.
    #[inline]
    pub fn has_displaced(&self) -> bool {
        self.displaced != 0
    }

    /// Before a run: delivers what was displaced if the guest takes it, or waits until it does.
    #[cold]
    pub fn offer(&mut self, vmcb: &mut Vmcb, registers: &Registers) {
        if !is_valid(vmcb.event) && vmcb.can_interrupt(registers.rip, registers.rflags) {
            vmcb.event = core::mem::take(&mut self.displaced);
            if !self.awaited {
                return vmcb.close_window();
            }
        }
        vmcb.open_window();
    }

    /// After a run that was to deliver `sent` and was stopped while it delivered `cut_short`.
    #[cold]
    pub fn redeliver(&mut self, vmcb: &mut Vmcb, sent: u64, cut_short: u64) {
        if cut_short == sent || !comes_again(cut_short) {
            vmcb.event = cut_short;
        }
    }

    /// The window is there. Whether the owner is told; otherwise it is for what was displaced.
    pub fn window(&mut self, vmcb: &mut Vmcb) -> bool {
        if self.has_displaced() {
            return false;
        }
        self.awaited = false;
        vmcb.close_window();
        true
    }

    /// What waits, as [`SystemState`] has it.
    pub fn save(&self, vmcb: &Vmcb, state: &mut SystemState) {
        state.event = vmcb.event;
        state.displaced = self.displaced;
    }

    /// Has wait what a state says, and nothing else. A software interrupt or exception (of another CPU's: on this one it comes
    /// again) does.
    pub fn load(&mut self, vmcb: &mut Vmcb, state: &SystemState) {
        let deliverable = |event| {
            let by_instruction = event & TYPE >= TYPE_SOFTWARE;
            if is_valid(event) && !by_instruction {
                event & DEFINED
            } else {
                0
            }
        };
        vmcb.event = deliverable(state.event);
        *self = Self {
            displaced: deliverable(state.displaced),
            awaited: false,
        };
        vmcb.close_window();
    }
}
