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

use crate::arch::user::{HEADER, LEGACY, TRAILER, label_area};

/// x87, SSE and AVX.
const WANTED: u64 = 7;
/// Most bytes of an area with these (SDM vol. 1, 13.4).
const MOST: usize = 832;

/// The state components in use; 0: FXSAVE alone.
static COMPONENTS: AtomicU64 = AtomicU64::new(0);
/// Bytes of an area.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY as u32);

/// A unit of the area, aligned as XSAVE wants it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// The registers of one thread.
pub struct Fpu {
    /// The area, and room for a label behind it.
    lines: Box<[Line]>,
    /// The registers are as a program finds them, whatever the area has.
    is_initial: bool,
}

/// What a program finds: all exceptions masked, everything else 0.
static INITIAL: [Line; MOST / 64] = {
    let mut lines = [Line([0; 64]); MOST / 64];
    let [control, mxcsr] = [0x37f_u32.to_le_bytes(), 0x1f80_u32.to_le_bytes()];
    (lines[0].0[0], lines[0].0[1]) = (control[0], control[1]);
    (lines[0].0[24], lines[0].0[25]) = (mxcsr[0], mxcsr[1]);
    lines
};

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
    let size = __cpuid_count(0xd, 0).ebx;
    assert!(size as usize <= MOST, "an area of {size} bytes");
    SIZE.store(size, Ordering::Relaxed);
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
    /// As a program finds them.
    pub(super) fn new() -> Self {
        Self {
            lines: vec![Line([0; 64]); (size() + TRAILER).div_ceil(64)].into_boxed_slice(),
            is_initial: true,
        }
    }

    pub(super) fn duplicate(&self) -> Self {
        Self {
            lines: self.lines.clone(),
            is_initial: self.is_initial,
        }
    }

    /// The area, in FXSAVE's format, or in XSAVE's standard format and labelled.
    pub(super) fn labelled(&mut self) -> &[u8] {
        if self.is_initial {
            let lines = size().div_ceil(64);
            self.lines[..lines].copy_from_slice(&INITIAL[..lines]);
            self.is_initial = false;
        }
        match components() {
            0 => &self.bytes_mut()[..LEGACY],
            components => {
                let bytes = self.bytes_mut();
                label_area(bytes, components);
                bytes
            }
        }
    }

    /// The area, and the bytes of a label behind it.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = size() + TRAILER;
        // SAFETY: lines are bytes, one behind the other, and as many as this at least (`new`); borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// Back to what a program finds.
    pub(super) fn reset(&mut self) {
        self.is_initial = true;
    }

    /// See [`Extra::set_fpu_area`](super::Extra::set_fpu_area).
    pub(super) fn set(&mut self, read: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let len = read(self.bytes_mut());
        self.is_initial = len.is_none();
        self.put_right(len.unwrap_or(0));
        len.is_some()
    }

    /// Makes the area, whose first `len` bytes may be anything, one that the CPU loads.
    fn put_right(&mut self, len: usize) {
        let bytes = self.bytes_mut();
        // Bits of MXCSR that no CPU has.
        bytes[26..28].fill(0);
        let known = components();
        if known == 0 {
            return;
        }
        // Components that the bytes do not reach are as at the start, not as they were.
        let reached = len.clamp(LEGACY + HEADER, size());
        bytes[reached..size()].fill(0);
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
        self.is_initial = false;
        let area = self.lines.as_mut_ptr();
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

    /// Where the CPU finds the registers.
    #[inline]
    fn area(&self) -> *const Line {
        match self.is_initial {
            true => INITIAL.as_ptr(),
            false => self.lines.as_ptr(),
        }
    }

    /// [`Self::save`] of `last` and [`Self::load`] of this one.
    #[inline]
    pub(super) fn exchange(&self, last: &mut Self) {
        if components() == 0 {
            last.save();
            return self.load();
        }
        last.is_initial = false;
        // SAFETY: as in `save` and in `load`.
        unsafe {
            asm!("xsave64 [{last}]", "xrstor64 [{next}]", last = in(reg) last.lines.as_mut_ptr(), next = in(reg) self.area(),
                 in("eax") u32::MAX, in("edx") u32::MAX, options(nostack, preserves_flags));
        }
    }

    #[inline]
    pub(super) fn load(&self) {
        let area = self.area();
        match components() {
            // SAFETY: the area is aligned, as long as the instruction reads, and has no reserved bit set (`put_right`).
            0 => unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags)) },
            // SAFETY: as above; the header names only components that are switched on.
            _ => unsafe {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX,
                     options(nostack, preserves_flags));
            },
        }
    }
}
