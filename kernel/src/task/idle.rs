//! What a CPU does when no task can run, and how it notices that none ever will.
//!
//! Tasks wait for each other, for time, or for a device. When nobody can run, no timer is armed and nobody waits for a
//! device, nothing can ever change again: that is reported with what each task waits for, instead of standing still.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use super::{State, for_each, reaper, sched};
use crate::arch::{Cpu, Irq, Machine};
use crate::sync::Once;
use crate::uffd::diagnosis;

/// Told once when nothing can run any more; the text names all tasks and what they wait for. Ends the machine.
pub type DeadlockHook = fn(&str) -> !;

static HOOK: Once<DeadlockHook> = Once::new();
static EXTERNAL: AtomicUsize = AtomicUsize::new(0);

/// Sets who is told. Without it, the kernel panics. The first call counts.
pub fn set_deadlock_hook(hook: DeadlockHook) {
    HOOK.call_once(|| hook);
}

/// Somebody waits for something outside the CPU that ends in an interrupt: while such a value exists, an idle machine is
/// not a deadlock.
#[derive(Debug)]
pub struct ExternalWait(());

impl ExternalWait {
    /// The wait begins; it ends when the value is dropped.
    #[must_use = "the wait ends when the value is dropped"]
    pub fn begin() -> Self {
        EXTERNAL.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for ExternalWait {
    fn drop(&mut self) {
        EXTERNAL.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs tasks, and waits for interrupts when there are none to run. The boot context ends here, after
/// [`init`](super::init); it enables interrupts.
pub fn run() -> ! {
    loop {
        // Taken back by `wait_for_interrupt`, or needed on: a wake-up after the look below must not be slept through.
        let _ = Machine::disable();
        let cpu = &Machine::local().sched;
        if cpu.is_wanted() {
            sched::rotate(cpu);
            continue;
        }
        reaper::release_space();
        if is_deadlock() {
            report();
        }
        Machine::wait_for_interrupt();
    }
}

/// Nothing but an interrupt can make a task runnable now; says whether none will.
fn is_deadlock() -> bool {
    !sched::has_timers() && EXTERNAL.load(Ordering::Relaxed) == 0
}

fn report() -> ! {
    // Nothing will happen to any of them: none has time left.
    diagnosis::report(Duration::ZERO);
    let text = describe();
    match HOOK.get() {
        Some(hook) => hook(&text),
        None => panic!("{text}"),
    }
}

/// All tasks and what they wait for.
fn describe() -> String {
    let mut text = String::new();
    let mut waiting = 0;
    for_each(|task| {
        if task.state() == State::Parked && !task.is_in_background() {
            waiting += 1;
            // Writing to a string does not fail.
            let _ = write!(text, "; {}", task.info());
        }
    });
    match waiting {
        0 => String::from("no task is left, and none has ended the machine"),
        1 => format!("deadlock: a task waits and nothing can wake it{text}"),
        _ => format!("deadlock: {waiting} tasks wait and nothing can wake them{text}"),
    }
}
