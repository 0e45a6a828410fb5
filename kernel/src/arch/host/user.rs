//! User mode on the software machine. Its CPUs know no instructions: whatever is to be run is an invalid opcode, at the first
//! address. What programs are told and what they leave in their registers can be tested all the same.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::arch::user::{Exit, FpuFormat, Registers, Request, TRAILER};
use crate::arch::{Cpu, MAX_CPUS, Machine};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::FaultInfo;

/// x87, SSE and AVX registers, as XSAVE writes them.
const FORMAT: FpuFormat = FpuFormat {
    components: 7,
    size: 832,
};

/// As on bare metal.
#[derive(Clone, Debug)]
pub struct Extra {
    fpu: [u8; FORMAT.size + TRAILER],
    fs_base: u64,
    gs_base: u64,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            fpu: [0; FORMAT.size + TRAILER],
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

    /// How x87, SSE and AVX registers are saved.
    pub fn fpu_format() -> FpuFormat {
        FORMAT
    }

    /// The x87, SSE and AVX registers.
    pub fn fpu_area(&mut self) -> &[u8] {
        FORMAT.label_area(&mut self.fpu);
        &self.fpu
    }

    /// The CPU holds none.
    pub fn save_fpu_at_once(&mut self, _at: VirtAddr) -> bool {
        false
    }

    /// Sets those of `components` from an area that `read` reads, and resets the others, or all.
    pub fn set_fpu_area(
        &mut self,
        components: Option<u64>,
        mut read: impl FnMut(usize, &mut [u8]) -> bool,
    ) -> bool {
        let is_set = read(0, &mut self.fpu) && FORMAT.put_right(&mut self.fpu, components);
        if !is_set {
            self.fpu.fill(0);
        }
        is_set
    }

    /// The CPU holds none.
    pub fn load_fpu_at_once(&mut self, _at: VirtAddr) -> bool {
        false
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
