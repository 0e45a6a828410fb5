//! What a guest can be asked for: the first word of its command line.

use alloc::string::{String, ToString};
use core::fmt;

use kernel::abi::guest::BootInfo;
use kernel::trace;
use kernel::trace::cmdline::{Cmdline, CmdlineError};
use kernel::trace::record::ExitStatus;

use crate::{hostile, probe, workload};

/// A command.
pub struct Command {
    /// The word.
    pub name: &'static str,
    /// Does it; some never return.
    pub run: fn(&Cmdline<'_>, &'static BootInfo) -> Result<String, Failure>,
}

/// Why a command did not come to its end.
#[derive(Debug)]
pub enum Failure {
    /// What is asked for makes no sense.
    Usage(String),
    /// It could not be done, or came out wrong.
    Failed(String),
}

impl Failure {
    /// A failure that `error` describes.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<CmdlineError<'_>> for Failure {
    fn from(error: CmdlineError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Carries out the command line and ends the guest.
pub fn main(text: &str, given: &'static BootInfo) {
    let (status, message) = match run(text, given) {
        Ok(message) => (ExitStatus::Success, message),
        Err(Failure::Usage(message)) => (ExitStatus::Usage, message),
        Err(Failure::Failed(message)) => (ExitStatus::Failed, message),
    };
    trace::end(status, &message)
}

fn run(text: &str, given: &'static BootInfo) -> Result<String, Failure> {
    let line = Cmdline::parse(text)?;
    let name = line.app().unwrap_or("hello");
    let all = probe::COMMANDS
        .iter()
        .chain(workload::COMMANDS)
        .chain(hostile::COMMANDS);
    let command = all.into_iter().find(|command| command.name == name);
    let command =
        command.ok_or_else(|| Failure::Usage(alloc::format!("the guest has no command `{name}`")))?;
    (command.run)(&line, given)
}
