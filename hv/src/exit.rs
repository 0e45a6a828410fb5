//! Why a guest stopped running: one enum for both vendors.
//!
//! | [`Exit`] | SVM (APM vol. 2, appendix C) | VMX (SDM vol. 3D, appendix C) |
//! | --- | --- | --- |
//! | [`Halt`](Exit::Halt) | VMEXIT_HLT 0x78 | 12 |
//! | [`Io`](Exit::Io) | VMEXIT_IOIO 0x7b | 30 |
//! | [`Cpuid`](Exit::Cpuid) | VMEXIT_CPUID 0x72 | 10 |
//! | [`Msr`](Exit::Msr) | VMEXIT_MSR 0x7c | 31, 32 |
//! | [`Hypercall`](Exit::Hypercall) | VMEXIT_VMMCALL 0x81 | 18 |
//! | [`Violation`](Exit::Violation) | VMEXIT_NPF 0x400 | 48 |
//! | [`Shutdown`](Exit::Shutdown) | VMEXIT_SHUTDOWN 0x7f | 2 |
//! | [`InterruptWindow`](Exit::InterruptWindow) | VMEXIT_VINTR 0x64 | 7 |
//! | [`HostInterrupt`](Exit::HostInterrupt) | VMEXIT_INTR 0x60, NMI 0x61 | 1, 0 |
//! | [`Privileged`](Exit::Privileged) | the other intercepted instructions | likewise |
//! | [`EntryRefused`](Exit::EntryRefused) | VMEXIT_INVALID -1 | a failed entry, reason bit 31 |
//! | [`Unknown`](Exit::Unknown) | everything else | everything else |

use core::fmt;

use kernel::mm::addr::{GuestPhysAddr, VirtAddr};
use kernel::mm::fault::Access;

/// What the CPU itself said: the vendor's code and its qualification, for messages and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Raw {
    /// EXITCODE, or the basic exit reason with its flag bits.
    pub code: u64,
    /// EXITINFO1, or the exit qualification.
    pub info: u64,
    /// EXITINFO2, or the VM-exit interruption information or instruction information that belongs to the code.
    pub more: u64,
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, info, more } = self;
        write!(f, "exit code {code:#x}, info {info:#x}, {more:#x}")
    }
}

/// An exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// Why, as the vendors have it in common.
    pub exit: Exit,
    /// As this vendor's CPU said it.
    pub raw: Raw,
}

/// Why a guest stopped. Where an instruction was intercepted, `len` is its length in bytes: who emulates it moves RIP on
/// by that much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// HLT.
    Halt {
        /// Length of the instruction.
        len: u8,
    },
    /// IN or OUT.
    Io(PortAccess),
    /// CPUID.
    Cpuid {
        /// Length of the instruction.
        len: u8,
    },
    /// RDMSR or WRMSR of the register that ECX names.
    Msr {
        /// Whether it is WRMSR.
        write: bool,
        /// Length of the instruction.
        len: u8,
    },
    /// VMCALL or VMMCALL.
    Hypercall {
        /// Whether it came from a privilege level above 0.
        user: bool,
        /// Length of the instruction.
        len: u8,
    },
    /// Stage 2 does not allow an access. Nothing was executed.
    Violation(Violation),
    /// A triple fault, or the INIT-like state that follows.
    Shutdown,
    /// The guest can take an interrupt, and somebody had asked to be told.
    InterruptWindow,
    /// An interrupt or an NMI of the host's; it is delivered as soon as the host has interrupts on.
    HostInterrupt,
    /// An instruction that the guest may not execute and that nobody emulates; named.
    Privileged(&'static str),
    /// The CPU refused the state of the vCPU.
    EntryRefused,
    /// A stage-2 entry that no CPU takes, or another sign of a mistake of the hypervisor's own.
    Misconfigured(GuestPhysAddr),
    /// Nothing that is known here.
    Unknown,
}

/// IN or OUT of a register. String forms are told apart: nobody emulates them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortAccess {
    /// Which port.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// Whether it is OUT: AL, AX or EAX goes out.
    pub write: bool,
    /// INS or OUTS, possibly repeated.
    pub string: bool,
    /// Length of the instruction.
    pub len: u8,
}

/// An access that stage 2 does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What was touched.
    pub addr: GuestPhysAddr,
    /// How. A walk of the guest's tables reads, or writes where it sets accessed and dirty bits.
    pub access: Access,
    /// The guest-virtual address, where the CPU says it and it has one.
    pub linear: Option<VirtAddr>,
    /// Whether it was the CPU's own walk of the guest's page tables that touched it.
    pub walk: bool,
    /// Whether there is a translation, which does not allow the access.
    pub present: bool,
    /// With which of the roots that the guest may switch among, by its place in their list; 0 where it cannot.
    pub root: u16,
    /// Whether an event was being delivered to the guest; it is delivered again when the guest goes on.
    pub in_delivery: bool,
}
