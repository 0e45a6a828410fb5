//! The legacy interrupt controllers (two 8259A): moved out of the exceptions' vectors and masked.
//!
//! Masked, they can still raise their spurious interrupt (line 7 of either), which needs care in one case: that of the
//! second controller has to be acknowledged at the first.
#![expect(unsafe_code, reason = "port I/O")]

use x86_64::instructions::port::Port;

const COMMAND: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];
/// Vectors of line 0 of each controller.
const BASE: [u8; 2] = [0x20, 0x28];
const END_OF_INTERRUPT: u8 = 0x20;

fn write(port: u16, value: u8) {
    // SAFETY: these ports belong to the controllers on every PC; where there are none, nobody listens.
    unsafe { Port::<u8>::new(port).write(value) };
}

/// Initialises both controllers and masks every line.
pub fn disable() {
    for ((command, data), (base, cascade)) in COMMAND.into_iter().zip(DATA).zip(BASE.into_iter().zip([4, 2]))
    {
        write(command, 0x11); // ICW1: initialise, ICW4 follows
        write(data, base); // ICW2: vectors
        write(data, cascade); // ICW3: where the second controller is connected
        write(data, 0x01); // ICW4: 8086 mode
        write(data, 0xff); // OCW1: all lines masked
    }
}

/// Whether `vector` is one of the controllers'.
pub fn owns(vector: u8) -> bool {
    (BASE[0]..BASE[0] + 16).contains(&vector)
}

/// Answers a spurious interrupt: the second controller's came through the first, which must be told.
pub fn acknowledge_spurious(vector: u8) {
    if vector >= BASE[1] {
        write(COMMAND[0], END_OF_INTERRUPT);
    }
}
