//! A guest's x87 and SSE registers.
//!
//! The host's kernel has no use for these registers, so they may stay in the CPU as long as the same vCPU runs there. They are
//! saved after every run, and loaded before a run unless this CPU's last run was of the same vCPU: what one guest leaves
//! behind is never there when another one starts, and user mode's registers are saved before a vCPU's come in. Extended state
//! (AVX and further) does not exist for guests: CPUID does not show it, XSETBV is intercepted, and while a vCPU has the registers
//! XCR0 leaves them out.
#![cfg_attr(target_os = "none", expect(unsafe_code, reason = "FXSAVE and FXRSTOR"))]

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::{Cpu, Machine, claim_fpu};

/// Bytes of the area (SDM vol. 1, 10.5).
pub const AREA: usize = 512;
/// Reset values of the control words: all exceptions masked, extended precision.
const CONTROL: u16 = 0x37f;
const SSE_CONTROL: u32 = 0x1f80;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The registers of one vCPU.
#[repr(C, align(16))]
pub struct Fpu {
    area: [u8; AREA],
    /// Never used twice, so that a new vCPU does not find another's registers for its own.
    id: u64,
}

impl fmt::Debug for Fpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fpu")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Default for Fpu {
    fn default() -> Self {
        let mut area = [0; AREA];
        area[..2].copy_from_slice(&CONTROL.to_le_bytes());
        area[24..28].copy_from_slice(&SSE_CONTROL.to_le_bytes());
        Self::with(area)
    }
}

impl Fpu {
    /// Registers with these contents. Bits of the SSE control word that no CPU has are cleared: loading them would fault.
    pub fn with(mut area: [u8; AREA]) -> Self {
        area[26..28].fill(0);
        Self {
            area,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The contents.
    pub fn area(&self) -> &[u8; AREA] {
        &self.area
    }

    /// Calls `run` with these registers in the CPU. Preemption stays off: nobody else's come in between.
    #[inline]
    pub fn during<R>(&mut self, run: impl FnOnce() -> R) -> R {
        Machine::preempt_disable();
        if !claim_fpu(self.id) {
            self.load();
        }
        let result = run();
        self.save();
        Machine::preempt_enable();
        result
    }

    #[cfg(target_os = "none")]
    fn load(&self) {
        // SAFETY: the area is 16-aligned and as long as the instruction reads; reserved bits of MXCSR are 0, so it does not
        // fault; the kernel keeps nothing in these registers.
        unsafe {
            core::arch::asm!("fxrstor64 [{}]", in(reg) &raw const self.area, options(nostack, preserves_flags))
        };
    }

    #[cfg(target_os = "none")]
    #[inline]
    fn save(&mut self) {
        // SAFETY: the area is 16-aligned and as long as the instruction writes.
        unsafe {
            core::arch::asm!("fxsave64 [{}]", in(reg) &raw mut self.area, options(nostack, preserves_flags))
        };
    }

    /// The software machine's CPUs have no such registers.
    #[cfg(not(target_os = "none"))]
    fn load(&self) {}

    #[cfg(not(target_os = "none"))]
    fn save(&mut self) {}
}
