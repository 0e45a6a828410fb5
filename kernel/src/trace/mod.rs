//! What the kernel tells the outside.
//!
//! Two streams that never mix:
//!
//! ```text
//!   print!, println!, log::info! ──► console ──► COM1, framebuffer      for people
//!   emit(&Record), end(..)       ──► emit    ──► port 0xe9, JSON lines  for xtask
//! ```
//!
//! In a guest of our own hypervisor the first goes to port 0xe9, and the second nowhere.
//!
//! Both work from the first instruction after `start`, from interrupt handlers and from the panic handler, which
//! calls [`console::panicking`] first: from then on a lock that does not come free is bypassed. A run ends in `end`,
//! and only there.

pub mod backtrace;
pub mod cmdline;
pub mod console;
#[cfg(target_os = "none")]
pub mod deadline;
pub mod emit;
pub mod json;
pub mod log;
#[cfg(target_os = "none")]
pub mod panic;
pub mod record;

pub use emit::emit;

#[cfg(target_os = "none")]
pub use self::run::{end, start};

#[cfg(target_os = "none")]
mod run {
    use super::record::ExitStatus;
    use super::{cmdline, console, emit, log};
    use crate::drivers::exit;
    use crate::guest::calls::is_guest;
    use crate::println;

    /// Finds the serial line and the debug console and reads from the command line how the run ends (`exit=`) and how
    /// much is logged (`log=`). Needs no heap. Called once, first of all.
    pub fn start(text: &str) {
        console::probe();
        // In a guest the debug console is where text goes, and nobody reads records.
        if !is_guest() {
            emit::probe();
        }
        log::start();
        match cmdline::lookup(text, "exit").map(str::parse) {
            None => {}
            Some(Ok(mode)) => exit::set_mode(mode),
            Some(Err(())) => println!("exit= takes halt, qemu, bochs or reboot; staying with halt"),
        }
        match cmdline::lookup(text, "log").map(str::parse) {
            None => {}
            Some(Ok(level)) => log::set_level(level),
            Some(Err(_)) => println!("log= takes off, error, warn, info, debug or trace; staying with info"),
        }
    }

    /// Ends the run: the closing record, a sentence for people, and out of the machine.
    pub fn end(status: ExitStatus, message: &str) -> ! {
        emit::end_record(status, message);
        println!("\nfaultline: {}: {message}", status.word());
        console::drain();
        exit::exit(status)
    }
}
