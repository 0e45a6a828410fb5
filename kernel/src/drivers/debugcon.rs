//! The debug console: one port that takes bytes, in QEMU (`-debugcon`) and in Bochs (`port_e9_hack`).
//!
//! It carries [records](crate::trace::record) and nothing else; in a guest of our own hypervisor, text and nothing else. Reading the port gives 0xe9 where the console exists;
//! on real machines it does not, and [`Debugcon`] stays silent.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::port::Port;

/// The console's port; a read gives the same number where the console exists.
const PORT: u16 = 0xe9;

/// The debug console, or the knowledge that there is none.
#[derive(Debug)]
pub struct Debugcon {
    present: bool,
}

impl Debugcon {
    /// A console that swallows everything.
    pub const fn silent() -> Self {
        Self { present: false }
    }

    /// Looks for the console.
    pub fn probe() -> Self {
        // SAFETY: reading 0xe9 has no side effect: it is the debug console in emulators and unused on PCs.
        let answer = unsafe { Port::<u8>::new(PORT).read() };
        Self {
            present: answer == PORT as u8,
        }
    }

    /// Whether the console was found.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        if !self.present {
            return;
        }
        let mut port = Port::<u8>::new(PORT);
        for &byte in bytes {
            // SAFETY: `probe` found the debug console behind this port; a byte there is printed.
            unsafe { port.write(byte) };
        }
    }
}
