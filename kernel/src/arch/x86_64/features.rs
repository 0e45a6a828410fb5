//! What the CPU can do, and the control registers set to it.
//!
//! Protection that the CPU has is switched on; what it lacks is done without and named once in the boot log.
#![expect(unsafe_code, reason = "control registers and MSRs")]

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;

bitflags! {
    /// Optional features that the kernel uses.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u32 {
        /// Pages without execute permission.
        const NX = 1 << 0;
        /// The kernel cannot execute user pages.
        const SMEP = 1 << 1;
        /// The kernel cannot touch user pages by accident.
        const SMAP = 1 << 2;
        /// User mode cannot read descriptor-table addresses.
        const UMIP = 1 << 3;
        /// Global pages.
        const PGE = 1 << 4;
        /// 1 GiB pages.
        const GIB_PAGES = 1 << 5;
        /// FS and GS base by instruction.
        const FSGSBASE = 1 << 6;
        /// The page attribute table.
        const PAT = 1 << 7;
        /// The local APIC's registers as MSRs.
        const X2APIC = 1 << 8;
        /// The TSC ticks at one rate in every power state.
        const INVARIANT_TSC = 1 << 9;
        /// Intel's virtualisation.
        const VMX = 1 << 10;
        /// AMD's virtualisation.
        const SVM = 1 << 11;
        /// Runs under a hypervisor that says so.
        const HYPERVISOR = 1 << 12;
    }
}

impl Features {
    /// Asks CPUID.
    pub fn detect() -> Self {
        let cpuid = CpuId::new();
        let mut found = Self::empty();
        if let Some(f) = cpuid.get_feature_info() {
            found.set(Self::PGE, f.has_pge());
            found.set(Self::PAT, f.has_pat());
            found.set(Self::X2APIC, f.has_x2apic());
            found.set(Self::VMX, f.has_vmx());
            found.set(Self::HYPERVISOR, f.has_hypervisor());
        }
        if let Some(f) = cpuid.get_extended_feature_info() {
            found.set(Self::SMEP, f.has_smep());
            found.set(Self::SMAP, f.has_smap());
            found.set(Self::UMIP, f.has_umip());
            found.set(Self::FSGSBASE, f.has_fsgsbase());
        }
        if let Some(f) = cpuid.get_extended_processor_and_feature_identifiers() {
            found.set(Self::NX, f.has_execute_disable());
            found.set(Self::GIB_PAGES, f.has_1gib_pages());
            found.set(Self::SVM, f.has_svm());
        }
        if let Some(f) = cpuid.get_advanced_power_mgmt_info() {
            found.set(Self::INVARIANT_TSC, f.has_invariant_tsc());
        }
        found
    }
}

/// What [`enable`] found, so that CPUID (an exit under a hypervisor) is not asked on busy paths.
static FOUND: AtomicU32 = AtomicU32::new(0);

/// What the boot CPU has; nothing before [`enable`].
#[inline]
pub fn features() -> Features {
    Features::from_bits_retain(FOUND.load(Ordering::Relaxed))
}

/// IA32_PAT (SDM vol. 3A 13.12.2).
const IA32_PAT: Msr = Msr::new(0x277);
/// The reset values of all entries but number 4, which becomes write-combining (1): the entry that a page-table leaf
/// chooses with its PAT bit set and PCD and PWT clear. Nothing uses that entry yet, so no cache has to be flushed.
const PAT: u64 = 0x0007_0401_0007_0406;

/// Sets this CPU's control registers.
pub fn enable() {
    let features = Features::detect();
    FOUND.store(features.bits(), Ordering::Relaxed);
    let cr0 =
        (Cr0::read() | Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR | Cr0Flags::MONITOR_COPROCESSOR)
            - (Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED | Cr0Flags::ALIGNMENT_MASK);
    let mut cr4 =
        Cr4::read() | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | Cr4Flags::MACHINE_CHECK_EXCEPTION;
    cr4.set(Cr4Flags::PAGE_GLOBAL, features.contains(Features::PGE));
    cr4.set(
        Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
        features.contains(Features::SMEP),
    );
    cr4.set(
        Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
        features.contains(Features::SMAP),
    );
    cr4.set(
        Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION,
        features.contains(Features::UMIP),
    );
    // User mode must not set GS's base by itself: entry code tells kernel and user by it.
    cr4.remove(Cr4Flags::FSGSBASE);
    let mut efer = Efer::read();
    efer.set(EferFlags::NO_EXECUTE_ENABLE, features.contains(Features::NX));
    // SAFETY: long mode and paging stay as they are; what is switched on is present (CPUID) and restricts user pages,
    // of which there are none yet, and read-only pages, which this code does not write.
    unsafe {
        Cr0::write(cr0);
        Cr4::write(cr4);
        Efer::write(efer);
    }
    if features.contains(Features::PAT) {
        let mut pat = IA32_PAT;
        // SAFETY: every entry is a defined memory type, and those in use keep theirs.
        unsafe { pat.write(PAT) };
    }
}

/// One line about the CPU for the boot log: its name, then the features found.
#[derive(Debug)]
pub struct Summary;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpuid = CpuId::new();
        match cpuid.get_processor_brand_string() {
            Some(brand) => f.write_str(brand.as_str().trim())?,
            None => f.write_str("unnamed CPU")?,
        }
        let found = features();
        f.write_str("; with")?;
        found
            .iter_names()
            .try_for_each(|(name, _)| write!(f, " {}", Lower(name)))?;
        let wanted =
            Features::NX | Features::SMEP | Features::SMAP | Features::UMIP | Features::PGE | Features::PAT;
        let missing = wanted - found;
        if !missing.is_empty() {
            f.write_str("; without")?;
            missing
                .iter_names()
                .try_for_each(|(name, _)| write!(f, " {}", Lower(name)))?;
        }
        Ok(())
    }
}

/// A name in lower case.
struct Lower<'a>(&'a str);

impl fmt::Display for Lower<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0
            .chars()
            .try_for_each(|c| f.write_char(c.to_ascii_lowercase()))
    }
}
