//! Programs that print what they saw of the kernel under them.
//!
//! ```text
//! guest-tests list            names, one per line, with what each is about
//! guest-tests run NAME..      runs these, one process each, in order
//! guest-tests all             runs every one that a Linux machine survives
//! guest-tests cost [--json]   what operations cost, in ticks of the time-stamp counter
//! guest-tests role NAME ARG.. plays a part in a program that executes this binary again
//! guest-tests play FILE       plays the cases of a script (see `player`)
//! guest-tests plain WORDS     does something simple (see `plain`)
//! ```
//!
//! The transcript of a program stands between `=== NAME` and `=== NAME: exit 0` (or `signal 11`, or `out of time`).
//! The status is 0 when every program ended with status 0, 1 when one did not, 2 for a bad command line.

mod cost;
mod plain;
mod player;
mod programs;
mod roles;
mod runner;

use std::process::ExitCode;

use guest_tests::transcript::say;
use programs::{PROGRAMS, Program, Where};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = args.iter().map(String::as_str).collect();
    match names.split_first() {
        Some((&"list", [])) => {
            for program in PROGRAMS {
                let only = if program.on == Where::Faultline {
                    " (Faultline only)"
                } else {
                    ""
                };
                say(format_args!("{:<16} {}{only}", program.name, program.about));
            }
            ExitCode::SUCCESS
        }
        Some((&"all", [])) => runner::run(PROGRAMS.iter().filter(|program| program.on == Where::Everywhere)),
        Some((&"play", [script])) => player::play(script),
        Some((&"run", names)) if !names.is_empty() => {
            let mut chosen: Vec<&Program> = Vec::new();
            for name in names {
                match PROGRAMS.iter().find(|program| program.name == *name) {
                    Some(program) => chosen.push(program),
                    None => {
                        eprintln!("guest-tests: no program is called {name}; `guest-tests list` names them");
                        return ExitCode::from(2);
                    }
                }
            }
            runner::run(chosen.into_iter())
        }
        Some((&"cost", [])) => cost::measure(false),
        Some((&"cost", [option])) if *option == "--json" => cost::measure(true),
        Some((&"role", words)) => roles::play(words),
        Some((&"plain", words)) => plain::run(words),
        _ => {
            eprintln!("usage: guest-tests list | run NAME.. | all | cost [--json] | play FILE");
            ExitCode::from(2)
        }
    }
}
