//! The legacy timer (8254), channel 2, as a yardstick for the others.
//!
//! Channel 2 is the one whose output can be read (port 0x61 bit 5) and that raises no interrupt.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::port::Port;

use crate::arch::{Clock, Machine};

/// Ticks of the 8254 per second.
pub const FREQUENCY: u64 = 1_193_182;

/// Port 0x61: bit 0 lets channel 2 count, bit 1 connects the speaker, bit 5 is the channel's output.
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 5;
/// Channel 2, low byte then high byte, mode 0: the output rises when the count is over.
const ONE_SHOT: u8 = 0b1011_0000;
/// TSC ticks after which a timer that does not answer is given up: a second or more on any machine.
const PATIENCE: u64 = 1 << 33;

fn read(port: u16) -> u8 {
    // SAFETY: reading the timer's and the keyboard controller's status ports has no side effect.
    unsafe { Port::<u8>::new(port).read() }
}

fn write(port: u16, value: u8) {
    // SAFETY: the ports of the timer and its gate; nobody else uses channel 2.
    unsafe { Port::<u8>::new(port).write(value) };
}

/// Busy-waits `ticks` of the timer and returns what `sample` gives before and after; `None` when the timer does not
/// run, as on machines without one.
pub fn measure<T>(ticks: u16, sample: impl Fn() -> T) -> Option<(T, T)> {
    let gate = read(0x61) & !(SPEAKER | GATE);
    write(0x61, gate);
    write(0x43, ONE_SHOT);
    write(0x42, ticks as u8);
    write(0x42, (ticks >> 8) as u8);
    let start = Machine::ticks();
    write(0x61, gate | GATE);
    let before = sample();
    let mut done = false;
    while !done && Machine::ticks() - start < PATIENCE {
        done = read(0x61) & OUTPUT != 0;
    }
    let after = sample();
    write(0x61, gate);
    // A port that floats high answers at once; a real count takes a while.
    (done && Machine::ticks() - start > u64::from(ticks)).then_some((before, after))
}
