//! Whether this CPU's VMX is enough.
//!
//! What the CPU says about itself is in [`Words`]; [`decide`] is a pure function of them. A control word is settled
//! as SDM vol. 3D, A.2-A.5 have it: its capability word has in the low half the bits that must be 1, in the high half those
//! that may be.
//!
//! | control | wanted | because |
//! | --- | --- | --- |
//! | pin-based | external-interrupt and NMI exiting | the host's interrupts are the host's |
//! | | the preemption timer where the CPU has it | see below |
//! | primary | HLT, MWAIT, MONITOR, RDPMC, MOV DR, I/O, CR8 exiting; MSR bitmaps | nothing of the host's is in reach |
//! | | without CR3, INVLPG and RDTSC exiting | with nested paging none of them is the host's business |
//! | secondary | EPT; WBINVD exiting and VPID where the CPU has them | |
//! | exit | 64-bit host, debug controls saved, PAT and EFER saved and loaded | |
//! | entry | debug controls, PAT and EFER loaded | |
//!
//! CR8 stands for the host's own task priority, which a guest could raise to keep interrupts away.
//!
//! Interrupts of the host's end a run whether the guest has interrupts on or off. Bochs (2.7) does not see to that when a guest
//! has them off from its entry on. So the preemption timer ends a run after a tick's time, which costs nothing where an
//! interrupt comes first.

use kernel::mm::addr::Pfn;

use crate::stage2::Caps;
use crate::vendor::{Features, Unavailable};

/// What the CPU says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    /// CPUID.1:ECX.VMX.
    pub present: bool,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// IA32_VMX_BASIC.
    pub basic: u64,
    /// Capabilities of the pin-based controls; of the "true" word where there is one, like the next three.
    pub pin: u64,
    /// Of the primary processor-based controls.
    pub primary: u64,
    /// Of the VM-exit controls.
    pub exit: u64,
    /// Of the VM-entry controls.
    pub entry: u64,
    /// Of the secondary processor-based controls; 0 where there are none.
    pub secondary: u64,
    /// IA32_VMX_EPT_VPID_CAP; 0 where there is none.
    pub ept_vpid: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// IA32_VMX_VMFUNC; 0 where there is none.
    pub functions: u64,
    /// The host's CR0.
    pub cr0: Fixed,
    /// The host's CR4 with VMXE set.
    pub cr4: Fixed,
    /// CPUID.8000_0008:EAX\[7:0\].
    pub physical_bits: u8,
}

/// A control register, and what VMX operation fixes in it (SDM vol. 3D, A.7 and A.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fixed {
    /// What the register holds.
    pub value: u64,
    /// Bits that are fixed to 1.
    pub ones: u64,
    /// Bits that may be 1.
    pub allowed: u64,
}

impl Fixed {
    const fn fits(&self) -> bool {
        !self.value & self.ones == 0 && self.value & !self.allowed == 0
    }
}

/// Which translations an INVEPT drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Invept {
    /// Those of one root.
    Single = 1,
    /// All.
    All = 2,
}

/// What is decided: the control words, and what goes with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    /// Revision of the VMCS, its first word.
    pub revision: u32,
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls, without [`ENTRY_LONG_MODE`].
    pub entry: u32,
    /// The preemption timer counts down every 2^n ticks of the TSC; none if there is none.
    pub timer_shift: Option<u32>,
    /// Low bits of an EPT pointer.
    pub pointer: u64,
    /// The narrowest INVEPT that there is.
    pub invept: Invept,
    /// Bits that the guest's CR4 must have.
    pub cr4_ones: u64,
    /// Bits that it may have.
    pub cr4_allowed: u64,
    /// What the stage-2 format may use.
    pub caps: Caps,
    /// What else there is.
    pub features: Features,
}

// SDM vol. 3C, 25.6.1, 25.6.2, 25.7.1, 25.8.1: bits of the control words.
const PIN_EXTERNAL_INTERRUPT: u32 = 1;
const PIN_NMI: u32 = 1 << 3;
const PIN_TIMER: u32 = 1 << 6;
/// An exit as soon as the guest can take an interrupt.
pub const PRIMARY_INTERRUPT_WINDOW: u32 = 1 << 2;
const PRIMARY_HLT: u32 = 1 << 7;
const PRIMARY_INVLPG: u32 = 1 << 9;
const PRIMARY_MWAIT: u32 = 1 << 10;
const PRIMARY_RDPMC: u32 = 1 << 11;
const PRIMARY_RDTSC: u32 = 1 << 12;
const PRIMARY_CR3_LOAD: u32 = 1 << 15;
const PRIMARY_CR3_STORE: u32 = 1 << 16;
const PRIMARY_CR8_LOAD: u32 = 1 << 19;
const PRIMARY_CR8_STORE: u32 = 1 << 20;
const PRIMARY_MOV_DR: u32 = 1 << 23;
const PRIMARY_IO: u32 = 1 << 24;
const PRIMARY_MSR_BITMAPS: u32 = 1 << 28;
const PRIMARY_MONITOR: u32 = 1 << 29;
pub(super) const PRIMARY_SECONDARY: u32 = 1 << 31;
pub(super) const SECONDARY_EPT: u32 = 1 << 1;
/// Translations are tagged, so that entries and exits need not drop them.
pub const SECONDARY_VPID: u32 = 1 << 5;
const SECONDARY_WBINVD: u32 = 1 << 6;
/// VMFUNC works in the guest.
pub const SECONDARY_FUNCTIONS: u32 = 1 << 13;
const SECONDARY_LOG: u32 = 1 << 17;
/// Convertible violations are delivered as #VE.
pub const SECONDARY_VIOLATION_EXCEPTION: u32 = 1 << 18;
const EXIT_SAVE_DEBUG: u32 = 1 << 2;
const EXIT_LONG_MODE: u32 = 1 << 9;
const EXIT_SAVE_PAT: u32 = 1 << 18;
const EXIT_LOAD_PAT: u32 = 1 << 19;
const EXIT_SAVE_EFER: u32 = 1 << 20;
const EXIT_LOAD_EFER: u32 = 1 << 21;
const ENTRY_LOAD_DEBUG: u32 = 1 << 2;
/// The guest is in long mode.
pub const ENTRY_LONG_MODE: u32 = 1 << 9;
const ENTRY_LOAD_PAT: u32 = 1 << 14;
const ENTRY_LOAD_EFER: u32 = 1 << 15;

impl Controls {
    /// The EPT pointer of the tables at `root`.
    pub const fn pointer_to(&self, root: Pfn) -> u64 {
        root.start().as_u64() | self.pointer
    }
}

/// Controls that are needed, each with its name for the message.
type Named = &'static [(u32, &'static str)];

const PIN: Named = &[
    (PIN_EXTERNAL_INTERRUPT, "external-interrupt exiting"),
    (PIN_NMI, "NMI exiting"),
];
const PRIMARY: Named = &[
    (PRIMARY_HLT, "HLT exiting"),
    (PRIMARY_MWAIT, "MWAIT exiting"),
    (PRIMARY_RDPMC, "RDPMC exiting"),
    (PRIMARY_CR8_LOAD, "CR8-load exiting"),
    (PRIMARY_CR8_STORE, "CR8-store exiting"),
    (PRIMARY_MOV_DR, "MOV-DR exiting"),
    (PRIMARY_IO, "unconditional I/O exiting"),
    (PRIMARY_MSR_BITMAPS, "MSR bitmaps"),
    (PRIMARY_MONITOR, "MONITOR exiting"),
    (PRIMARY_SECONDARY, "secondary controls"),
    (PRIMARY_INTERRUPT_WINDOW, "interrupt-window exiting"),
];
const SECONDARY: Named = &[(SECONDARY_EPT, "EPT")];
const EXIT: Named = &[
    (EXIT_LONG_MODE, "64-bit hosts"),
    (EXIT_SAVE_DEBUG, "saving debug controls"),
    (EXIT_SAVE_PAT, "saving the guest's PAT"),
    (EXIT_LOAD_PAT, "loading the host's PAT"),
    (EXIT_SAVE_EFER, "saving the guest's EFER"),
    (EXIT_LOAD_EFER, "loading the host's EFER"),
];
const ENTRY: Named = &[
    (ENTRY_LOAD_DEBUG, "loading debug controls"),
    (ENTRY_LONG_MODE, "64-bit guests"),
    (ENTRY_LOAD_PAT, "loading the guest's PAT"),
    (ENTRY_LOAD_EFER, "loading the guest's EFER"),
];
/// Primary controls that must not be forced on, with the name of doing without.
const PRIMARY_OFF: Named = &[
    (PRIMARY_CR3_LOAD, "loads of CR3 without an exit"),
    (PRIMARY_CR3_STORE, "stores of CR3 without an exit"),
    (PRIMARY_INVLPG, "INVLPG without an exit"),
    (PRIMARY_RDTSC, "RDTSC without an exit"),
];

/// IA32_FEATURE_CONTROL: the register cannot be changed any more (SDM vol. 3C, 24.7).
pub(super) const FEATURE_LOCKED: u64 = 1;
/// IA32_FEATURE_CONTROL: VMXON works outside SMX operation.
pub(super) const FEATURE_VMXON: u64 = 1 << 2;

/// IA32_VMX_BASIC: physical addresses of control structures have 32 bits only (SDM vol. 3D, A.1).
const BASIC_NARROW: u64 = 1 << 48;
/// IA32_VMX_BASIC: there are "true" capability words.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "read on the machine"))]
pub(super) const BASIC_TRUE_CONTROLS: u64 = 1 << 55;
const WRITE_BACK: u64 = 6;

// IA32_VMX_EPT_VPID_CAP (SDM vol. 3D, A.10).
const EPT_EXECUTE_ONLY: u64 = 1;
const EPT_FOUR_LEVELS: u64 = 1 << 6;
const EPT_WRITE_BACK: u64 = 1 << 14;
const EPT_LEAVES_2M: u64 = 1 << 16;
const EPT_LEAVES_1G: u64 = 1 << 17;
const EPT_INVEPT: u64 = 1 << 20;
const EPT_ACCESSED_DIRTY: u64 = 1 << 21;
const EPT_INVEPT_SINGLE: u64 = 1 << 25;
const EPT_INVEPT_ALL: u64 = 1 << 26;
/// INVVPID, and its single-context form.
const VPID_INVVPID: u64 = 1 << 32 | 1 << 41;

/// EPT pointer: write-back tables of four levels (SDM vol. 3C, table 25-9).
const POINTER: u64 = WRITE_BACK | 3 << 3;
const POINTER_ACCESSED_DIRTY: u64 = 1 << 6;

/// Guest-physical bits that tables of four levels translate.
const TABLE_BITS: u8 = 48;

/// The control words that this CPU takes, if it has all that is needed.
///
/// # Errors
/// What is missing; see [`Unavailable`].
pub fn decide(words: &Words) -> Result<Controls, Unavailable> {
    let lacking = |missing: bool, what| match missing {
        true => Err(Unavailable::Lacking(what)),
        false => Ok(()),
    };
    if !words.present {
        return Err(Unavailable::Absent);
    }
    if words.feature_control & (FEATURE_LOCKED | FEATURE_VMXON) == FEATURE_LOCKED {
        return Err(Unavailable::Locked);
    }
    lacking(
        words.basic >> 50 & 0xf != WRITE_BACK,
        "control structures in write-back memory",
    )?;
    lacking(words.basic & BASIC_NARROW != 0, "control structures above 4 GiB")?;
    lacking(
        words.basic >> 32 & 0x1fff > 4096,
        "control structures of one page",
    )?;
    lacking(!words.cr0.fits(), "the CR0 that the kernel runs with")?;
    lacking(!words.cr4.fits(), "the CR4 that the kernel runs with")?;
    let primary = settle(words.primary, PRIMARY)? & !PRIMARY_INTERRUPT_WINDOW;
    for &(bit, what) in PRIMARY_OFF {
        lacking(primary & bit != 0, what)?;
    }
    let present = |word: u64, bit: u32| if word >> 32 & u64::from(bit) != 0 { bit } else { 0 };
    let optional = |bit: u32| present(words.secondary, bit);
    let timer = present(words.pin, PIN_TIMER);
    let vpid = match words.ept_vpid & VPID_INVVPID == VPID_INVVPID {
        true => optional(SECONDARY_VPID),
        false => 0,
    };
    let secondary = settle(words.secondary, SECONDARY)? | optional(SECONDARY_WBINVD) | vpid;
    for (bit, what) in [
        (EPT_FOUR_LEVELS, "EPT tables of four levels"),
        (EPT_WRITE_BACK, "EPT tables in write-back memory"),
        (EPT_LEAVES_2M, "EPT leaves of 2 MiB"),
        (EPT_INVEPT, "INVEPT"),
        (
            EPT_INVEPT_SINGLE | EPT_INVEPT_ALL,
            "a kind of INVEPT that is known",
        ),
    ] {
        lacking(words.ept_vpid & bit == 0, what)?;
    }
    let accessed_dirty = words.ept_vpid & EPT_ACCESSED_DIRTY != 0;
    Ok(Controls {
        revision: words.basic as u32 & 0x7fff_ffff,
        pin: settle(words.pin, PIN)? | timer,
        primary,
        secondary,
        exit: settle(words.exit, EXIT)?,
        entry: settle(words.entry, ENTRY)? & !ENTRY_LONG_MODE,
        timer_shift: (timer != 0).then_some(words.misc as u32 & 31),
        pointer: POINTER | if accessed_dirty { POINTER_ACCESSED_DIRTY } else { 0 },
        invept: match words.ept_vpid & EPT_INVEPT_SINGLE != 0 {
            true => Invept::Single,
            false => Invept::All,
        },
        cr4_ones: words.cr4.ones,
        cr4_allowed: words.cr4.allowed,
        caps: Caps {
            leaves_1g: words.ept_vpid & EPT_LEAVES_1G != 0,
            execute_only: words.ept_vpid & EPT_EXECUTE_ONLY != 0,
        },
        features: Features {
            violation_exceptions: optional(SECONDARY_VIOLATION_EXCEPTION) != 0,
            root_switching: optional(SECONDARY_FUNCTIONS) != 0 && words.functions & 1 != 0,
            accessed_dirty,
            modification_log: accessed_dirty && optional(SECONDARY_LOG) != 0,
            physical_bits: words.physical_bits.min(TABLE_BITS),
        },
    })
}

/// The control word that has what is needed and what the CPU forces on.
fn settle(capabilities: u64, needed: Named) -> Result<u32, Unavailable> {
    let (forced, allowed) = (capabilities as u32, (capabilities >> 32) as u32);
    needed
        .iter()
        .try_fold(forced, |word, &(bit, what)| match allowed & bit != 0 {
            true => Ok(word | bit),
            false => Err(Unavailable::Lacking(what)),
        })
}
