//! The I/O APIC: sends a device's interrupt to the local APIC.
//!
//! The first one is at a fixed address on every PC with one, and the ISA devices' lines are its first sixteen inputs, edge
//! triggered and active high, unless the firmware's tables say otherwise; they do so for the legacy timer and for the lines of
//! PCI (Intel 82093AA data sheet, sections 3.0-3.2; ACPI 6.5, 5.2.12.5). What is routed here are COM ports, so the tables are not read.
#![expect(unsafe_code, reason = "memory-mapped registers")]

use core::fmt;
use core::ptr;

use super::{apic, hypercall};
use crate::mm::addr::{PAGE_SIZE, PhysAddr};
use crate::mm::kmap;
use crate::mm::pt::CacheType;

const BASE: PhysAddr = PhysAddr::new(0xfec0_0000);
/// Offsets of the register that selects, and of the window to what is selected.
const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;
/// Register: version in the low byte, number of the last input in bits 16-23.
const VERSION: u32 = 1;
/// First register of the redirection table; each input has two, the low half first. Left at zero are: fixed delivery, physical
/// destination, active high, edge triggered, not masked.
const REDIRECTION: u32 = 0x10;

/// An interrupt cannot be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoIoApic {
    /// Nothing answers at the usual address.
    Absent,
    /// It has no such input.
    NoInput,
    /// The CPU's number does not fit into a redirection entry.
    FarCpu,
    /// No memory to map its registers.
    NoMemory,
}

impl fmt::Display for NoIoApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is no I/O APIC",
            Self::NoInput => "the I/O APIC has too few inputs",
            Self::FarCpu => "the I/O APIC cannot address this CPU",
            Self::NoMemory => "too little memory to map the I/O APIC",
        })
    }
}

/// Sends what comes on line `irq` of the ISA bus to this CPU as `vector`. Called once for a line.
///
/// # Errors
/// See [`NoIoApic`].
pub fn route(irq: u8, vector: u8) -> Result<(), NoIoApic> {
    if hypercall::is_guest() {
        return Err(NoIoApic::Absent);
    }
    let mut registers = Registers::map()?;
    let version = registers.read(VERSION);
    if matches!(version & 0xff, 0 | 0xff) {
        return Err(NoIoApic::Absent);
    }
    if u32::from(irq) > version >> 16 & 0xff {
        return Err(NoIoApic::NoInput);
    }
    let cpu = u8::try_from(apic::id()).map_err(|_| NoIoApic::FarCpu)?;
    let entry = REDIRECTION + 2 * u32::from(irq);
    registers.write(entry + 1, u32::from(cpu) << 24);
    registers.write(entry, u32::from(vector));
    Ok(())
}

/// The two registers through which all others are reached.
struct Registers(*mut u8);

impl Registers {
    fn map() -> Result<Self, NoIoApic> {
        let page = kmap::map_device(BASE, PAGE_SIZE, CacheType::Uncached).map_err(|_| NoIoApic::NoMemory)?;
        Ok(Self(ptr::with_exposed_provenance_mut(page.as_u64() as usize)))
    }

    fn read(&mut self, register: u32) -> u32 {
        // SAFETY: `map` mapped the page of registers, uncached; where there is no device the bus gives ones.
        unsafe {
            self.0.add(SELECT).cast::<u32>().write_volatile(register);
            self.0.add(WINDOW).cast::<u32>().read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: as in `read`; `route` has found the device.
        unsafe {
            self.0.add(SELECT).cast::<u32>().write_volatile(register);
            self.0.add(WINDOW).cast::<u32>().write_volatile(value);
        }
    }
}
