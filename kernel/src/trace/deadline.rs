//! The end of the time that a run may take.
//!
//! Whoever started the machine has a limit of its own and ends it from outside, which tells nothing. So the kernel is told
//! of it (`deadline-ms=`, from power-on, somewhat shorter) and ends the run itself: with every outstanding fault and what
//! each task waits for, and with [`ExitStatus::Deadline`]. The timer's interrupt looks, so a task that spins does not keep
//! the run from ending; interrupts that are off for good do.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use arrayvec::ArrayString;

use super::record::ExitStatus;
use crate::arch::{Clock, Machine};
use crate::println;
use crate::task;
use crate::uffd::diagnosis::{self, PATIENCE};

/// When it is, in ticks of the clock.
static AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// The run ends `after` power-on, at the first tick after that.
pub fn set(after: Duration) {
    let ticks = after.as_nanos() * u128::from(Machine::frequency()) / 1_000_000_000;
    AT.store(u64::try_from(ticks).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Ends the run if its time is over. Called by the timer's interrupt handler.
#[inline]
pub fn check() {
    if Machine::ticks() >= AT.load(Ordering::Relaxed) {
        end();
    }
}

#[cold]
fn end() -> ! {
    // Once, should anything here take longer than a tick.
    AT.store(u64::MAX, Ordering::Relaxed);
    println!("\nthe time is over; tasks:");
    let tasks = task::look_at_each(|task| println!("  {}", task.look()));
    if !tasks {
        println!("  (not to be seen: a lock is held)");
    }
    diagnosis::report_at_once(PATIENCE);
    let mut message = ArrayString::<400>::new();
    // What does not fit is cut.
    let _ = describe(&mut message);
    super::end(ExitStatus::Deadline, &message)
}

/// The worst in a sentence.
fn describe(out: &mut impl Write) -> core::fmt::Result {
    match diagnosis::summary_at_once(PATIENCE) {
        (0, _) | (_, None) => out.write_str("no fault is outstanding"),
        (count, Some(worst)) => {
            let more = if count == 1 { "fault is" } else { "faults are" };
            write!(out, "{count} {more} outstanding: {worst}")?;
            match worst.finding(PATIENCE).advice() {
                "" => Ok(()),
                advice => write!(out, "; {advice}"),
            }
        }
    }
}
