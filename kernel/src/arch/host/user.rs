//! User mode on the software machine. Its CPUs know no instructions: whatever is to be run is an invalid opcode, at the first
//! address. What programs are told and what they leave in their registers can be tested all the same.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arch::user::{Exit, FpuArea, Registers, Request, TRAILER, label_area};
use crate::arch::{Cpu, MAX_CPUS, Machine};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::FaultInfo;

/// Bytes of x87, SSE and AVX registers, as XSAVE writes them.
const FPU_SIZE: usize = 832;
/// Which these are.
const COMPONENTS: u64 = 7;

/// As on bare metal.
#[derive(Clone, Debug)]
pub struct Extra {
    fpu: [u8; FPU_SIZE + TRAILER],
    fs_base: u64,
    gs_base: u64,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            fpu: [0; FPU_SIZE + TRAILER],
            fs_base: 0,
            gs_base: 0,
        }
    }
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

    /// The x87, SSE and AVX registers.
    pub fn fpu_area(&mut self) -> FpuArea<'_> {
        label_area(&mut self.fpu, COMPONENTS);
        FpuArea {
            bytes: &self.fpu,
            components: COMPONENTS,
        }
    }

    /// Has `read` write to the area and say how far; the rest is reset, and all of it if it says nothing.
    pub fn set_fpu_area(&mut self, read: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let len = read(&mut self.fpu);
        self.fpu[len.unwrap_or(0)..].fill(0);
        len.is_some()
    }

    /// Sets them as a program finds them.
    pub fn reset_fpu(&mut self) {
        self.fpu.fill(0);
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

/// The vector of an invalid opcode.
const INVALID_OPCODE: u8 = 6;

/// Finds no instruction that it knows.
pub fn run(
    registers: &mut Registers,
    _extra: &mut Extra,
    _notice: &AtomicBool,
    _answer: impl FnMut(&Request) -> Option<u64>,
    _resolve: impl FnMut(&FaultInfo, &mut Registers) -> bool,
) -> Exit {
    registers.vector = INVALID_OPCODE.into();
    Exit::Exception {
        vector: INVALID_OPCODE,
        error: 0,
    }
}
