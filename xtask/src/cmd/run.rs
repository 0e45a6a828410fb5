//! `cargo xtask run [OPTIONS] PROGRAM [ARGS..]`: a Linux program, with its streams, and its status as ours.
//!
//! Standard output is the program's alone. What is to be said of the run goes to standard error, and is nothing when the program
//! simply ends: with `--verbose` the emulator's command line and the kernel's console, as it comes; else the console when the
//! fault is Faultline's, and what it said of system calls that are not there when the program failed.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::cmd::boot;
use crate::elf::Kernel;
use crate::interrupt;
use crate::machine::Machine as _;
use crate::machine::qemu::{Door, Hardware, Qemu};
use crate::program::ending::HELP;
use crate::program::pack::Request;
use crate::program::{self, Conditions, Ending, Observer, Packing, Run, Streams};
use crate::setup::{self, InstallOptions};
use crate::ui::Ui;

/// Most lines of the console that are shown after a failure.
const SHOWN: usize = 100;
/// What takes longer than this is named.
const SLOW: Duration = Duration::from_secs(2);

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    hardware: Hardware,
    /// A file or directory to put into the program's file system
    #[arg(long, value_name = "HOST[:GUEST]")]
    file: Vec<OsString>,
    /// A variable of the program's environment; without a value it is that of this environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    env: Vec<OsString>,
    /// Put what dynamic programs and scripts need there, as it is on this machine: interpreters and shared libraries
    #[arg(long)]
    libs: bool,
    /// Huge pages of 2 MiB to set aside for the program
    #[arg(long, value_name = "N")]
    hugepages: Option<u64>,
    /// Seconds that the run may take; default: no limit
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Print the emulator's command line and the kernel's console on standard error
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    install: InstallOptions,
    /// The program, and its arguments as they are
    #[arg(required = true, trailing_var_arg = true, value_names = ["PROGRAM", "ARGS"])]
    command: Vec<OsString>,
}

/// Runs the program and says on standard error what its status does not; returns the exit status.
pub fn run(args: &Args) -> u8 {
    let (program, rest) = args.command.split_first().expect("clap has seen a program");
    let request = Request {
        program: program.clone(),
        args: rest.to_vec(),
        env: args.env.clone(),
        files: args.file.clone(),
        libs: args.libs,
    };
    let ending = attempt(args, &request).unwrap_or_else(|error| {
        if interrupt::requested() {
            Ending::Interrupted
        } else {
            Ending::Failed(format!("{error:#}"))
        }
    });
    if let Some(sentence) = ending.sentence(&program.to_string_lossy()) {
        say(&format!("faultline: {sentence}"));
    }
    ending.code()
}

fn attempt(args: &Args, request: &Request) -> anyhow::Result<Ending> {
    let machine = Qemu::through(Door::Pvh, &args.hardware)?;
    if machine.idle_cpus() > 0 {
        say(&format!(
            "faultline: the kernel uses one CPU; the other {} stay idle",
            machine.idle_cpus()
        ));
    }
    let packing = match Packing::new(request) {
        Ok(packing) => packing,
        Err(ending) => return Ok(ending),
    };
    for note in &packing.notes {
        say(&format!("faultline: {note}"));
    }
    setup::ensure(&machine.needs(), args.install)?;
    let kernel = noted("building the kernel", Kernel::build_quietly)?;
    let mut observer = Onlooker {
        verbose: args.verbose,
    };
    let streams = Streams::inherited()?;
    let conditions = Conditions {
        timeout: args.timeout,
        huge_pages: args.hugepages,
    };
    let run = program::run(packing, &machine, kernel, streams, conditions, &mut observer)?;
    explain(&run, args.verbose);
    Ok(run.ending)
}

/// Shows what the console and the emulator said of a failure.
fn explain(run: &Run, verbose: bool) {
    let ui = Ui::new(true);
    if let Some(panic) = boot::named_panic(&run.job, &run.outcome, &ui) {
        say(&boot::render_panic(&panic));
    }
    let lines: Vec<&str> = match run.ending.code() {
        _ if run.ending.is_ours() => run.console.iter().map(String::as_str).collect(),
        0 => Vec::new(),
        _ => run.remarks().collect(),
    };
    if !verbose {
        let skipped = lines.len().saturating_sub(SHOWN);
        lines[skipped..].iter().for_each(|line| say(&format!("| {line}")));
    }
    run.emulator
        .iter()
        .for_each(|line| say(&format!("faultline: {line}")));
}

/// Prints on standard error.
fn say(text: &str) {
    // Nobody is left to tell when it is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Does something that usually is done at once, and says what it is when it is not.
fn noted<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let (done, waits) = mpsc::channel::<()>();
    thread::spawn(move || {
        if waits.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
            say(&format!("faultline: {what}"));
        }
    });
    let result = work();
    drop(done);
    result
}

struct Onlooker {
    verbose: bool,
}

impl Observer for Onlooker {
    fn starting(&mut self, command: &str, debugger: Option<&str>) {
        if self.verbose {
            say(command);
        }
        if let Some(debugger) = debugger {
            say("the machine waits for a debugger; in another terminal, type:");
            say(&format!("    {debugger}"));
        }
    }

    fn console(&mut self, line: &str) {
        if self.verbose {
            say(&format!("| {line}"));
        }
    }
}
