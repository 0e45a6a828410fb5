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
//! | [`memory`], [`memslot`] | a guest's physical memory, and what backs it; [`bitmap`] |
//! | [`userfault`] | a stage-2 fault: from a violation to an answer |
//! | [`convertible`], [`divert`] | violations that the guest deals with by itself: which, and what a vCPU needs for it |
//! | [`fill`] | filling delegated pages by guest-physical address |
//! | [`vm`], [`vcpu`] | a virtual machine; the loop that runs one of its CPUs |
//! | [`hypercall`], [`ring`] | what a guest asks for, and how its monitor is told |
//! | [`ports`], [`cpuid`], [`msr`], [`fpu`] | what a guest sees besides memory |
//! | [`stage2`] | entry formats for the kernel's page-table walker, EPT and NPT; the tables of a virtual machine |
#![no_std]

extern crate alloc;

pub mod bitmap;
pub mod convertible;
pub mod cpuid;
pub mod divert;
pub mod exit;
pub mod fill;
pub mod fpu;
pub mod hypercall;
pub mod loader;
pub mod memory;
pub mod memslot;
pub mod msr;
pub mod ports;
pub mod ring;
#[cfg(not(target_os = "none"))]
pub mod soft;
pub mod stage2;
pub mod state;
pub mod svm;
pub mod userfault;
pub mod vcpu;
pub mod vendor;
pub mod vm;
pub mod vmx;
