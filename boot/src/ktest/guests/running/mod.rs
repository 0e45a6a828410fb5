//! Guests of a few instructions that run as an owner runs them: a vCPU on a machine with slots of an address space.
//!
//! | guest address | what |
//! | --- | --- |
//! | [`TABLES`](super::TABLES) | page tables, which map the first 4 MiB one to one |
//! | [`CODE`](super::CODE) | instructions |
//! | [`STACK`](super::STACK) | the end of the stack |
//! | [`REGION`] | a slot of its own: what the test is about |
//!
//! A guest tells the test a number by a mark: `Stop::Mark`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hv::fpu::AREA;
use hv::memory::GuestMemory;
use hv::memslot::SlotRequest;
use hv::state::{Registers, SystemState};
use hv::vcpu::{Image, Stop, Timer, Vcpu};
use hv::vendor::Vendor;
use hv::vm::Vm;
use kernel::abi::guest::Call;
use kernel::arch::{Clock, Machine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, VirtAddr};
use kernel::mm::memtype::anon::ANON;
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::space::{Memory, Space};

use super::{CODE, STACK, TABLES, VMMCALL, guest_code};
use crate::ktest::common::{empty_space, map, text};

mod exceptions;
mod isolation;
mod views;

/// Where the slot begins that tests are about.
pub const REGION: u64 = 2 << 20;
/// Bytes of the guest's own memory.
pub const OWN: u64 = 1 << 20;
/// A page-table entry: present, writable, accessed, dirty; and large.
const ENTRY: u64 = 0x63;
const LARGE: u64 = 0x80;
/// Longest run, in seconds: a guest that hangs is a failure with a name.
const PATIENCE: u64 = 20;

guest_code! {
    /// Tells the word at RDI's address for ever.
    reads_for_ever:
    "2: mov rdi, [rbx]",
    "mov eax, 0x464c0001",
    "vmmcall",
    "jmp 2b",
}

guest_code! {
    /// Stores RCX at RBX, then tells it.
    stores:
    "2: mov [rbx], rcx",
    "mov rdi, rcx",
    "mov eax, 0x464c0001",
    "vmmcall",
    "inc rcx",
    "jmp 2b",
}

const _: () = assert!(Call::Mark as u64 == 0x464c_0001);

/// A machine without a vCPU yet.
pub struct Host<V: Vendor> {
    pub space: Arc<Space>,
    pub memory: Arc<GuestMemory<V::Format>>,
    own: VirtRange,
}

impl<V: Vendor> Host<V> {
    /// With the guest's own memory, and `code` in it.
    pub fn new(code: &[u8]) -> Result<Self, String> {
        let features = V::enable().map_err(text)?;
        let space = empty_space()?;
        let memory = GuestMemory::new(&features).map_err(text)?;
        let own = map(&space, Memory::Own(&ANON), OWN)?;
        let host = Self { space, memory, own };
        host.show(0, own)?;
        let mut code = Vec::from(code);
        let calls: Vec<usize> = (0..code.len().saturating_sub(2))
            .filter(|&at| code[at..at + 3] == VMMCALL)
            .collect();
        for at in calls {
            code[at..at + 3].copy_from_slice(&V::HYPERCALL);
        }
        host.write(CODE, &code)?;
        let [root, upper, middle] = [0, 1, 2].map(|number| TABLES + number * PAGE_SIZE);
        for (at, entry) in [
            (root, upper | ENTRY),
            (upper, middle | ENTRY),
            (middle, ENTRY | LARGE),
            (middle + 8, 2 << 20 | ENTRY | LARGE),
        ] {
            host.write(at, &entry.to_le_bytes())?;
        }
        Ok(host)
    }

    /// Shows `range` of the space to the guest.
    pub fn show(&self, at: u64, range: VirtRange) -> Result<(), String> {
        let request = SlotRequest::of_space(GuestPhysAddr::new(at), &self.space, range);
        self.memory.add(request).map(drop).map_err(text)
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory
            .write(GuestPhysAddr::new(at), bytes)
            .map_err(|error| format!("{error}"))
    }

    /// A machine with this memory.
    pub fn machine(&self) -> Arc<Vm<V>> {
        let nothing = GuestRange::new(GuestPhysAddr::new(0), GuestPhysAddr::new(0));
        Vm::new(Arc::clone(&self.memory), nothing, Box::new(|_| {}))
    }

    /// A vCPU of a machine of its own, with these registers besides RIP, RSP and the flags.
    pub fn vcpu(&self, registers: Registers) -> Result<Vcpu<V>, String> {
        vcpu_of(&self.machine(), registers)
    }

    /// Where the guest's own address `at` is in the space.
    pub fn own(&self, at: u64) -> VirtAddr {
        self.own.start + at
    }
}

/// A vCPU of `vm`, with these registers besides RIP, RSP and the flags.
pub fn vcpu_of<V: Vendor>(vm: &Arc<Vm<V>>, registers: Registers) -> Result<Vcpu<V>, String> {
    let image = Image {
        registers: Registers {
            rip: CODE,
            rsp: STACK,
            rflags: 2,
            ..registers
        },
        system: SystemState::long_mode(TABLES),
        fpu: fresh_fpu(),
        timer: Timer::default(),
        at_mark: false,
    };
    Vcpu::new(vm, &image).map_err(text)
}

/// The FPU's registers after a reset, as far as the control words go.
fn fresh_fpu() -> [u8; AREA] {
    *hv::fpu::Fpu::default().area()
}

/// Runs to the next mark; its number.
pub fn next_mark<V: Vendor>(vcpu: &mut Vcpu<V>) -> Result<u64, String> {
    match run(vcpu) {
        Stop::Mark(number) => Ok(number),
        Stop::Broken(broken) => Err(format!("{broken}")),
        stop => Err(format!("{stop:?}")),
    }
}

/// Runs until something is the test's business, or patience ends.
pub fn run<V: Vendor>(vcpu: &mut Vcpu<V>) -> Stop {
    vcpu.run(Machine::ticks().saturating_add(PATIENCE * Machine::frequency()))
}
