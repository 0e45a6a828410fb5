//! User mode's extra registers on the software machine, whose CPUs have none: only what system calls set and get.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{Cpu, MAX_CPUS, Machine};
use crate::mm::addr::VirtAddr;

/// As on bare metal, without the x87 and vector registers.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    fs_base: u64,
    gs_base: u64,
}

impl Extra {
    /// A new program's.
    pub fn new() -> Box<Self> {
        Box::default()
    }

    /// The same for another thread.
    #[must_use]
    pub fn duplicate(&mut self) -> Box<Self> {
        Box::new(self.clone())
    }

    /// FS's base.
    pub fn fs_base(&self) -> u64 {
        self.fs_base
    }

    /// GS's base.
    pub fn gs_base(&self) -> u64 {
        self.gs_base
    }

    /// Sets FS's base to an address of user mode.
    pub fn set_fs_base(&mut self, base: VirtAddr) {
        self.fs_base = base.as_u64();
    }

    /// Sets GS's base to an address of user mode.
    pub fn set_gs_base(&mut self, base: VirtAddr) {
        self.gs_base = base.as_u64();
    }
}

/// Whether nobody else had the registers of this CPU meanwhile; there are none, but who had them last is known.
pub fn claim_fpu(number: u64) -> bool {
    static LAST: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
    LAST[Machine::id()].swap(number, Ordering::Relaxed) == number
}

/// What programs are told that the CPU can do.
pub fn user_capabilities() -> u64 {
    0
}
