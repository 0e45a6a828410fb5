//! The legacy timer (8254), channel 2, as a yardstick for the others.
//!
//! Channel 2 is the one that raises no interrupt and whose output can be read (port 0x61 bit 5). It is started once and
//! then read while it counts down, so that a delay between two readings harms nothing.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::port::Port;

/// Ticks of the 8254 per second.
pub const FREQUENCY: u64 = 1_193_182;

const CHANNEL_2: u16 = 0x42;
const COMMAND: u16 = 0x43;
const CONTROL: u16 = 0x61;
/// Control: lets channel 2 count; connects the speaker; shows the channel's output.
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;
/// Channel 2, low byte then high byte, mode 0: the output rises when the count is over.
const ONE_SHOT: u8 = 0b1011_0000;
/// Holds channel 2's count until it has been read.
const LATCH: u8 = 0b1000_0000;

fn read(port: u16) -> u8 {
    // SAFETY: reading the timer and its control port has no side effect beyond the timer.
    unsafe { Port::<u8>::new(port).read() }
}

fn write(port: u16, value: u8) {
    // SAFETY: the ports of the timer and its gate; nobody else uses channel 2.
    unsafe { Port::<u8>::new(port).write(value) };
}

/// Starts a count of 65535, 55 milliseconds.
pub fn start() {
    let control = read(CONTROL) & !(SPEAKER | GATE);
    write(CONTROL, control);
    write(COMMAND, ONE_SHOT);
    write(CHANNEL_2, 0xff);
    write(CHANNEL_2, 0xff);
    write(CONTROL, control | GATE);
}

/// What is left of the count.
pub fn count() -> u16 {
    write(COMMAND, LATCH);
    u16::from_le_bytes([read(CHANNEL_2), read(CHANNEL_2)])
}

/// Whether the count is over; what [`count`] gives then means nothing.
pub fn is_over() -> bool {
    read(CONTROL) & OUTPUT != 0
}

/// Stops the channel.
pub fn stop() {
    write(CONTROL, read(CONTROL) & !(SPEAKER | GATE));
}
