//! x87, SSE and AVX registers of user mode.
//!
//! The kernel is built without them, so they stay in the CPU until somebody else's user mode runs there
//! ([`super::Extra`]). XSAVE's standard format is used where the CPU has it, the one that signal frames show; else FXSAVE's.
#![expect(unsafe_code, reason = "XSAVE, XRSTOR, FXSAVE, FXRSTOR, XSETBV")]

use alloc::boxed::Box;
use alloc::vec;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// Bytes of the part that FXSAVE knows.
pub const LEGACY: usize = 512;
/// Bytes of XSAVE's header, behind it.
const HEADER: usize = 64;
/// x87, SSE and AVX.
const WANTED: u64 = 7;

/// The state components in use; 0: FXSAVE alone.
static COMPONENTS: AtomicU64 = AtomicU64::new(0);
/// Bytes of an area.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY as u32);

/// A unit of the area, aligned as XSAVE wants it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// The registers of one thread.
pub struct Fpu(Box<[Line]>);

/// Switches on what the CPU has.
pub(super) fn enable() {
    let cpuid = CpuId::new();
    if !cpuid.get_feature_info().is_some_and(|f| f.has_xsave()) {
        return;
    }
    let state = __cpuid_count(0xd, 0);
    let components = (u64::from(state.edx) << 32 | u64::from(state.eax)) & WANTED;
    // SAFETY: CPUID says that there is XSAVE.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::OSXSAVE)) };
    set_components(components);
    // Asked again: the answer is for the components that are switched on.
    SIZE.store(__cpuid_count(0xd, 0).ebx, Ordering::Relaxed);
    COMPONENTS.store(components, Ordering::Relaxed);
}

/// Has the CPU take these components, which it has and x87 is one of, for all there are.
fn set_components(components: u64) {
    // SAFETY: CR4.OSXSAVE is set. Nobody uses what is left out, and it is not lost.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") components as u32, in("edx") (components >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Leaves x87 and SSE alone in force: those who claim the registers save no others, so nobody in their place may use others.
pub(super) fn narrow() {
    if components() != 0 {
        set_components(1);
    }
}

/// Ends what [`narrow`] began.
pub(super) fn widen() {
    match components() {
        0 => {}
        components => set_components(components),
    }
}

/// Bytes of an area.
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// The components in an area, as in XCR0; 0 when it has only the legacy part.
pub fn components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

impl Fpu {
    /// As a program finds them: all exceptions masked, everything else 0.
    pub(super) fn new() -> Self {
        let mut fpu = Self(vec![Line([0; 64]); size().div_ceil(64)].into_boxed_slice());
        fpu.bytes_mut()[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        fpu.bytes_mut()[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        fpu
    }

    pub(super) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// The area, in XSAVE's standard format or FXSAVE's.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: lines are bytes, one behind the other.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), size()) }
    }

    /// Back to what a program finds.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Takes the contents over from somewhere that may be anything; what the CPU would not load is put right. A short area
    /// leaves the components that it does not reach in their initial state.
    pub fn set(&mut self, area: &[u8]) {
        let len = area.len().min(size());
        self.reset();
        self.bytes_mut()[..len].copy_from_slice(&area[..len]);
        // Bits of MXCSR that no CPU has.
        self.bytes_mut()[26..28].fill(0);
        if components() == 0 {
            return;
        }
        let known = components();
        let bytes = self.bytes_mut();
        let header = &mut bytes[LEGACY..LEGACY + HEADER];
        let present = match len >= LEGACY + HEADER {
            true => u64::from_le_bytes(header[..8].try_into().expect("8 bytes")) & known,
            false => 3,
        };
        header.fill(0);
        header[..8].copy_from_slice(&present.to_le_bytes());
    }

    #[inline]
    pub(super) fn save(&mut self) {
        let area = self.0.as_mut_ptr();
        match components() {
            // SAFETY: the area is aligned and as long as the instruction writes.
            0 => unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) },
            // SAFETY: as above, for the components that are switched on.
            _ => unsafe {
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                     options(nostack, preserves_flags));
            },
        }
    }

    #[inline]
    pub(super) fn load(&self) {
        let area = self.0.as_ptr();
        match components() {
            // SAFETY: the area is aligned, as long as the instruction reads, and has no reserved bit set (`set`).
            0 => unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags)) },
            // SAFETY: as above; the header names only components that are switched on.
            _ => unsafe {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                     options(nostack, preserves_flags));
            },
        }
    }
}
