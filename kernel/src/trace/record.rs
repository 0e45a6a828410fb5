//! Records that travel from the kernel to whoever started it.
//!
//! One record is one line of JSON on the debug console (port 0xe9). The human-readable text goes to the serial line;
//! nothing has to be parsed out of it. A run that ends without [`Record::End`] is a failure, whatever else it said.
//!
//! The same types are used by xtask to read the lines back, so the two sides cannot drift apart.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// How a run ended, and the number that QEMU's exit device is given for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExitStatus {
    /// Everything that was asked for was done and verified.
    Success,
    /// The job ran and failed; the report or the message says why.
    Failed,
    /// The command line made no sense.
    Usage,
    /// The kernel panicked or met an exception that it cannot survive.
    Panic,
    /// The time that the run may take was over; the kernel has said what everybody waited for.
    Deadline,
    /// The machine lacks what the job is about.
    Unsupported,
}

impl ExitStatus {
    /// The value for the exit device; QEMU ends with `2 * code + 1`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0x10,
            Self::Failed => 0x11,
            Self::Usage => 0x12,
            Self::Panic => 0x13,
            Self::Deadline => 0x14,
            Self::Unsupported => 0x15,
        }
    }

    /// The status as people read it at the end of a run.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong usage",
            Self::Panic => "panic",
            Self::Deadline => "not done in time",
            Self::Unsupported => "not on this machine",
        }
    }

    /// The status QEMU's process ends with.
    pub const fn qemu_status(self) -> i32 {
        (self.code() as i32) * 2 + 1
    }
}

/// One line on the debug console.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The kernel owns the machine.
    Booted {
        /// Which boot door was taken.
        door: String,
        /// Bytes of usable memory.
        memory: u64,
        /// Ticks of the clock per second.
        frequency: u64,
    },
    /// A test that the image holds (answer to the `test-list` app).
    TestKnown {
        /// Its path-like name.
        name: String,
    },
    /// A test begins.
    TestBegin {
        /// Its name.
        name: String,
    },
    /// A test is over; one that panics has no end.
    TestEnd {
        /// Its name.
        name: String,
        /// `None` when it passed, else why it failed.
        failure: Option<String>,
        /// Clock ticks it took.
        ticks: u64,
    },
    /// How far a long job is.
    Progress {
        /// What is being done.
        what: String,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// The result of an application.
    Report(Report),
    /// The program that the `run` application ran has ended, or did not begin.
    ProgramEnd(ProgramEnd),
    /// A panic or a fatal exception; the addresses are for xtask to name.
    Panic {
        /// The message, one line.
        message: String,
        /// Source place, if known.
        location: String,
        /// The task that ran.
        task: String,
        /// Return addresses, innermost first.
        backtrace: Vec<u64>,
    },
    /// The last record of every run that was not cut short.
    End {
        /// How it ended.
        status: ExitStatus,
        /// One sentence.
        message: String,
    },
}

/// How a Linux program ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProgramEnd {
    /// By exit(2) or by returning from `main`.
    Exited {
        /// The status that its parent sees.
        status: u8,
    },
    /// By a signal that it did not handle.
    Signalled {
        /// The signal's number.
        signal: u8,
        /// Its name: `SIGSEGV`.
        name: String,
    },
    /// It was never run: execve(2) refused.
    NotStarted {
        /// The error's number: 2 for ENOENT.
        errno: u8,
        /// One sentence.
        message: String,
    },
}

/// The result of an application: figures, tables and a verdict.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The application.
    pub app: String,
    /// What it was run with, in the order of its options.
    pub options: Vec<(String, String)>,
    /// Single figures.
    pub figures: Vec<Figure>,
    /// Tables.
    pub tables: Vec<Table>,
    /// What went wrong, one sentence each; empty means verified.
    pub failures: Vec<String>,
}

/// A named number with its unit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: u64,
    /// Of what: `pages`, `bytes`, `instructions`, `ticks`, `ns`, ...
    pub unit: String,
}

/// A table of numbers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Unit of the numbers.
    pub unit: String,
    /// Heads of the number columns.
    pub columns: Vec<String>,
    /// Rows: a name, and a number for each column where there is one.
    pub rows: Vec<(String, Vec<Option<u64>>)>,
}
