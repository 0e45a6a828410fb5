//! Decisions and decoding, without the hardware.

mod decisions;
mod events;
mod exits;
