//! The PCI bus, through configuration mechanism #1.
//!
//! A dword of a function's configuration space is selected by writing its address to port 0xcf8 and then read or written
//! at port 0xcfc (PCI Local Bus Specification 3.0, section 3.2.2.3.2); the pair is one step under a lock. The mechanism
//! reaches 256 bytes of every function of segment 0, which is all that virtio needs, and every PC has it. A machine
//! without PCI answers all ones, and the scan finds nothing.
//!
//! What the registers mean is `virtio-drivers`' [`PciRoot`].
#![expect(unsafe_code, reason = "port I/O")]

use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};
use x86_64::instructions::port::Port;

use crate::sync::IrqLock;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// Offset of a bridge's primary, secondary and subordinate bus numbers.
const BUS_NUMBERS: u8 = 0x18;

/// Held between the write of the address and the access to the data.
static MECHANISM: IrqLock<()> = IrqLock::new(());

/// Configuration mechanism #1.
#[derive(Clone, Copy, Debug)]
pub struct Mechanism1;

impl Mechanism1 {
    fn select(at: DeviceFunction, register: u8) {
        let function = u32::from(at.bus) << 16 | u32::from(at.device) << 11 | u32::from(at.function) << 8;
        // SAFETY: 0xcf8 selects a register for the next access to 0xcfc and does nothing else.
        unsafe { Port::<u32>::new(ADDRESS).write(1 << 31 | function | u32::from(register & !3)) };
    }
}

impl ConfigurationAccess for Mechanism1 {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        let _selected = MECHANISM.lock();
        Self::select(at, register);
        // SAFETY: reading the selected configuration register; those of a type-0 or type-1 header have no side effects.
        unsafe { Port::<u32>::new(DATA).read() }
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        let _selected = MECHANISM.lock();
        Self::select(at, register);
        // SAFETY: the callers write the command register and base addresses of functions that this kernel drives.
        unsafe { Port::<u32>::new(DATA).write(data) };
    }

    // SAFETY: the accesses carry no state; the lock orders them.
    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

/// The bus as `virtio-drivers` takes it.
pub fn root() -> PciRoot<Mechanism1> {
    PciRoot::new(Mechanism1)
}

/// A function of a device.
#[derive(Clone, Debug)]
pub struct Function {
    /// Bus, device and function number.
    pub at: DeviceFunction,
    /// What it is.
    pub info: DeviceFunctionInfo,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.info)
    }
}

impl Function {
    /// Its base addresses; of bridges none, whose registers mean something else there. Sizing one takes the function off the
    /// bus for a moment, so it must be idle.
    pub fn bars(&self) -> ArrayVec<BarInfo, 6> {
        if self.info.header_type != HeaderType::Standard {
            return ArrayVec::new();
        }
        let bars = root().bars(self.at).unwrap_or_default();
        bars.into_iter().flatten().collect()
    }

    /// Lets it answer memory accesses and read and write memory by itself; its interrupt pin stays silent.
    pub fn enable(&self) {
        let mut root = root();
        let (_, command) = root.get_status_command(self.at);
        let wanted = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
        root.set_command(self.at, command | wanted);
    }
}

/// All functions of all buses, found by following bridges from bus 0.
pub fn scan() -> Vec<Function> {
    let root = root();
    let mut found = Vec::new();
    let mut buses = ArrayVec::<u8, 256>::new();
    buses.push(0);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        for (at, info) in root.enumerate_bus(bus) {
            if info.header_type == HeaderType::PciPciBridge {
                let secondary = (Mechanism1.read_word(at, BUS_NUMBERS) >> 8) as u8;
                // A bridge that no firmware has numbered says 0; one that lies could lead in a circle.
                if !buses.contains(&secondary) {
                    buses.push(secondary);
                }
            }
            found.push(Function { at, info });
        }
    }
    found
}
