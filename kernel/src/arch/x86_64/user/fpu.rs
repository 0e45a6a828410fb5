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

use crate::arch::user::{FP_XSTATE_MAGIC2, FpuFormat, HEADER, LABEL, LEGACY, TRAILER};
use crate::arch::x86_64::task_memory::{AT_ONCE, in_task_half, with_user_pages};
use crate::mm::addr::VirtAddr;

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
fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// The components in an area, as in XCR0; 0 when it has only the legacy part.
fn components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

/// How this machine saves the registers.
pub(super) fn format() -> FpuFormat {
    FpuFormat {
        components: components(),
        size: size(),
    }
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
        let format = format();
        let bytes = &mut self.bytes_mut()[..format.frame_len()];
        if format.components != 0 {
            format.label_area(bytes);
        }
        bytes
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
    pub(super) fn set(
        &mut self,
        components: Option<u64>,
        mut read: impl FnMut(usize, &mut [u8]) -> bool,
    ) -> bool {
        let format = format();
        let area = &mut self.bytes_mut()[..format.size];
        let is_read = match components {
            None => read(0, &mut area[..LEGACY]),
            // What is behind the header is not looked at where that says that nothing is.
            Some(components) => {
                let (first, rest) = area.split_at_mut(LEGACY + HEADER);
                read(0, first) && (u64::from(first[LEGACY]) & components < 4 || read(LEGACY + HEADER, rest))
            }
        };
        let is_set = is_read && format.put_right(area, components);
        self.is_initial = !is_set;
        is_set
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

/// Saves the registers that the CPU has loaded to the frame of a signal at `at`, labelled, if that memory can be written as the page
/// tables stand; says whether it could. Else nobody is asked, and what is there is undefined. Preemption is off.
pub(super) fn save_to_frame(at: VirtAddr) -> bool {
    let format = format();
    if format.components == 0 || !in_task_half(at, format.frame_len()) {
        return false;
    }
    // XSAVE leaves all but the first word of its header as it finds it.
    let mut before = [0; (LEGACY - LABEL + HEADER) / 8];
    before[..6].copy_from_slice(&format.label());
    let mut failed = 1u32;
    // SAFETY: the instructions write to task memory only, and read the words above; an impossible access goes on at label 9 with
    // `failed` still 1. DF is clear (ABI).
    with_user_pages(|| unsafe {
        asm!(
            "2: rep movsq",
            "3: xsave64 [{at}]",
            // x87 and SSE are there even in their initial state: handlers look at them.
            "4: or byte ptr [{at} + {header}], 3",
            "5: mov dword ptr [{at} + {size}], {end}",
            "xor {failed:e}, {failed:e}",
            "9:",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 9b, {when}",
            ".quad 3b, 9b, {when}",
            ".quad 4b, 9b, {when}",
            ".quad 5b, 9b, {when}",
            ".popsection",
            when = const AT_ONCE,
            at = in(reg) at.as_u64(),
            header = const LEGACY,
            size = in(reg) format.size,
            end = const FP_XSTATE_MAGIC2,
            failed = inout(reg) failed,
            inout("rcx") before.len() => _,
            inout("rdi") at.as_u64() + LABEL as u64 => _,
            inout("rsi") before.as_ptr() => _,
            in("eax") u32::MAX,
            in("edx") u32::MAX,
            options(nostack),
        );
    });
    failed == 0
}

/// Loads all components from the frame of a signal at `at`, if they can be read there as the page tables stand and the CPU takes
/// them; says whether so. Else nobody is asked, and the registers are undefined. Preemption is off.
pub(super) fn load_from_frame(at: VirtAddr) -> bool {
    if components() == 0 || !in_task_half(at, size()) {
        return false;
    }
    let mut failed = 1u32;
    let mut mxcsr = 0u32;
    // SAFETY: the instruction reads task memory only; an impossible access, or what is no area, goes on at label 9 with `failed`
    // still 1. Nobody but user mode uses what it loads.
    with_user_pages(|| unsafe {
        asm!(
            "2: xrstor64 [{at}]",
            "xor {failed:e}, {failed:e}",
            "9:",
            "stmxcsr [{mxcsr}]",
            ".pushsection .fixups, \"a\"",
            ".quad 2b, 9b, {when}",
            ".popsection",
            when = const AT_ONCE,
            at = in(reg) at.as_u64(),
            mxcsr = in(reg) &raw mut mxcsr,
            failed = inout(reg) failed,
            in("eax") u32::MAX,
            in("edx") u32::MAX,
            options(nostack),
        );
    });
    // QEMU's CPUs take bits that no CPU has.
    failed == 0 && mxcsr >> 16 == 0
}
