//! Whether Faultline's own hypervisor runs this machine, and the instructions that call it and switch views.
//!
//! Intel's CPUs have VMCALL and AMD's VMMCALL; the other one's is an invalid opcode. Which it is, and whether anybody
//! listens, is asked of CPUID once: an instruction that exits.
#![expect(unsafe_code, reason = "VMCALL, VMMCALL, VMFUNC")]

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use raw_cpuid::{CpuId, cpuid};

use crate::abi::guest::{CPUID_SIGNATURE, SIGNATURE};

/// How the hypervisor is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Way {
    /// Not asked yet.
    Unknown = 0,
    /// There is none of ours.
    Nobody = 1,
    Vmcall = 2,
    Vmmcall = 3,
}

static WAY: AtomicU8 = AtomicU8::new(Way::Unknown as u8);

impl Way {
    /// Asks CPUID.
    fn detect() -> Self {
        let id = CpuId::new();
        if !id.get_feature_info().is_some_and(|f| f.has_hypervisor()) {
            return Self::Nobody;
        }
        let answer = cpuid!(CPUID_SIGNATURE);
        if [answer.ebx, answer.ecx, answer.edx] != SIGNATURE {
            return Self::Nobody;
        }
        let vendor = id.get_vendor_info();
        let is_amd = vendor.is_some_and(|v| matches!(v.as_str(), "AuthenticAMD" | "HygonGenuine"));
        if is_amd { Self::Vmmcall } else { Self::Vmcall }
    }

    #[inline]
    fn of_this_machine() -> Self {
        match WAY.load(Ordering::Relaxed) {
            1 => Self::Nobody,
            2 => Self::Vmcall,
            3 => Self::Vmmcall,
            _ => Self::detect_once(),
        }
    }

    #[cold]
    fn detect_once() -> Self {
        let way = Self::detect();
        WAY.store(way as u8, Ordering::Relaxed);
        way
    }
}

/// Whether this is a guest of Faultline's hypervisor.
#[inline]
pub fn is_guest() -> bool {
    Way::of_this_machine() != Way::Nobody
}

/// Calls the hypervisor: what comes back in RAX and RDX.
///
/// # Safety
/// What is asked for keeps to what this kernel's memory is used for: the caller owns the memory that the call names.
///
/// # Panics
/// Nobody listens ([`is_guest`]).
#[inline]
pub unsafe fn call(number: u64, arguments: [u64; 4]) -> (u64, u64) {
    let [rdi, rsi, mut rdx, r10] = arguments;
    let mut rax = number;
    // SAFETY: the instruction is the one that this CPU has; it changes RAX and RDX only, and memory as the caller vouches.
    unsafe {
        match Way::of_this_machine() {
            Way::Vmcall => {
                asm!("vmcall", inout("rax") rax, inout("rdx") rdx, in("rdi") rdi, in("rsi") rsi, in("r10") r10,
                     options(nostack));
            }
            Way::Vmmcall => {
                asm!("vmmcall", inout("rax") rax, inout("rdx") rdx, in("rdi") rdi, in("rsi") rsi, in("r10") r10,
                     options(nostack));
            }
            Way::Nobody | Way::Unknown => panic!("a hypercall, and no hypervisor to hear it"),
        }
    }
    (rax, rdx)
}

/// Has this CPU see memory in another view, without an exit: VMFUNC, function 0 (SDM vol. 3C, 26.5.6.3).
///
/// # Safety
/// The hypervisor has said that this CPU may switch, and `view` is one of its views, all of which have this kernel's memory.
#[inline]
pub unsafe fn switch_view(view: u64) {
    // SAFETY: the caller vouches for it; nothing changes but which delegated pages are there.
    unsafe { asm!("vmfunc", in("eax") 0, in("ecx") view, options(nostack, preserves_flags)) };
}
