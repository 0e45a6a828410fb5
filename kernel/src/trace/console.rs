//! The text console: everything printed for people, on every device that can show it.
//!
//! Text is formatted outside the lock into a small buffer and handed over a piece at a time, so interrupts are off only
//! while bytes leave the CPU, and a `Display` that faults does so without a lock. A line longer than the buffer can be
//! interleaved with another task's; a shorter one never is.
//!
//! The screen comes late: what was printed before `attach_screen` is kept (up to `EARLY` bytes) and shown then.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayString;

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::trace::console::print(format_args!($($arg)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::trace::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Bytes that reach the console without another task's in between.
const PIECE: usize = 240;

static PANICKING: AtomicBool = AtomicBool::new(false);

/// From now on a console lock that is taken is bypassed. The panic handler calls this before it prints; returns
/// whether this is the first panic.
pub fn panicking() -> bool {
    !PANICKING.swap(true, Ordering::SeqCst)
}

/// Whether [`panicking`] was called.
pub fn is_panicking() -> bool {
    PANICKING.load(Ordering::SeqCst)
}

/// Prints; what the macros expand to.
pub fn print(args: fmt::Arguments) {
    if let Some(text) = args.as_str() {
        return write_text(text);
    }
    let mut line = Line(ArrayString::new());
    // `Line` never fails; a failing `Display` ends its own text early and harms nothing else.
    let _ = line.write_fmt(args);
    write_text(&line.0);
}

struct Line(ArrayString<PIECE>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.try_push(c).is_err() {
                write_text(&self.0);
                self.0.clear();
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "none"))]
fn write_text(text: &str) {
    std::print!("{text}");
}

#[cfg(target_os = "none")]
use self::target::write_text;
#[cfg(target_os = "none")]
pub use self::target::{EARLY, attach_screen, drain, probe};

#[cfg(target_os = "none")]
mod target {
    use core::sync::atomic::{AtomicBool, Ordering};

    use arrayvec::ArrayString;

    use super::is_panicking;
    use crate::drivers::fbcon::Screen;
    use crate::drivers::serial::Serial;
    use crate::sync::IrqLock;

    /// Bytes kept for a screen that comes later.
    pub const EARLY: usize = 8192;

    struct Console {
        serial: Serial,
        screen: Option<Screen<'static>>,
        early: ArrayString<EARLY>,
    }

    impl Console {
        fn write(&mut self, text: &str) {
            self.serial.write(text);
            match &mut self.screen {
                Some(screen) => screen.write(text),
                // What does not fit any more is on the serial line only.
                None => drop(self.early.try_push_str(text)),
            }
        }
    }

    static CONSOLE: IrqLock<Console> = IrqLock::new(Console {
        screen: None,
        serial: Serial::silent(),
        early: ArrayString::new_const(),
    });

    static SERIAL_FOUND: AtomicBool = AtomicBool::new(false);

    /// Looks for the serial line.
    pub fn probe() {
        let serial = Serial::probe();
        SERIAL_FOUND.store(serial.is_present(), Ordering::Relaxed);
        CONSOLE.lock().serial = serial;
    }

    /// Shows everything on `screen` too, from what was printed early on.
    pub fn attach_screen(mut screen: Screen<'static>) {
        let mut console = CONSOLE.lock();
        screen.write(&console.early);
        console.early.clear();
        console.screen = Some(screen);
    }

    pub(super) fn write_text(text: &str) {
        match CONSOLE.try_lock() {
            Some(mut console) => console.write(text),
            // Whoever held the lock has panicked under it and will not give it back.
            None if is_panicking() => {
                if SERIAL_FOUND.load(Ordering::Relaxed) {
                    Serial::reopen().write(text);
                }
            }
            None => CONSOLE.lock().write(text),
        }
    }

    /// Waits, within reason, until what was printed has left the machine.
    pub fn drain() {
        if let Some(mut console) = CONSOLE.try_lock() {
            console.serial.drain();
        }
    }
}
