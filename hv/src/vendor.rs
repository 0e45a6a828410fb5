//! The line between the hypervisor and the CPU's virtualisation.
//!
//! [`Vendor`] is the whole contract; [`svm`](crate::svm) and [`vmx`](crate::vmx) are twins behind it, with the same file
//! names. Nothing outside those folders names a control block. Tests have a third: a scripted CPU on the software machine.
//!
//! A vCPU is run by one task at a time. It keeps nothing on the CPU between two runs that the next one does not set up
//! again, so tasks with vCPUs may be preempted between runs like any other.

use core::fmt;

use kernel::mm::addr::{GuestPhysAddr, Pfn};
use kernel::mm::frame::OutOfFrames;
use kernel::mm::pt::PtFormat;

use crate::exit::Stopped;
use crate::state::{Injection, Registers, SystemState};

/// Why guests cannot be run on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// CPUID says no.
    Absent,
    /// The firmware has switched it off and locked that: by IA32_FEATURE_CONTROL, or VM_CR.SVMDIS.
    Locked,
    /// Something that is needed is missing; named.
    Lacking(&'static str),
    /// No frame for what the CPU itself needs.
    OutOfFrames,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the CPU has no virtualisation that it shows"),
            Self::Locked => {
                f.write_str("the firmware has switched the CPU's virtualisation off and locked it")
            }
            Self::Lacking(what) => write!(f, "the CPU's virtualisation lacks {what}"),
            Self::OutOfFrames => {
                f.write_str("no physical memory is left for the CPU's own control structures")
            }
        }
    }
}

/// What the CPU's virtualisation can do beyond what every guest needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Stage-2 violations can be delivered to the guest as #VE.
    pub violation_exceptions: bool,
    /// VMFUNC function 0: the guest switches among stage-2 roots.
    pub root_switching: bool,
    /// Stage-2 accessed and dirty bits.
    pub accessed_dirty: bool,
    /// A log of written pages is kept by the CPU (PML).
    pub modification_log: bool,
    /// Bits of a guest-physical address that stage 2 translates.
    pub physical_bits: u8,
}

/// Whether an injection was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Injected {
    /// It is delivered with the next run.
    Queued,
    /// The guest cannot take an interrupt now. The next run ends with
    /// [`InterruptWindow`](crate::exit::Exit::InterruptWindow) as soon as it can.
    NotNow,
}

/// How #VE and VMFUNC are set up for a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViolationException<'a> {
    /// Page of the machine that the CPU describes a violation in (SDM vol. 3C, 26.5.7.2).
    pub info: Pfn,
    /// Roots of stage-2 tables that the guest may switch among (26.5.6.3), by their place in this list; the first is that of
    /// the vCPU, and the guest begins there. At most [`MAX_ROOTS`]; none: it may not switch. All of them outlive the vCPU.
    pub roots: &'a [Pfn],
}

/// Most roots that a guest can switch among.
pub const MAX_ROOTS: usize = 512;

/// Why violations cannot be diverted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DivertError {
    /// The CPU has no such thing.
    NotSupported,
    /// No frame for the list of roots.
    OutOfFrames,
}

/// A vendor's virtualisation.
pub trait Vendor: Sized + Send + Sync + fmt::Debug + 'static {
    /// The entries of its stage-2 tables.
    type Format: PtFormat<Addr = GuestPhysAddr>;
    /// A vCPU's control block.
    type Vcpu: Send + fmt::Debug;
    /// "SVM with NPT", "VMX with EPT".
    const NAME: &'static str;
    /// How a guest spells a hypercall: VMMCALL or VMCALL.
    const HYPERCALL: [u8; 3];

    /// Checks everything that is needed, and switches this CPU's virtualisation on; again does nothing. Tells the stage-2
    /// format what the CPU can do ([`set_caps`](crate::stage2::set_caps)).
    ///
    /// # Errors
    /// See [`Unavailable`]; nothing was switched on.
    fn enable() -> Result<Features, Unavailable>;

    /// A vCPU whose stage-2 tables have their root at `root`, which outlive it. Its state has to be loaded before it runs.
    ///
    /// # Errors
    /// No frame for the control block.
    fn create(root: Pfn) -> Result<Self::Vcpu, OutOfFrames>;

    /// The state of a vCPU, besides its registers.
    fn save(vcpu: &mut Self::Vcpu) -> SystemState;

    /// Gives a vCPU this state. What was to be injected and the window that somebody waits for are dropped, in favour of what
    /// the state says. What the CPU refuses shows at the next run
    /// ([`EntryRefused`](crate::exit::Exit::EntryRefused)).
    fn load(vcpu: &mut Self::Vcpu, state: &SystemState);

    /// Runs the guest until it stops, with `registers`, which are brought up to date. With `flush`, translations that the
    /// CPU has cached for the vCPU's tables are dropped first.
    ///
    /// Interrupts of the host end the run; they are delivered before or soon after this returns. An event whose delivery was
    /// cut short by the exit is injected again by the next run, by itself.
    fn run(vcpu: &mut Self::Vcpu, registers: &mut Registers, flush: bool) -> Stopped;

    /// Has the next run deliver something to the guest. An exception is always queued.
    fn inject(vcpu: &mut Self::Vcpu, registers: &Registers, what: Injection) -> Injected;

    /// Has convertible stage-2 violations delivered to the guest as #VE, and lets it switch roots; `None` ends that.
    ///
    /// # Errors
    /// See [`DivertError`]; nothing changed.
    fn divert_violations(
        vcpu: &mut Self::Vcpu,
        how: Option<ViolationException<'_>>,
    ) -> Result<(), DivertError> {
        let _ = vcpu;
        match how {
            None => Ok(()),
            Some(_) => Err(DivertError::NotSupported),
        }
    }
}
