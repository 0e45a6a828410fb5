//! The end by panic or fatal exception.
//!
//! Text goes to the console (the outstanding faults too), [`Record::Panic`](super::record::Record) to the debug console, and the machine is left
//! with [`ExitStatus::Panic`]; there is no closing record. Nothing here needs the heap, a lock that may be held, or a
//! healthy stack: the walk over the frames reads memory with a fixup. A panic on the way is said in a line; one more ends
//! the machine at once.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};

use super::backtrace::{self, Backtrace};
use super::json::Panic;
use super::record::ExitStatus;
use super::{console, emit};
use crate::arch::x86_64::unwind;
use crate::arch::{Irq, Machine};
use crate::drivers::exit;
use crate::uffd::diagnosis;
use crate::{print, println};

/// An exception that cannot be survived.
pub struct Fatal<'a> {
    /// What happened, one line.
    pub message: fmt::Arguments<'a>,
    /// The registers at that moment, several lines.
    pub registers: &'a dyn fmt::Display,
    /// The instruction.
    pub pc: u64,
    /// Who called the instruction, where the frames do not tell.
    pub caller: Option<u64>,
    /// The frame pointer at that moment.
    pub frame_pointer: u64,
}

/// Ends the machine for a fatal exception.
pub fn fatal(what: &Fatal<'_>) -> ! {
    let mut trace = Backtrace::new();
    trace.push(what.pc);
    trace.extend(what.caller);
    end(
        what.message,
        format_args!("{:#x}", what.pc),
        Some(what.registers),
        trace,
        what.frame_pointer,
    )
}

/// Ends the machine for a Rust panic; what the image's panic handler calls.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message();
    match info.location() {
        Some(at) => at_location(format_args!("{message}"), format_args!("{at}")),
        None => at_location(format_args!("{message}"), format_args!("unknown")),
    }
}

fn at_location(message: fmt::Arguments<'_>, location: fmt::Arguments<'_>) -> ! {
    end(message, location, None, Backtrace::new(), unwind::frame_pointer())
}

/// How many panics there were.
static PANICS: AtomicU8 = AtomicU8::new(0);

/// The report itself panicked: says so, in words that need no formatting of anything else. A third panic says nothing.
fn end_again() -> ! {
    let message = format_args!("panic while a panic was reported");
    println!("\n{message}");
    emit::panic_record(&Panic {
        message,
        location: format_args!("unknown"),
        task: "unknown",
        backtrace: &[],
    });
    emit::end_record(ExitStatus::Panic, "the kernel panicked while it reported a panic");
    console::drain();
    exit::exit(ExitStatus::Panic)
}

/// Says everything that is known, then leaves the machine.
fn end(
    message: fmt::Arguments<'_>,
    location: fmt::Arguments<'_>,
    registers: Option<&dyn fmt::Display>,
    mut trace: Backtrace,
    frame_pointer: u64,
) -> ! {
    Machine::disable();
    console::panicking();
    match PANICS.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => end_again(),
        _ => exit::exit(ExitStatus::Panic),
    }
    let task = crate::task::current_name();
    // Apart, so that the place is said even when formatting the message panics.
    println!("\npanic in task \"{task}\" at {location}:");
    println!("  {message}");
    backtrace::walk(frame_pointer, unwind::read, unwind::interrupted, &mut trace);
    emit::panic_record(&Panic {
        message,
        location,
        task: &task,
        backtrace: &trace,
    });
    if let Some(registers) = registers {
        print!("registers:\n{registers}");
    }
    println!("backtrace (innermost first; `cargo xtask` turns it into names and lines):");
    trace.iter().for_each(|address| println!("  {address:#x}"));
    diagnosis::report_at_once(diagnosis::PATIENCE);
    emit::end_record(ExitStatus::Panic, "the kernel panicked");
    console::drain();
    exit::exit(ExitStatus::Panic)
}
