//! COM2, over which standard input comes.
#![expect(unsafe_code, reason = "the UART is claimed by its port number")]

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER};
use uart_16550::{BaudRate, Config, Uart16550};

/// First port of COM2 on every PC.
const COM2: u16 = 0x2f8;
/// Its line on the interrupt controller.
pub const IRQ: u8 = 3;

/// The line.
#[derive(Debug)]
pub struct Line(Uart16550<PioBackend>);

impl Line {
    /// Looks for COM2 and sets it to 115200 baud, 8N1, FIFO on, an interrupt for every byte; `None` when it is not there.
    /// What the other side has sent before is lost.
    pub fn probe() -> Option<Self> {
        // SAFETY: 0x2f8-0x2ff are COM2's ports on every PC and no other code uses them; absence is detected below.
        let mut uart = unsafe { Uart16550::new_port(COM2) }.ok()?;
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            interrupts: IER::DATA_READY,
            // Bytes below the trigger level wait for a time-out of their own.
            fifo_trigger_level: Some(FifoTriggerLevel::One),
            ..Config::DEFAULT
        };
        uart.init(config.clone()).ok()?;
        uart.test_loopback().ok()?;
        // The loopback test has reconfigured the FIFO.
        uart.init(config).ok()?;
        Some(Self(uart))
    }

    /// The next byte that has come, if any.
    pub fn receive(&mut self) -> Option<u8> {
        self.0.try_receive_byte().ok()
    }

    /// Sends one byte. The line carries nothing else from here, so its FIFO has room.
    pub fn send(&mut self, byte: u8) {
        // A byte of a line that takes none is lost; whoever waits for the answer is ended by the time-out of the run.
        let _ = self.0.try_send_byte(byte);
    }
}
