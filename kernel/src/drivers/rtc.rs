//! The clock that goes on while the machine is off (MC146818, "CMOS"), read once.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::Port;

use super::rtc_date::{Date, Registers};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Status A: the registers are about to change.
const UPDATING: u8 = 1 << 7;
/// Readings before one is taken that may be torn: a clock that is broken must not stop the machine.
const MOST_READINGS: u32 = 1000;

fn register(number: u8) -> u8 {
    without_interrupts(|| {
        // SAFETY: the clock's two ports; nobody else uses them. Bit 7 of the index (NMI off) stays clear.
        unsafe {
            Port::<u8>::new(INDEX).write(number);
            Port::<u8>::new(DATA).read()
        }
    })
}

fn registers() -> Registers {
    Registers {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        status_b: register(11),
    }
}

/// Seconds since 1970-01-01, UTC, if the clock shows a date.
pub fn read() -> Option<u64> {
    let mut last = registers();
    for _ in 0..MOST_READINGS {
        let is_updating = register(10) & UPDATING != 0;
        let next = registers();
        if !is_updating && next == last {
            break;
        }
        last = next;
    }
    Date::of(&last)?.seconds()
}
