//! How the machine is left when a run is over.
//!
//! The way is chosen by the command line's `exit=` and kept in [`set_mode`], because an emulator cannot be told apart
//! from a real machine safely: writing to an exit device that is not there may hit something else.
//!
//! | mode | what happens |
//! | --- | --- |
//! | `halt` | the CPU stops with interrupts off (the default: the screen stays readable) |
//! | `qemu` | the code goes to `isa-debug-exit` at port 0xf4; QEMU ends with status `2 * code + 1` |
//! | `bochs` | "Shutdown" goes to port 0x8900; Bochs ends, its status says nothing |
//! | in a guest of our own hypervisor | a hypercall with the status, whatever the command line says |
//! | `reboot` | keyboard controller, then the chipset's reset register, then a triple fault |
//!
//! A mode whose device does not answer falls through to `halt`.
#![expect(unsafe_code, reason = "port I/O and a deliberately invalid interrupt table")]

use core::str::FromStr;
use core::sync::atomic::{AtomicU8, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts, tables};
use x86_64::structures::DescriptorTablePointer;

use crate::abi::guest::ExitCode;
use crate::guest::calls;
use crate::trace::record::ExitStatus;

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExitMode {
    /// Stop the CPU.
    Halt = 0,
    /// QEMU's exit device.
    Qemu = 1,
    /// Bochs' shutdown port.
    Bochs = 2,
    /// Start the machine again.
    Reboot = 3,
}

impl FromStr for ExitMode {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "halt" => Ok(Self::Halt),
            "qemu" => Ok(Self::Qemu),
            "bochs" => Ok(Self::Bochs),
            "reboot" => Ok(Self::Reboot),
            _ => Err(()),
        }
    }
}

static MODE: AtomicU8 = AtomicU8::new(ExitMode::Halt as u8);

/// Chooses how [`exit`] ends the run.
pub fn set_mode(mode: ExitMode) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// Leaves the machine. [`crate::trace::end`] is what a finished run calls: it writes the closing record first.
pub fn exit(status: ExitStatus) -> ! {
    interrupts::disable();
    if calls::is_guest() {
        calls::exit(ExitCode::from(status));
    }
    match MODE.load(Ordering::Relaxed) {
        mode if mode == ExitMode::Qemu as u8 => leave_qemu(status),
        mode if mode == ExitMode::Bochs as u8 => leave_bochs(),
        mode if mode == ExitMode::Reboot as u8 => reboot(),
        _ => {}
    }
    loop {
        interrupts::disable();
        hlt();
    }
}

fn leave_qemu(status: ExitStatus) {
    // SAFETY: the command line says that this is QEMU with its exit device at this port; the write ends the process.
    unsafe { Port::<u32>::new(0xf4).write(u32::from(status.code())) };
}

fn leave_bochs() {
    let mut port = Port::<u8>::new(0x8900);
    for byte in *b"Shutdown" {
        // SAFETY: the command line says that this is Bochs, which ends when it has read the word from this port.
        unsafe { port.write(byte) };
    }
}

fn reboot() -> ! {
    // SAFETY: pulsing the 8042's reset line and the reset register at 0xcf9 restart a PC; whatever the kernel held is
    // meant to be lost.
    unsafe {
        Port::<u8>::new(0x64).write(0xfe);
        Port::<u8>::new(0xcf9).write(0x02);
        Port::<u8>::new(0xcf9).write(0x06);
    }
    triple_fault()
}

/// Makes the CPU shut down by an exception that it cannot deliver.
pub fn triple_fault() -> ! {
    let nothing = DescriptorTablePointer {
        limit: 0,
        base: VirtAddr::zero(),
    };
    interrupts::disable();
    // SAFETY: with an empty interrupt table the next exception is a triple fault, which is what is asked for.
    unsafe { tables::lidt(&nothing) };
    interrupts::int3();
    loop {
        hlt();
    }
}
