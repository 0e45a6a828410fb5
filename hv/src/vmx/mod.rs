//! Intel: VMX with extended page tables.
//!
//! ```text
//!   enable ── detect::decide(words) ─► Controls          run ── entry ── exits::decode ─► Exit
//!      │                                  │                       │
//!      └─ VMXON, once for a CPU           └── control: Vcpu ── Current (its VMCS) ── state: save, load
//!                                                └── events: what waits to be delivered
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`detect`] | what the CPU has, and the control words that come of it |
//! | `enable` | asking the CPU, VMXON |
//! | [`fields`] | fields of a VMCS by name |
//! | `control` | a vCPU's VMCS: made, made current, written |
//! | `host` | what an exit loads |
//! | `state` | system state to and from it |
//! | [`cr`] | CR0 and CR4 |
//! | `divert` | #VE and VMFUNC |
//! | `vpid` | tags of translations |
//! | [`events`] | injection |
//! | `entry` | VMLAUNCH, VMRESUME |
//! | `switched` | registers that they do not switch |
//! | [`exits`] | what an exit was |
//!
//! Instructions and what needs them exist in the image only; the rest is compiled and tested on the host, too. Section
//! numbers are those of Intel's Software Developer's Manual ("SDM"), revision 084.
//!
//! **What a guest runs on.** 64-bit mode or compatibility mode; paging and protection stay on. CR4.VMXE and everything in CR4
//! that CPUID does not show it is the host's: reads show what the guest has set, a change ends it. RDTSCP, INVPCID and
//! XSAVES are undefined to it.

#[cfg(target_os = "none")]
mod control;
pub mod cr;
pub mod detect;
#[cfg(target_os = "none")]
mod divert;
#[cfg(target_os = "none")]
mod enable;
#[cfg(target_os = "none")]
mod entry;
pub mod events;
pub mod exits;
pub mod fields;
#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod state;
#[cfg(target_os = "none")]
mod switched;
mod vpid;

#[cfg(test)]
mod tests;

/// Intel's virtualisation.
#[derive(Clone, Copy, Debug)]
pub struct Vmx;

#[cfg(target_os = "none")]
mod vendor {
    use kernel::mm::addr::Pfn;
    use kernel::mm::frame::OutOfFrames;

    use super::{Vmx, control, enable, entry};
    use crate::exit::Stopped;
    use crate::stage2::Ept;
    use crate::state::{Injection, Registers, SystemState};
    use crate::vendor::{DivertError, Features, Injected, Unavailable, Vendor, ViolationException};

    impl Vendor for Vmx {
        type Format = Ept;
        type Vcpu = control::Vcpu;
        const NAME: &'static str = "VMX with EPT";
        const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xc1];

        fn enable() -> Result<Features, Unavailable> {
            enable::enable()
        }

        fn create(root: Pfn) -> Result<Self::Vcpu, OutOfFrames> {
            control::Vcpu::new(root)
        }

        fn save(vcpu: &mut Self::Vcpu) -> SystemState {
            vcpu.current().save()
        }

        fn load(vcpu: &mut Self::Vcpu, state: &SystemState) {
            vcpu.current().load(state);
        }

        /// Always in line: the loop around it then keeps what every run would have to save.
        #[inline(always)]
        fn run(vcpu: &mut Self::Vcpu, registers: &mut Registers, flush: bool) -> Stopped {
            entry::run(vcpu, registers, flush)
        }

        fn inject(vcpu: &mut Self::Vcpu, registers: &Registers, what: Injection) -> Injected {
            entry::inject(vcpu, registers, what)
        }

        fn divert_violations(
            vcpu: &mut Self::Vcpu,
            how: Option<ViolationException<'_>>,
        ) -> Result<(), DivertError> {
            vcpu.current().divert(how)
        }
    }
}
