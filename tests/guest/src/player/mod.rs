//! Plays scripts: many short cases, each a list of steps, with a line of transcript for whatever a step brings about.
//!
//! ```text
//!   script       the text: `case NAME`, then `ACTOR: STEP` a line
//!     │
//!   case         one case, in a process of its own: posts a step, waits until all is quiet, writes the lines
//!     │  └ settle    when all is quiet: every actor is done, or provably asleep
//!   actor        threads and forked children that carry steps out; any of them may be stopped by the kernel for long
//!     │
//!   steps/       what the steps do: memory, channel, looks, processes
//!   touch        loads and stores that survive their signals
//!   arena        fixed addresses with names, so that no transcript holds an address that the kernel chose
//!   control      the memory that all of them share
//! ```
//!
//! A transcript is the same on every run. One step is carried out at a time, and the next one begins only when every
//! thread of the case has finished what it does or sleeps until another step changes that. What several threads do at
//! once after one step (a wake lets two of them go, and both fault again) has no order, and is printed sorted.

mod actor;
mod arena;
mod case;
mod control;
mod pen;
mod script;
mod settle;
mod steps;
mod touch;

use std::process::ExitCode;

use guest_tests::sys;
use guest_tests::transcript::say;

use control::Control;
use script::{Case, Script};

/// Seconds that a case may take.
const CASE_SECONDS: u32 = 30;

/// Plays every case of the script in the file. The status is 0 when all were played to their end.
pub fn play(path: &str) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("guest-tests: cannot read {path}: {error}");
            return ExitCode::from(2);
        }
    };
    // The actors outlive every scope: they end with their process.
    let script = match Script::parse(text.leak()) {
        Ok(script) => script,
        Err(error) => {
            eprintln!("guest-tests: {path}: {error}");
            return ExitCode::from(2);
        }
    };
    let Some(control) = Control::map() else {
        eprintln!("guest-tests: no memory to share with the cases");
        return ExitCode::from(2);
    };
    arena::fill_patterns();
    crate::runner::interrupt_on_alarm();
    let mut all_well = true;
    for case in &*script.cases.leak() {
        say(format_args!("=== {}", case.name));
        let end = play_one(case, control);
        control.transcript().write_out();
        all_well &= end == "exit 0";
        say(format_args!("=== {}: {end}", case.name));
    }
    ExitCode::from(u8::from(!all_well))
}

/// Plays a case in a process of its own, and says how it ended.
fn play_one(case: &'static Case<'static>, control: &'static Control) -> String {
    control.reset();
    match sys::call(libc::SYS_fork, &[]) {
        Err(errno) => format!("cannot fork: {errno}"),
        Ok(0) => {
            let _ = sys::call(libc::SYS_setpgid, &[0, 0]);
            case::play(case, control);
            let _ = sys::call(libc::SYS_exit_group, &[0]);
            unreachable!("the process has ended");
        }
        Ok(child) => {
            let end = crate::runner::wait(child as i32, CASE_SECONDS);
            for pid in control.children() {
                let _ = sys::call(libc::SYS_kill, &[pid as usize, libc::SIGKILL as usize]);
            }
            end
        }
    }
}
