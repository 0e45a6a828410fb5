//! Ctrl-C and termination signals, as a flag that whoever waits for a child looks at.
//!
//! The emulator runs in a process group of its own, so the signal reaches xtask alone; xtask then kills the emulator
//! and ends with the status for "interrupted".

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Installs the handler for SIGINT, SIGTERM and SIGHUP.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| REQUESTED.store(true, Ordering::Relaxed))
}

/// Whether a signal arrived.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
