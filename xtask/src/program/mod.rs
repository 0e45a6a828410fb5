//! Linux programs on Faultline: what `cargo xtask run` is made of, and whatever else runs programs.
//!
//! ```text
//!   Packing ──► ramdisk: .faultline/{args,env,program,stdin}, then the program's file system
//!      │                                                  ┌──── port 0xea ──► sink for standard output
//!      ▼                                                  │
//!   run ──► Job ──► machine ◄── sockets, a thread each ───┼──── port 0xeb ──► sink for standard error
//!      │                                                  │
//!      ▼                                                  └──── COM2 ◄─────── source of standard input
//!   Ending ◄── verdict and the record `ProgramEnd`
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`pack`] | which file comes where, and the ramdisk with it |
//! | [`elf`] | whether a file can be a program, and which interpreter it wants |
//! | [`libs`] | the interpreter and the shared libraries of a dynamic program |
//! | [`streams`] | the three streams between the machine and the host |
//! | [`ending`] | how it ended, and the status that stands for it |

use std::io;

use crate::elf::Kernel;
use crate::job::Job;
use crate::machine::Machine;
use crate::machine::qemu::Qemu;
use crate::paths::RunDir;
use crate::record::Record;
use crate::session::{self, Limits, Listener, Outcome};
use crate::status::Status;
use crate::verdict::{Verdict, judge};

pub mod elf;
pub mod ending;
pub mod libs;
pub mod pack;
pub mod streams;

pub use ending::Ending;
pub use pack::Packing;
pub use streams::{Input, Sockets, Streams};

/// Bytes that a file system in memory takes for each byte of the archive it comes from: the archive itself and the copy.
const COPIES: u64 = 2;

/// How the console's lines about programs begin, behind the time and the place.
const REMARK: &str = "linux: ";

/// A run that came to an end, whatever that was.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// The kernel's console, line by line.
    pub console: Vec<String>,
    /// What the emulator said of its own when it did not start or died, line by line.
    pub emulator: Vec<String>,
    /// The job, for the names of a panic.
    pub job: Job,
    /// What was said and how the emulator ended.
    pub outcome: Outcome,
}

impl Run {
    /// What the kernel said of the program: system calls that are not there, a signal that ended it, and where.
    pub fn remarks(&self) -> impl Iterator<Item = &str> {
        let remark = |line: &'_ str| line.find(REMARK);
        self.console
            .iter()
            .filter_map(move |line| Some(&line[remark(line)?..]))
    }
}

/// Under what a program runs.
#[derive(Clone, Copy, Default, Debug)]
pub struct Conditions {
    /// Seconds that it may take; none: no limit.
    pub timeout: Option<u64>,
    /// Huge pages of 2 MiB that are set aside for it.
    pub huge_pages: Option<u64>,
}

/// Who is told while a program runs.
pub trait Observer {
    /// The emulator is about to start with this command line; if it waits for a debugger, the second one attaches one.
    fn starting(&mut self, _command: &str, _debugger: Option<&str>) {}
    /// A line of the kernel's console.
    fn console(&mut self, _line: &str) {}
}

/// An observer that looks away.
impl Observer for () {}

/// Runs what was packed on `machine`, with its streams connected to `streams`.
///
/// # Errors
/// When it could not be run at all: it does not fit into the machine, a file cannot be read, the emulator cannot be started.
pub fn run(
    mut packing: Packing,
    machine: &Qemu,
    kernel: Kernel,
    streams: Streams,
    conditions: Conditions,
    observer: &mut dyn Observer,
) -> anyhow::Result<Run> {
    if let Input::Bytes(bytes) = &streams.input {
        packing.set_input(bytes);
    }
    let archive = packing.into_archive();
    let pages = (archive.len() * COPIES).div_ceil(crate::size::PAGE);
    crate::size::check_fits(
        "the files, in the ramdisk and in the file system,",
        pages,
        machine.memory(),
    )?;
    let mut job = Job::of_program(machine, kernel, archive);
    if machine.keeps_time() {
        job.observe("deadline-ms", conditions.timeout.map(session::kernel_deadline));
    }
    job.observe("hugepages", conditions.huge_pages);
    let sockets = Sockets::listen()?;
    job.stdio = Some(sockets.paths());
    let dir = RunDir::take(&format!("run-{}", machine.name()))?;
    let launch = machine.prepare(&job, &dir)?;
    observer.starting(&launch.command.to_string(), launch.debugger.as_deref());
    let connected = sockets.connect(streams);
    let mut ears = Ears {
        observer,
        console: Vec::new(),
        broken: connected.broken(),
    };
    let limits = Limits {
        total: conditions.timeout,
        silence: None,
    };
    let outcome = session::run(&launch, limits, &mut ears);
    let console = std::mem::take(&mut ears.console);
    let unwritten = connected.finish();
    let outcome = outcome?;
    let mut verdict = judge(machine.exit_rule(), false, &outcome.transcript, outcome.ended);
    if let Some(cause) = machine.cause_of_death(&launch) {
        verdict.reason = format!("{}: {cause}", verdict.reason);
    }
    let emulator = match verdict.status {
        Status::Host | Status::Died => launch.emulator_said(),
        _ => Vec::new(),
    };
    let ending = conclude(&outcome, &verdict, unwritten);
    Ok(Run {
        ending,
        console,
        emulator,
        job,
        outcome,
    })
}

fn conclude(outcome: &Outcome, verdict: &Verdict, unwritten: Option<io::Error>) -> Ending {
    match unwritten {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ending::BrokenPipe,
        Some(error) => return Ending::Failed(format!("cannot write the program's output: {error}")),
        None => {}
    }
    let end = outcome.transcript.records.iter().find_map(|record| match record {
        Record::ProgramEnd(end) => Some(end),
        _ => None,
    });
    Ending::new(end, verdict)
}

/// Collects the console, and ends the run when nobody reads its output any more.
struct Ears<'a> {
    observer: &'a mut dyn Observer,
    console: Vec<String>,
    broken: streams::Broken,
}

impl Listener for Ears<'_> {
    fn serial(&mut self, line: &str) {
        self.observer.console(line);
        self.console.push(line.to_owned());
    }

    fn record(&mut self, _: &Record) {}

    fn is_over(&self) -> bool {
        self.broken.is_set()
    }
}
