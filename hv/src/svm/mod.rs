//! AMD's virtualisation: SVM with nested paging.
//!
//! ```text
//!   Svm: Vendor ── enable ── detect: Words ──► Found (pure) ──► EFER.SVME, VM_HSAVE_PA      once per CPU
//!        │                                                      entry: Area (host state, asid: Asids)
//!        ├── create ── control: a frame per vCPU, its fields by name      save, load ── state
//!        ├── inject ── events: EVENTINJ, EXITINTINFO
//!        └── run ── entry: CLGI … VMRUN … STGI ── exits: EXITCODE ──► Exit
//! ```
//!
//! Everything but the instructions themselves compiles on the host, and is tested there.
//!
//! Sections are those of AMD's Architecture Programmer's Manual ("APM") volume 2, revision 3.42.
#![cfg_attr(
    not(target_os = "none"),
    allow(
        dead_code,
        reason = "what only the instructions use, which are for bare metal"
    )
)]

mod asid;
mod control;
mod detect;
#[cfg(target_os = "none")]
mod entry;
mod events;
mod exits;
mod fields;
mod state;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
pub use vendor::{Svm, Vcpu};

#[cfg(target_os = "none")]
mod vendor {
    use kernel::mm::addr::Pfn;
    use kernel::mm::frame::OutOfFrames;

    use super::asid::Tag;
    use super::control::ControlBlock;
    use super::entry;
    use super::events::Events;
    use crate::exit::Stopped;
    use crate::stage2::Npt;
    use crate::state::{Injection, Registers, SystemState};
    use crate::vendor::{Features, Injected, Unavailable, Vendor};

    /// The vendor.
    #[derive(Clone, Copy, Debug)]
    pub struct Svm;

    /// A vCPU: its control block, and what is to be remembered from run to run.
    #[derive(Debug)]
    pub struct Vcpu {
        pub(in crate::svm) block: ControlBlock,
        pub(in crate::svm) events: Events,
        /// The address-space identifier in the block.
        pub(in crate::svm) tag: Tag,
    }

    impl Vendor for Svm {
        type Format = Npt;
        type Vcpu = Vcpu;
        const NAME: &'static str = "SVM with NPT";
        const HYPERCALL: [u8; 3] = [0x0f, 0x01, 0xd9];

        fn enable() -> Result<Features, Unavailable> {
            entry::enable()
        }

        fn create(root: Pfn) -> Result<Vcpu, OutOfFrames> {
            let mut block = ControlBlock::new()?;
            let (ports, msrs) = entry::permission_maps()?;
            block.set_up(root, ports, msrs);
            Ok(Vcpu {
                block,
                events: Events::default(),
                tag: Tag::default(),
            })
        }

        fn save(vcpu: &mut Vcpu) -> SystemState {
            let mut state = vcpu.block.save();
            vcpu.events.save(&vcpu.block, &mut state);
            state
        }

        fn load(vcpu: &mut Vcpu, state: &SystemState) {
            vcpu.block.load(state);
            vcpu.events.load(&mut vcpu.block, state);
        }

        /// Always in line: the loop around it then keeps what every run would have to save.
        #[inline(always)]
        fn run(vcpu: &mut Vcpu, registers: &mut Registers, flush: bool) -> Stopped {
            entry::run(vcpu, registers, flush)
        }

        fn inject(vcpu: &mut Vcpu, registers: &Registers, what: Injection) -> Injected {
            vcpu.events.inject(&mut vcpu.block, registers, what)
        }
    }
}
