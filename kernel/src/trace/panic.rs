//! The end by panic or fatal exception.
//!
//! Text goes to the console, [`Record::Panic`](super::record::Record) to the debug console, and the machine is left
//! with [`ExitStatus::Panic`]; there is no closing record. Nothing here needs the heap, a lock that may be held, or a
//! healthy stack: the walk over the frames reads memory with a fixup. A panic on the way ends the machine at once.

use core::fmt;
use core::panic::PanicInfo;

use super::backtrace::{self, Backtrace};
use super::json::Panic;
use super::record::ExitStatus;
use super::{console, emit};
use crate::arch::x86_64::unwind;
use crate::arch::{Irq, Machine};
use crate::drivers::exit;
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

/// Says everything that is known, then leaves the machine.
fn end(
    message: fmt::Arguments<'_>,
    location: fmt::Arguments<'_>,
    registers: Option<&dyn fmt::Display>,
    mut trace: Backtrace,
    frame_pointer: u64,
) -> ! {
    Machine::disable();
    if !console::panicking() {
        // The first report did not get through. Saying more would risk a third.
        exit::exit(ExitStatus::Panic);
    }
    let task = crate::task::current_name();
    println!("\npanic: {message}\n  at {location}\n  in task \"{task}\"");
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
    console::drain();
    exit::exit(ExitStatus::Panic)
}
