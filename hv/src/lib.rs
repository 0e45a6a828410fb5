//! Faultline's hypervisor half.
//!
//! ```text
//!            boot (apps, tests)              the guest: the kernel library, or an ELF of the user's
//!              │                                   ▲
//!              ▼                                   │ hypercalls, rings (kernel::abi::guest)
//!     vm ── memslot ── userfault      vcpu ── hypercall
//!      │        │          │            │
//!      └────────┴─ stage2 ─┘         vendor (trait)
//!                   │                 ├── svm   AMD: VMCB, NPT
//!        kernel::mm::pt (one walker)  └── vmx   Intel: VMCS, EPT
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`vendor`], [`svm`], [`vmx`] | the line to the CPU: seven methods, twins behind them |
//! | [`exit`] | why a guest stopped: one enum for both vendors, with the raw code |
//! | [`state`] | what a vCPU holds: registers, system state, FPU |
//! | [`loader`] | starting a guest: an ELF and what it is promised, put into its memory |
//! | [`stage2`] | entry formats for the kernel's page-table walker: EPT, NPT |
#![no_std]

extern crate alloc;

pub mod cpuid;
pub mod exit;
pub mod fpu;
pub mod loader;
pub mod msr;
pub mod ports;
pub mod ring;
pub mod stage2;
pub mod state;
pub mod vendor;
