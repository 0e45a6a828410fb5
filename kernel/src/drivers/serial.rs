//! COM1: the text console of machines that have a serial line.
//!
//! The line is probed once ([`Serial::probe`]): the scratch register must answer and a loopback test must pass, else
//! the console stays silent. A line that stops taking bytes later (a stuck flow control on real hardware) is given up
//! after a bounded wait, so that printing can never hang the kernel.
#![expect(unsafe_code, reason = "the UART is claimed by its port number")]

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// First port of COM1 on every PC.
const COM1: u16 = 0x3f8;
/// Polls of the line status before the line is given up; at least a second on any machine, sixteen bytes take 1.4 ms
/// at 115200 baud.
const PATIENCE: u32 = 4_000_000;

/// A serial line, or the knowledge that there is none.
#[derive(Debug)]
pub struct Serial {
    uart: Option<Uart16550<PioBackend>>,
}

impl Serial {
    /// A line that swallows everything; for before [`probe`](Self::probe).
    pub const fn silent() -> Self {
        Self { uart: None }
    }

    /// Looks for COM1 and sets it to 115200 baud, 8N1, FIFO on, no interrupts.
    pub fn probe() -> Self {
        // SAFETY: 0x3f8-0x3ff are COM1's ports on every PC and no other code uses them; absence is detected below.
        let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else {
            return Self::silent();
        };
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            ..Config::DEFAULT
        };
        if uart.init(config.clone()).is_err() || uart.test_loopback().is_err() {
            return Self::silent();
        }
        // The loopback test has reconfigured the FIFO; this leaves the line as a receiver expects it.
        Self {
            uart: uart.init(config).is_ok().then_some(uart),
        }
    }

    /// A second handle to a line that [`probe`](Self::probe) has found and set up, for a panic under the console's
    /// lock. Nothing is reset, so what is still in the FIFO gets out.
    pub fn reopen() -> Self {
        // SAFETY: as in `probe`; the other handle's owner has panicked and does not come back.
        let uart = unsafe { Uart16550::new_port(COM1) };
        Self { uart: uart.ok() }
    }

    /// Whether a line was found and still takes bytes.
    pub fn is_present(&self) -> bool {
        self.uart.is_some()
    }

    /// Sends `text`, with a carriage return before each line feed.
    pub fn write(&mut self, text: &str) {
        let mut lines = text.split('\n');
        if let Some(first) = lines.next() {
            self.send(first.as_bytes());
        }
        for line in lines {
            self.send(b"\r\n");
            self.send(line.as_bytes());
        }
    }

    /// Waits until the last byte has left, or patience ends.
    pub fn drain(&mut self) {
        if let Some(uart) = &mut self.uart {
            let empty = |uart: &mut Uart16550<_>| uart.lsr().contains(LSR::TRANSMITTER_EMPTY);
            let _ = (0..PATIENCE).any(|_| empty(uart));
        }
    }

    fn send(&mut self, mut bytes: &[u8]) {
        let mut patience = PATIENCE;
        while !bytes.is_empty() {
            let Some(uart) = &mut self.uart else { return };
            match uart.send_bytes(bytes) {
                0 if patience == 0 => self.uart = None,
                0 => patience -= 1,
                sent => {
                    bytes = &bytes[sent..];
                    patience = PATIENCE;
                }
            }
        }
    }
}
