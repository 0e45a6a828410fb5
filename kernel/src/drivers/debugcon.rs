//! The debug console: one port that takes bytes, in QEMU (`-debugcon`) and in Bochs (`port_e9_hack`).
//!
//! It carries [records](crate::trace::record) and nothing else; in a guest of our own hypervisor, text and nothing else. Reading
//! the port gives 0xe9 where the console exists; on real machines it does not, and [`Debugcon`] stays silent. More of them may
//! be at other ports, for the [standard streams](crate::drivers::stdio) of programs; those give their own number.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::port::Port;

/// The console's port; a read gives the same number where the console exists.
const PORT: u16 = 0xe9;

/// The debug console, or the knowledge that there is none.
#[derive(Debug)]
pub struct Debugcon {
    port: u16,
    present: bool,
}

impl Debugcon {
    /// A console that swallows everything.
    pub const fn silent() -> Self {
        Self {
            port: PORT,
            present: false,
        }
    }

    /// Looks for the console.
    pub fn probe() -> Self {
        Self::probe_at(PORT)
    }

    /// Looks for a console at another port, from 0xe0 to 0xef.
    pub fn probe_at(port: u16) -> Self {
        assert!((0xe0..=0xef).contains(&port), "{port:#x} may be anything's");
        // SAFETY: reading these ports has no side effect: they are debug consoles in emulators and unused on PCs.
        let answer = unsafe { Port::<u8>::new(port).read() };
        Self {
            port,
            present: answer == port as u8,
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
        let mut port = Port::<u8>::new(self.port);
        for &byte in bytes {
            // SAFETY: `probe_at` found the debug console behind this port; a byte there is printed.
            unsafe { port.write(byte) };
        }
    }
}
