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
    use crate::drivers::debugcon::Debugcon;
    use crate::drivers::fbcon::Screen;
    use crate::drivers::serial::Serial;
    use crate::guest::calls::is_guest;
    use crate::sync::IrqLock;

    /// Bytes kept for a screen that comes later.
    pub const EARLY: usize = 8192;

    /// Where text leaves the machine.
    enum Outlet {
        Serial(Serial),
        /// In a guest of our own hypervisor: a byte on a serial line would take several exits.
        Debugcon(Debugcon),
    }

    impl Outlet {
        fn probe() -> Self {
            if is_guest() {
                Self::Debugcon(Debugcon::probe())
            } else {
                Self::Serial(Serial::probe())
            }
        }

        /// A second handle to what [`probe`](Self::probe) has found, for a panic under the console's lock.
        fn reopen() -> Self {
            if is_guest() {
                Self::Debugcon(Debugcon::probe())
            } else {
                Self::Serial(Serial::reopen())
            }
        }

        fn is_present(&self) -> bool {
            match self {
                Self::Serial(serial) => serial.is_present(),
                Self::Debugcon(debugcon) => debugcon.is_present(),
            }
        }

        fn write(&mut self, text: &str) {
            match self {
                Self::Serial(serial) => serial.write(text),
                Self::Debugcon(debugcon) => debugcon.write(text.as_bytes()),
            }
        }

        fn drain(&mut self) {
            if let Self::Serial(serial) = self {
                serial.drain();
            }
        }
    }

    struct Console {
        outlet: Outlet,
        screen: Option<Screen<'static>>,
        early: ArrayString<EARLY>,
    }

    impl Console {
        fn write(&mut self, text: &str) {
            self.outlet.write(text);
            match &mut self.screen {
                Some(screen) => screen.write(text),
                // What does not fit any more is on the serial line only.
                None => drop(self.early.try_push_str(text)),
            }
        }
    }

    static CONSOLE: IrqLock<Console> = IrqLock::new(Console {
        screen: None,
        outlet: Outlet::Serial(Serial::silent()),
        early: ArrayString::new_const(),
    });

    static OUTLET_FOUND: AtomicBool = AtomicBool::new(false);

    /// Looks for the serial line, or in a guest for the debug console.
    pub fn probe() {
        let outlet = Outlet::probe();
        OUTLET_FOUND.store(outlet.is_present(), Ordering::Relaxed);
        CONSOLE.lock().outlet = outlet;
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
                if OUTLET_FOUND.load(Ordering::Relaxed) {
                    Outlet::reopen().write(text);
                }
            }
            None => CONSOLE.lock().write(text),
        }
    }

    /// Waits, within reason, until what was printed has left the machine.
    pub fn drain() {
        if let Some(mut console) = CONSOLE.try_lock() {
            console.outlet.drain();
        }
    }
}
