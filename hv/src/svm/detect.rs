//! Finding out about SVM, and switching it on (APM vol. 2, 15.4 and 15.30).
//!
//! What is there is asked once as a handful of words, and one pure function decides; only then is anything changed.
#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "EFER and SVM's MSRs"))]

use crate::vendor::{Features, Unavailable};

/// What CPUID and VM_CR say, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Words {
    /// Largest extended leaf.
    max_leaf: u32,
    /// 8000_0001.
    feature_ecx: u32,
    feature_edx: u32,
    /// 8000_0008 EAX.
    widths: u32,
    /// 8000_000A.
    svm_ebx: u32,
    svm_edx: u32,
    /// The MSR; 0 where there is no SVM.
    vm_cr: u64,
}

/// What matters of that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Number of address-space identifiers, 0 included, which is the host's.
    pub asids: u32,
    /// VMRUN can flush what belongs to one identifier.
    pub flush_by_asid: bool,
    /// Nested tables may have leaves of 1 GiB.
    pub leaves_1g: bool,
    /// Bits of a guest-physical address.
    pub physical_bits: u8,
    /// Firmware has switched SVM off, but not for good.
    pub switched_off: bool,
}

const SVM_LEAF: u32 = 0x8000_000a;

/// ECX of leaf 8000_0001.
const SVM: u32 = 1 << 2;
/// EDX of leaf 8000_0001.
const NX: u32 = 1 << 20;
const GIB_PAGES: u32 = 1 << 26;
/// EDX of leaf 8000_000A.
const NESTED_PAGING: u32 = 1 << 0;
const FLUSH_BY_ASID: u32 = 1 << 6;

/// VM_CR (15.30.1).
const VM_CR_LOCK: u64 = 1 << 3;
const VM_CR_SVMDIS: u64 = 1 << 4;

/// Four levels of nested tables translate this many bits.
const NESTED_BITS: u8 = 48;

impl Found {
    /// Whether guests can be run on a CPU that says this.
    pub fn decide(words: &Words) -> Result<Self, Unavailable> {
        if words.feature_ecx & SVM == 0 {
            return Err(Unavailable::Absent);
        }
        if words.max_leaf < SVM_LEAF {
            return Err(Unavailable::Lacking("its description in CPUID leaf 0x8000000a"));
        }
        if words.vm_cr & VM_CR_SVMDIS != 0 && words.vm_cr & VM_CR_LOCK != 0 {
            return Err(Unavailable::Locked);
        }
        if words.svm_edx & NESTED_PAGING == 0 {
            return Err(Unavailable::Lacking("nested paging"));
        }
        if words.feature_edx & NX == 0 {
            // Nested tables are of the host's format, with its EFER.NXE.
            return Err(Unavailable::Lacking("pages without execute permission"));
        }
        let asids = words.svm_ebx;
        if asids < 2 {
            return Err(Unavailable::Lacking("address-space identifiers"));
        }
        let [physical, _, guest_physical, _] = words.widths.to_le_bytes();
        let width = if guest_physical == 0 {
            physical
        } else {
            guest_physical
        };
        if width == 0 {
            return Err(Unavailable::Lacking("a physical address width"));
        }
        Ok(Self {
            asids,
            flush_by_asid: words.svm_edx & FLUSH_BY_ASID != 0,
            leaves_1g: words.feature_edx & GIB_PAGES != 0,
            physical_bits: width.min(NESTED_BITS),
            switched_off: words.vm_cr & VM_CR_SVMDIS != 0,
        })
    }

    /// The same in the hypervisor's words. Nested entries always have accessed and dirty bits.
    pub fn features(&self) -> Features {
        Features {
            accessed_dirty: true,
            physical_bits: self.physical_bits,
            ..Features::default()
        }
    }
}

#[cfg(target_os = "none")]
mod hardware {
    use kernel::mm::addr::PhysAddr;
    use raw_cpuid::native_cpuid::cpuid_count;
    use x86_64::registers::control::{Efer, EferFlags};
    use x86_64::registers::model_specific::Msr;

    use super::{Found, SVM, VM_CR_SVMDIS, Words};

    const VM_CR: Msr = Msr::new(0xc001_0114);
    const VM_HSAVE_PA: Msr = Msr::new(0xc001_0117);

    impl Words {
        /// Asks this CPU.
        pub fn ask() -> Self {
            let max_leaf = cpuid_count(0x8000_0000, 0).eax;
            let leaf = |number| (number <= max_leaf).then(|| cpuid_count(number, 0));
            let features = leaf(0x8000_0001);
            let svm = leaf(super::SVM_LEAF);
            let feature_ecx = features.map_or(0, |f| f.ecx);
            Self {
                max_leaf,
                feature_ecx,
                feature_edx: features.map_or(0, |f| f.edx),
                widths: leaf(0x8000_0008).map_or(0, |w| w.eax),
                svm_ebx: svm.map_or(0, |s| s.ebx),
                svm_edx: svm.map_or(0, |s| s.edx),
                vm_cr: if feature_ecx & SVM == 0 {
                    0
                } else {
                    // SAFETY: every CPU with SVM has this MSR; reading it changes nothing.
                    unsafe { VM_CR.read() }
                },
            }
        }
    }

    /// Switches SVM on, with `save_area` for the host's state. Again does nothing new.
    ///
    /// # Safety
    /// The page at `save_area` is the CPU's from now on.
    pub unsafe fn switch_on(found: &Found, save_area: PhysAddr) {
        let (mut vm_cr, mut hsave) = (VM_CR, VM_HSAVE_PA);
        // SAFETY: SVM is there and not locked (`Found::decide`). SVME only makes its instructions legal; the save area is
        // the caller's promise.
        unsafe {
            if found.switched_off {
                vm_cr.write(VM_CR.read() & !VM_CR_SVMDIS);
            }
            Efer::write(Efer::read() | EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE);
            hsave.write(save_area.as_u64());
        }
    }
}

#[cfg(target_os = "none")]
pub(super) use hardware::switch_on;

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU with everything.
    const GOOD: Words = Words {
        max_leaf: 0x8000_001f,
        feature_ecx: SVM,
        feature_edx: NX | GIB_PAGES,
        widths: 0x30_30,
        svm_ebx: 0x8000,
        svm_edx: NESTED_PAGING | FLUSH_BY_ASID,
        vm_cr: 0,
    };

    #[test]
    fn everything_there_is_found() {
        let found = Found {
            asids: 0x8000,
            flush_by_asid: true,
            leaves_1g: true,
            physical_bits: 48,
            switched_off: false,
        };
        assert_eq!(Found::decide(&GOOD), Ok(found));
    }

    #[test]
    fn what_is_missing_is_refused_by_name() {
        let lacking = |words: Words| match Found::decide(&words) {
            Err(Unavailable::Lacking(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            Found::decide(&Words {
                feature_ecx: 0,
                ..GOOD
            }),
            Err(Unavailable::Absent)
        );
        assert!(
            lacking(Words {
                max_leaf: 0x8000_0008,
                ..GOOD
            })
            .contains("0x8000000a")
        );
        assert_eq!(
            lacking(Words {
                svm_edx: FLUSH_BY_ASID,
                ..GOOD
            }),
            "nested paging"
        );
        assert_eq!(
            lacking(Words {
                feature_edx: GIB_PAGES,
                ..GOOD
            }),
            "pages without execute permission"
        );
        assert_eq!(lacking(Words { svm_ebx: 1, ..GOOD }), "address-space identifiers");
        assert_eq!(lacking(Words { widths: 0, ..GOOD }), "a physical address width");
    }

    #[test]
    fn switched_off_is_refused_only_when_it_is_locked() {
        let with = |vm_cr| Found::decide(&Words { vm_cr, ..GOOD });
        assert_eq!(with(VM_CR_SVMDIS | VM_CR_LOCK), Err(Unavailable::Locked));
        assert!(with(VM_CR_SVMDIS).is_ok_and(|found| found.switched_off));
        assert!(with(VM_CR_LOCK).is_ok_and(|found| !found.switched_off));
    }

    #[test]
    fn optional_features_are_done_without() {
        let found = Found::decide(&Words {
            feature_edx: NX,
            svm_edx: NESTED_PAGING,
            ..GOOD
        });
        assert!(found.is_ok_and(|found| !found.flush_by_asid && !found.leaves_1g));
    }

    #[test]
    fn guest_addresses_are_as_wide_as_both_the_cpu_and_four_levels_allow() {
        let width = |widths| Found::decide(&Words { widths, ..GOOD }).map(|found| found.physical_bits);
        assert_eq!(width(0x3028), Ok(40));
        assert_eq!(width(0x3034), Ok(48));
        // A width of its own for guests (bits 16-23) goes before the CPU's.
        assert_eq!(width(0x27_3030), Ok(39));
    }
}
