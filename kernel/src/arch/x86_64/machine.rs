//! The small traits: interrupts, translations, time, memory.
#![expect(unsafe_code, reason = "INVLPG, CR3, CR4, RDTSC")]

use core::arch::asm;
use core::arch::x86_64::_rdtsc;

use x86_64::registers::control::{Cr4, Cr4Flags};

use super::features::{Features, features};
use super::{DIRECT_MAP, clock};
use crate::arch::{Clock, Irq, Memory, Tlb};
use crate::mm::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::mm::kernel::KernelMm;
use crate::mm::pt::Level;

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// RFLAGS as [`Irq::disable`] found them.
#[derive(Clone, Copy, Debug)]
pub struct Flags(u64);

#[inline]
fn rflags() -> u64 {
    let flags: u64;
    // SAFETY: reads the flags through the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
    flags
}

impl Irq for Machine {
    type Flags = Flags;

    #[inline]
    fn disable() -> Flags {
        let flags = rflags();
        // SAFETY: keeping interrupts away harms nobody. Not `nomem`: protected accesses stay behind it.
        unsafe { asm!("cli", options(nostack, preserves_flags)) };
        Flags(flags)
    }

    #[inline]
    fn restore(flags: Flags) {
        if flags.0 & INTERRUPTS != 0 {
            // SAFETY: they were enabled when this section began. Not `nomem`: protected accesses stay before it.
            unsafe { asm!("sti", options(nostack, preserves_flags)) };
        }
    }

    #[inline]
    fn were_enabled(flags: Flags) -> bool {
        flags.0 & INTERRUPTS != 0
    }

    #[inline]
    fn enabled() -> bool {
        rflags() & INTERRUPTS != 0
    }

    #[inline]
    fn enable() {
        // SAFETY: the caller's task begins; nothing is protected by interrupts being off. Not `nomem`, as above.
        unsafe { asm!("sti", options(nostack, preserves_flags)) };
    }
}

impl Tlb for Machine {
    #[inline]
    fn flush_page(addr: VirtAddr) {
        // SAFETY: dropping a cached translation is always allowed.
        unsafe { asm!("invlpg [{}]", in(reg) addr.as_u64(), options(nostack, preserves_flags)) };
    }

    #[inline]
    fn flush_all() {
        Self::load_root(Self::root());
    }

    #[inline]
    fn load_root(root: Pfn) {
        // SAFETY: the caller keeps the tables alive, and every root maps the kernel (trait contract). CR3's low bits
        // (cache attributes of the root; PCID is not used) are 0.
        unsafe { asm!("mov cr3, {}", in(reg) root.start().as_u64(), options(nostack, preserves_flags)) };
    }

    /// Global translations survive a change of CR3; a change of CR4.PGE drops them too (SDM vol. 3A 5.10.4.1).
    fn load_first_root(root: Pfn) {
        let cr4 = Cr4::read();
        // SAFETY: without global pages the CPU only walks more often; the register is put back as it was.
        unsafe { Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL) };
        Self::load_root(root);
        // SAFETY: as above.
        unsafe { Cr4::write(cr4) };
    }

    #[inline]
    fn root() -> Pfn {
        let cr3: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
        Pfn::containing(PhysAddr::new(cr3))
    }
}

impl Clock for Machine {
    #[inline]
    fn ticks() -> u64 {
        // SAFETY: every CPU with long mode has a TSC, and CR4.TSD concerns user mode only.
        unsafe { _rdtsc() }
    }

    #[inline]
    fn frequency() -> u64 {
        clock::frequency()
    }
}

static MM: KernelMm = KernelMm::new();

impl Memory for Machine {
    #[inline]
    fn direct_map(addr: PhysAddr) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut((DIRECT_MAP + addr.as_u64()).as_u64() as usize)
    }

    #[inline]
    unsafe fn copy_page(dst: *mut u8, src: *const u8) {
        // SAFETY: the caller's contract; the direction flag is clear (ABI). Words: a microcoded string copy is as fast with
        // them as with bytes, and an emulator counts each.
        unsafe {
            asm!("rep movsq", inout("rcx") PAGE_SIZE / 8 => _, inout("rdi") dst => _, inout("rsi") src => _,
                options(nostack, preserves_flags));
        }
    }

    #[inline]
    unsafe fn zero_page(page: *mut u8) {
        // SAFETY: as for `copy_page`.
        unsafe {
            asm!("rep stosq", inout("rcx") PAGE_SIZE / 8 => _, inout("rdi") page => _, in("rax") 0,
                options(nostack, preserves_flags));
        }
    }

    #[inline]
    fn max_leaf() -> Level {
        if features().contains(Features::GIB_PAGES) {
            Level::UPPER
        } else {
            Level::MID
        }
    }

    #[inline]
    fn mm() -> &'static KernelMm {
        &MM
    }
}
