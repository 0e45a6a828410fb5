//! The exit statuses of xtask, one per kind of ending, so that scripts can tell them apart.

use crate::elf::BuildError;
use crate::setup::Missing;

/// What xtask ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Everything that was asked for was done and verified.
    Success,
    /// The job ran and failed.
    Failed,
    /// The command line, a file it names, or the kernel's command line made no sense.
    Usage,
    /// The kernel panicked.
    Panic,
    /// The machine hung: nothing came in time.
    TimedOut,
    /// The run was not done in time; the kernel has ended it and said who waits for what.
    Deadline,
    /// The machine lacks what the job is about.
    Unsupported,
    /// A tool, target or package is missing and was not installed.
    Missing,
    /// The machine ended without a verdict: triple fault, reset, or the emulator was killed.
    Died,
    /// Something did not compile.
    Build,
    /// The host side failed: a file could not be written, the emulator refused to start.
    Host,
    /// Ctrl-C or a termination signal.
    Interrupted,
}

/// The table that `--help` shows and docs/commands.md repeats.
pub const HELP: &str = "\
Exit statuses:
    0  done and verified
    1  the job ran and failed (the report says why)
    2  wrong usage: an option, or a file named by one
    3  the kernel panicked
    4  time-out: the machine hung, and was ended from outside
    5  a tool, target or package is missing
    6  the machine died without a verdict (triple fault, reset, killed)
    7  the build failed
    8  the host side failed (emulator refused to start, file not writable)
    9  not done in time (--timeout): the kernel ended the run and says who waits for what
   10  the machine lacks what the job is about (no SVM or VMX for guests)
  130  interrupted";

impl Status {
    /// The process's exit status.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Panic => 3,
            Self::TimedOut => 4,
            Self::Missing => 5,
            Self::Died => 6,
            Self::Build => 7,
            Self::Host => 8,
            Self::Deadline => 9,
            Self::Unsupported => 10,
            Self::Interrupted => 130,
        }
    }
}

/// An input that cannot be used, with the sentence for the user.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An `anyhow` error that ends in [`Status::Usage`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// The status that an error stands for: a classified error or context in it decides, else [`Status::Host`].
pub fn of_error(error: &anyhow::Error) -> Status {
    // `downcast_ref` finds an error or a context wherever it stands among the contexts that were added.
    if error.is::<UsageError>() || error.is::<crate::snapshot::SnapshotError>() {
        Status::Usage
    } else if error.is::<Missing>() {
        Status::Missing
    } else if error.is::<BuildError>() {
        Status::Build
    } else {
        Status::Host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 12] = [
        Status::Success,
        Status::Failed,
        Status::Usage,
        Status::Panic,
        Status::TimedOut,
        Status::Deadline,
        Status::Unsupported,
        Status::Missing,
        Status::Died,
        Status::Build,
        Status::Host,
        Status::Interrupted,
    ];

    #[test]
    fn no_two_endings_share_a_code() {
        let mut codes: Vec<u8> = ALL.iter().map(|status| status.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }

    #[test]
    fn help_lists_every_code() {
        for status in ALL {
            let code = format!("{:>5}  ", status.code());
            assert!(HELP.contains(&code), "{status:?} is not in the help text");
        }
    }

    #[test]
    fn errors_are_classified_through_their_context() {
        let error = usage("no").context("while looking");
        assert_eq!(of_error(&error), Status::Usage);
        assert_eq!(of_error(&anyhow::anyhow!("disk full")), Status::Host);
    }
}
