//! Ports of a guest: a serial line and a debug console that only transmit.
//!
//! What comes out is text, passed on line by line. Lines that are not UTF-8 are passed on with the offending bytes replaced;
//! lines longer than [`LINE`] bytes are cut into several.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use arrayvec::ArrayVec;

use crate::exit::PortAccess;

/// Longest line, in bytes.
pub const LINE: usize = 240;

const SERIAL: u16 = 0x3f8;
const DEBUG_CONSOLE: u16 = 0xe9;
/// Offsets of the serial line's registers, and the bits that are kept.
const LINE_CONTROL: u16 = 3;
const LINE_STATUS: u16 = 5;
const DIVISOR_ACCESS: u8 = 1 << 7;
/// The transmitter is empty, and so is its holding register.
const IDLE: u8 = 0x60;

/// Who gets the lines.
pub type Sink = Box<dyn FnMut(&str) + Send>;

/// The ports of one guest.
pub struct Ports {
    sink: Sink,
    line: ArrayVec<u8, LINE>,
    line_control: u8,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports")
            .field("line", &String::from_utf8_lossy(&self.line))
            .finish_non_exhaustive()
    }
}

impl Ports {
    /// Ports whose output goes to `sink`.
    pub fn new(sink: Sink) -> Self {
        Self {
            sink,
            line: ArrayVec::new(),
            line_control: 0,
        }
    }

    /// OUT of the low `access.size` bytes of `value`.
    pub fn write(&mut self, access: PortAccess, value: u32) {
        let byte = value as u8;
        match access.port {
            DEBUG_CONSOLE => self.put(byte),
            SERIAL if self.line_control & DIVISOR_ACCESS == 0 => self.put(byte),
            port if port == SERIAL + LINE_CONTROL => self.line_control = byte,
            _ => {}
        }
    }

    /// IN: as many ones as were asked for, unless there is somebody to answer.
    pub fn read(&self, access: PortAccess) -> u32 {
        match access.port.wrapping_sub(SERIAL) {
            LINE_CONTROL => u32::from(self.line_control),
            LINE_STATUS => u32::from(IDLE),
            // The debug console says that it is there (Bochs, QEMU).
            _ if access.port == DEBUG_CONSOLE => u32::from(DEBUG_CONSOLE),
            _ => match access.size {
                1 => 0xff,
                2 => 0xffff,
                _ => u32::MAX,
            },
        }
    }

    fn put(&mut self, byte: u8) {
        if byte == b'\n' {
            return self.flush();
        }
        if byte == b'\r' {
            return;
        }
        if self.line.is_full() {
            self.flush();
        }
        self.line.push(byte);
    }

    /// Passes on what has no end yet.
    pub fn flush_rest(&mut self) {
        if !self.line.is_empty() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        (self.sink)(&String::from_utf8_lossy(&self.line));
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use kernel::sync::SpinLock;

    use super::*;

    fn out(port: u16) -> PortAccess {
        PortAccess {
            port,
            size: 1,
            write: true,
            string: false,
            len: 1,
        }
    }

    fn ports() -> (Ports, Arc<SpinLock<Vec<String>>>) {
        let lines = Arc::new(SpinLock::new(Vec::new()));
        let sink = Arc::clone(&lines);
        (
            Ports::new(Box::new(move |line| sink.lock().push(line.into()))),
            lines,
        )
    }

    #[test]
    fn both_consoles_pass_on_whole_lines() {
        let (mut ports, lines) = ports();
        for byte in *b"one\r\ntwo" {
            ports.write(out(0xe9), u32::from(byte));
        }
        assert_eq!(*lines.lock(), ["one"]);
        ports.write(out(0x3f8), u32::from(b'\n'));
        assert_eq!(*lines.lock(), ["one", "two"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_odd_bytes_are_replaced() {
        let (mut ports, lines) = ports();
        for _ in 0..LINE + 1 {
            ports.write(out(0xe9), u32::from(b'x'));
        }
        ports.write(out(0xe9), 0xff);
        assert_eq!(lines.lock().len(), 1);
        assert_eq!(lines.lock()[0].len(), LINE);
        ports.flush_rest();
        ports.flush_rest();
        assert_eq!(lines.lock()[1..], ["x\u{fffd}"]);
    }

    #[test]
    fn the_divisor_is_not_text() {
        let (mut ports, lines) = ports();
        ports.write(out(0x3fb), 0x80);
        ports.write(out(0x3f8), u32::from(b'\n'));
        assert!(lines.lock().is_empty());
        ports.write(out(0x3fb), 3);
        ports.write(out(0x3f8), u32::from(b'\n'));
        assert_eq!(*lines.lock(), [""]);
        let read = |port, size| {
            ports.read(PortAccess {
                size,
                write: false,
                ..out(port)
            })
        };
        assert_eq!(read(0x3fb, 1), 3);
        assert_eq!(read(0x3fd, 1), 0x60);
        assert_eq!((read(0x60, 1), read(0xcf8, 4)), (0xff, u32::MAX));
    }
}
