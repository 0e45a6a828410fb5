//! Registers that neither an entry nor an exit switches: those of SYSCALL, SWAPGS's second base, CR2, DR6.
//!
//! While the guest runs they hold its values, and the host's otherwise. The host's SYSCALL registers were set when the CPU was
//! started and do not change; the guest reads and writes its own only through an exit. So they are never read here, and
//! written only where the two differ and the guest has SYSCALL switched on. SWAPGS changes its base without an exit: that one is read, too. CR2 is the host's only between a page fault
//! and the first instructions of its handler, so the guest's value is left there.
#![expect(unsafe_code, reason = "MSRs and CR2")]

use core::arch::asm;

use x86_64::registers::control::Cr2;
use x86_64::registers::model_specific::Msr;

use crate::state::SystemState;

/// IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK.
const SYSCALL: [u32; 4] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084];
const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// EFER.SCE: SYSCALL works.
const EFER_SCE: u64 = 1;

/// The registers of SYSCALL on this CPU.
pub fn host_syscall() -> [u64; 4] {
    SYSCALL.map(read_msr)
}

/// A guest's values.
#[derive(Clone, Copy, Default, Debug)]
pub struct Switched {
    syscall: [u64; 4],
    kernel_gs_base: u64,
    cr2: u64,
    /// Accesses to debug registers end the guest, so it is only kept.
    dr6: u64,
    /// Bit n: the nth register of SYSCALL has to be another than the host's.
    differs: u8,
    /// WRMSR takes no such values: an address is not canonical, or a reserved bit is set.
    impossible: bool,
}

impl Switched {
    /// Those of `state`, on a CPU where the host's for SYSCALL are these.
    pub fn of(state: &SystemState, host: &[u64; 4]) -> Self {
        let canonical = |address: u64| matches!(address as i64 >> 47, 0 | -1);
        let possible = [state.lstar, state.cstar, state.kernel_gs_base]
            .into_iter()
            .all(canonical)
            && state.sfmask >> 32 == 0;
        let syscall = [state.star, state.lstar, state.cstar, state.sfmask];
        let differ = |n: usize| u8::from(state.efer & EFER_SCE != 0 && syscall[n] != host[n]) << n;
        Self {
            syscall,
            kernel_gs_base: state.kernel_gs_base,
            cr2: state.cr2,
            dr6: state.dr6,
            differs: differ(0) | differ(1) | differ(2) | differ(3),
            impossible: !possible,
        }
    }

    /// Into `state`.
    pub fn save(&self, state: &mut SystemState) {
        [state.star, state.lstar, state.cstar, state.sfmask] = self.syscall;
        state.kernel_gs_base = self.kernel_gs_base;
        (state.cr2, state.dr6) = (self.cr2, self.dr6);
    }

    /// Whether they can be loaded.
    #[inline]
    pub fn are_possible(&self) -> bool {
        !self.impossible
    }

    /// Makes them the CPU's; returns the host's base of SWAPGS.
    ///
    /// # Safety
    /// Until [`swap_out`](Self::swap_out) nothing is executed that uses these registers as the host's: interrupts are off.
    #[inline]
    pub unsafe fn swap_in(&self) -> u64 {
        let own_base = read_msr(KERNEL_GS_BASE);
        if own_base != self.kernel_gs_base {
            // SAFETY: the value was checked (`of`), or was the register's (`swap_out`).
            unsafe { write_msr(KERNEL_GS_BASE, self.kernel_gs_base) };
        }
        if self.differs != 0 {
            // SAFETY: the values were checked (`of`).
            unsafe { load_syscall(self.differs, &self.syscall) };
        }
        if Cr2::read_raw() != self.cr2 {
            // SAFETY: the host reads CR2 only right after a page fault of its own.
            unsafe { asm!("mov cr2, {}", in(reg) self.cr2, options(nomem, nostack, preserves_flags)) };
        }
        own_base
    }

    /// Keeps what the guest has left, and brings the host's back.
    ///
    /// # Safety
    /// `own_base` is what [`swap_in`](Self::swap_in) returned, and `host` what [`of`](Self::of) was given.
    #[inline]
    pub unsafe fn swap_out(&mut self, host: &[u64; 4], own_base: u64) {
        self.cr2 = Cr2::read_raw();
        self.kernel_gs_base = read_msr(KERNEL_GS_BASE);
        if self.kernel_gs_base != own_base {
            // SAFETY: the host's own value.
            unsafe { write_msr(KERNEL_GS_BASE, own_base) };
        }
        if self.differs != 0 {
            // SAFETY: likewise.
            unsafe { load_syscall(self.differs, host) };
        }
    }
}

/// Writes those registers of SYSCALL whose bits are set in `which`.
///
/// # Safety
/// Nobody relies on what they hold, and they take `values`.
#[inline(never)]
unsafe fn load_syscall(which: u8, values: &[u64; 4]) {
    for n in 0..SYSCALL.len() {
        if which & 1 << n != 0 {
            // SAFETY: the caller's contract.
            unsafe { write_msr(SYSCALL[n], values[n]) };
        }
    }
}

#[inline]
fn read_msr(number: u32) -> u64 {
    // SAFETY: asked for registers only that every CPU in long mode has.
    unsafe { Msr::new(number).read() }
}

/// # Safety
/// The register takes the value, and nobody relies on the old one.
#[inline]
unsafe fn write_msr(number: u32, value: u64) {
    // SAFETY: the caller's contract.
    unsafe { Msr::new(number).write(value) }
}
