//! Switching VMX on: reading what the CPU says about itself, and VMXON.
//!
//! A CPU that is in VMX operation stays in it, and keeps a frame for that; one further frame serves all CPUs.
#![expect(unsafe_code, reason = "MSRs, CR4 and VMXON")]

use core::arch::asm;

use kernel::arch::{Cpu, Irq, MAX_CPUS, Machine};
use kernel::mm::addr::Pfn;
use kernel::mm::frame::{Frame, KernelData, OutOfFrames};
use kernel::mm::phys;
use kernel::sync::{Once, SpinLock};
use x86_64::registers::control::{Cr0, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::control::msr_bitmap;
use super::detect::{
    BASIC_TRUE_CONTROLS, Controls, FEATURE_LOCKED, FEATURE_VMXON, Fixed, PRIMARY_SECONDARY, SECONDARY_EPT,
    SECONDARY_FUNCTIONS, SECONDARY_VPID, Words, decide,
};
use crate::stage2::set_caps;
use crate::vendor::{Features, Unavailable};

const IA32_FEATURE_CONTROL: u32 = 0x3a;
const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_MISC: u32 = 0x485;
const IA32_VMX_CR0_FIXED0: u32 = 0x486;
const IA32_VMX_CR4_FIXED0: u32 = 0x488;
const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
const IA32_VMX_VMFUNC: u32 = 0x491;
/// PINBASED, PROCBASED, EXIT, ENTRY, in a row; and their "true" forms, likewise.
const IA32_VMX_CTLS: u32 = 0x481;
const IA32_VMX_TRUE_CTLS: u32 = 0x48d;

/// What the machine keeps for VMX operation, for good.
#[derive(Debug)]
pub struct Enabled {
    /// What was decided.
    pub controls: Controls,
    /// Which MSRs a guest reaches without an exit.
    pub msr_bitmap: Frame<KernelData>,
}

static ENABLED: Once<Enabled> = Once::new();
/// The VMXON region of each CPU: while it is there, the CPU is in VMX operation.
static REGIONS: SpinLock<[Option<Frame<KernelData>>; MAX_CPUS]> = SpinLock::new([const { None }; MAX_CPUS]);

/// What [`enable`] has decided.
///
/// # Panics
/// It was not called, or failed.
pub fn enabled() -> &'static Enabled {
    ENABLED.get().expect("VMX is switched on before vCPUs are made")
}

/// Switches this CPU to VMX operation; see [`Vendor::enable`](crate::vendor::Vendor::enable).
///
/// # Errors
/// Nothing was switched on.
pub fn enable() -> Result<Features, Unavailable> {
    let mut regions = REGIONS.lock();
    let region = &mut regions[Machine::id()];
    if region.is_some() {
        return Ok(enabled().controls.features);
    }
    let words = read();
    let controls = decide(&words)?;
    if ENABLED.get().is_none() {
        let msr_bitmap = msr_bitmap().map_err(out_of_frames)?;
        set_caps(controls.caps);
        ENABLED.call_once(|| Enabled { controls, msr_bitmap });
    }
    let fresh = region_of(controls.revision).map_err(out_of_frames)?;
    if words.feature_control & FEATURE_LOCKED == 0 {
        // SAFETY: nobody has locked the register, and these are the two bits that VMXON wants.
        unsafe {
            Msr::new(IA32_FEATURE_CONTROL).write(words.feature_control | FEATURE_LOCKED | FEATURE_VMXON)
        };
    }
    if !switch_on(fresh.pfn()) {
        return Err(Unavailable::Lacking(
            "a VMXON that succeeds: somebody else uses it",
        ));
    }
    *region = Some(fresh);
    Ok(controls.features)
}

fn out_of_frames(_: OutOfFrames) -> Unavailable {
    Unavailable::OutOfFrames
}

/// A VMXON region or a VMCS: a page that begins with the revision.
pub(super) fn region_of(revision: u32) -> Result<Frame<KernelData>, OutOfFrames> {
    let mut region = Frame::alloc_zeroed()?;
    phys::fill(&mut region, &revision.to_le_bytes());
    Ok(region)
}

/// VMXON; whether it succeeded.
fn switch_on(region: Pfn) -> bool {
    let irq = Machine::disable();
    let at = region.start().as_u64();
    let refused: u8;
    // SAFETY: CPUID has VMX; CR4.VMXE changes nothing by itself. The region is a page of its own with the revision in
    // its first word, and is kept from now on (`enable`).
    unsafe {
        Cr4::write(Cr4::read() | Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS);
        asm!("vmxon [{at}]", "setna {refused}", at = in(reg) &raw const at, refused = out(reg_byte) refused,
             options(nostack));
        if refused != 0 {
            Cr4::write(Cr4::read() - Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS);
        }
    }
    Machine::restore(irq);
    refused == 0
}

/// Asks the CPU. A register is read only where those before it say that it exists.
fn read() -> Words {
    let cpuid = raw_cpuid::CpuId::new();
    let present = cpuid.get_feature_info().is_some_and(|f| f.has_vmx());
    let msr = |number: u32, exists: bool| match exists {
        // SAFETY: the registers exist: most with CPUID's VMX bit, the others as each condition says (SDM vol. 3D, A).
        true => unsafe { Msr::new(number).read() },
        false => 0,
    };
    let basic = msr(IA32_VMX_BASIC, present);
    let controls = match basic & BASIC_TRUE_CONTROLS != 0 {
        true => IA32_VMX_TRUE_CTLS,
        false => IA32_VMX_CTLS,
    };
    let may = |word: u64, bit: u32| word >> 32 & u64::from(bit) != 0;
    let primary = msr(controls + 1, present);
    let secondary = msr(IA32_VMX_PROCBASED_CTLS2, may(primary, PRIMARY_SECONDARY));
    let fixed = |first: u32, value: u64| Fixed {
        value,
        ones: msr(first, present),
        allowed: msr(first + 1, present),
    };
    Words {
        present,
        feature_control: msr(IA32_FEATURE_CONTROL, present),
        basic,
        pin: msr(controls, present),
        primary,
        exit: msr(controls + 2, present),
        entry: msr(controls + 3, present),
        secondary,
        ept_vpid: msr(
            IA32_VMX_EPT_VPID_CAP,
            may(secondary, SECONDARY_EPT | SECONDARY_VPID),
        ),
        misc: msr(IA32_VMX_MISC, present),
        functions: msr(IA32_VMX_VMFUNC, may(secondary, SECONDARY_FUNCTIONS)),
        cr0: fixed(IA32_VMX_CR0_FIXED0, Cr0::read_raw()),
        cr4: fixed(
            IA32_VMX_CR4_FIXED0,
            Cr4::read_raw() | Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits(),
        ),
        physical_bits: cpuid
            .get_processor_capacity_feature_info()
            .map_or(36, |f| f.physical_address_bits()),
    }
}
