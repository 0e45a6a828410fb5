//! The lines that are compared.
//!
//! A line is written with one call as soon as it is known, so that nothing is lost when the program dies, and lines of
//! two processes do not mix.

use std::fmt::{self, Display};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::sys;

/// How many checks have failed in this process.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Writes one line.
pub fn say(line: impl Display) {
    let text = format!("{line}\n");
    if sys::write_all(1, text.as_bytes()).is_err() {
        // Nobody reads: no use in going on.
        std::process::exit(2);
    }
}

/// The row `name` says `got`.
pub fn show(name: &str, got: impl Display) {
    say(format_args!("{name} -> {got}"));
}

/// The row `name` says `got`, where Linux 6.18 says `want`. Another answer is marked, and counts as a failure.
pub fn check(name: &str, got: impl Display, want: impl Display) {
    let (got, want) = (got.to_string(), want.to_string());
    if got == want {
        say(format_args!("{name} -> {got}"));
    } else {
        FAILED.fetch_add(1, Ordering::Relaxed);
        say(format_args!("{name} -> {got}   !! Linux says {want}"));
    }
}

/// How many checks have failed so far.
pub fn failures() -> usize {
    FAILED.load(Ordering::Relaxed)
}

/// An answer as text: the value's own, or the errno's name.
pub fn answer<T: Display>(answer: Result<T, Errno>) -> String {
    match answer {
        Ok(value) => value.to_string(),
        Err(errno) => errno.to_string(),
    }
}

/// An answer whose value says nothing: `ok`, or the errno's name.
pub fn ok<T>(answer: Result<T, Errno>) -> String {
    self::answer(answer.map(|_| "ok"))
}

/// A number in hexadecimal with its prefix.
pub struct Hex(pub u64);

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
