//! How a program ended, and the exit status that stands for it: those of timeout(1), env(1) and docker(1).

use crate::record::ProgramEnd;
use crate::status::Status;
use crate::verdict::Verdict;

/// Added to a signal's number.
const SIGNALLED: u8 = 128;
const SIGPIPE: u8 = 13;
/// ENOENT of Linux.
const NO_ENTRY: u8 = 2;

/// How a run of a program ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The program exited with this status.
    Exited(u8),
    /// A signal ended it: number and name.
    Signalled(u8, String),
    /// It was not done in time.
    TimedOut(String),
    /// Faultline itself failed: panic, no verdict, something missing.
    Failed(String),
    /// The program is there and cannot be executed.
    NotExecutable(String),
    /// There is no such program.
    NotFound(String),
    /// Nobody reads its output any more.
    BrokenPipe,
    /// Ctrl-C or a termination signal.
    Interrupted,
}

/// The table that `--help` shows and docs/commands.md repeats.
pub const HELP: &str = "\
Exit statuses:
  the program's own, and
  124  time-out (--timeout)
  125  Faultline itself failed: panic, no verdict, wrong usage, something missing
  126  the program cannot be executed
  127  the program was not found
  128+S  the program was ended by signal S (130 for Ctrl-C, too)";

impl Ending {
    /// From what the kernel said of the program, and what the run amounts to.
    pub fn new(end: Option<&ProgramEnd>, verdict: &Verdict) -> Self {
        match (verdict.status, end) {
            (Status::Interrupted, _) => Self::Interrupted,
            (Status::TimedOut | Status::Deadline, _) => Self::TimedOut(verdict.reason.clone()),
            (Status::Success, Some(ProgramEnd::Exited { status })) => Self::Exited(*status),
            (Status::Success, Some(ProgramEnd::Signalled { signal, name })) => {
                Self::Signalled(*signal, name.clone())
            }
            (Status::Success | Status::Failed, Some(ProgramEnd::NotStarted { errno, message })) => {
                match *errno {
                    NO_ENTRY => Self::NotFound(message.clone()),
                    _ => Self::NotExecutable(message.clone()),
                }
            }
            (Status::Success, None) => {
                Self::Failed("the kernel claims success and did not say how the program ended".into())
            }
            _ => Self::Failed(verdict.reason.clone()),
        }
    }

    /// The exit status.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            Self::Signalled(signal, ..) => SIGNALLED.wrapping_add(*signal),
            Self::TimedOut(_) => 124,
            Self::Failed(_) => 125,
            Self::NotExecutable(_) => 126,
            Self::NotFound(_) => 127,
            Self::BrokenPipe => SIGNALLED + SIGPIPE,
            Self::Interrupted => Status::Interrupted.code(),
        }
    }

    /// A sentence about `program` for whoever started it; `None` when its status says everything.
    pub fn sentence(&self, program: &str) -> Option<String> {
        Some(match self {
            Self::Exited(_) | Self::BrokenPipe => return None,
            Self::Signalled(signal, name) => format!("{program} ended by signal {signal} ({name})"),
            Self::TimedOut(reason) => format!("{program}: not done in time: {reason}"),
            Self::Failed(reason) => reason.clone(),
            Self::NotExecutable(reason) => format!("{program} cannot be executed: {reason}"),
            Self::NotFound(reason) => format!("{program}: {reason}"),
            Self::Interrupted => "interrupted".into(),
        })
    }

    /// Whether the fault is Faultline's, so that its console has something to tell.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: Status) -> Verdict {
        Verdict {
            status,
            reason: "reason".into(),
        }
    }

    fn signalled() -> ProgramEnd {
        ProgramEnd::Signalled {
            signal: 11,
            name: "SIGSEGV".into(),
        }
    }

    fn not_started(errno: u8) -> ProgramEnd {
        ProgramEnd::NotStarted {
            errno,
            message: "why".into(),
        }
    }

    #[test]
    fn every_exit_status_is_the_programs_own() {
        for status in 0..=255 {
            let end = ProgramEnd::Exited { status };
            let ending = Ending::new(Some(&end), &verdict(Status::Success));
            assert_eq!((ending.code(), ending.sentence("x")), (status, None));
        }
    }

    #[test]
    fn a_signal_adds_128_and_is_named() {
        let ending = Ending::new(Some(&signalled()), &verdict(Status::Success));
        assert_eq!(ending.code(), 139);
        assert_eq!(
            ending.sentence("./x").as_deref(),
            Some("./x ended by signal 11 (SIGSEGV)")
        );
    }

    #[test]
    fn what_was_not_started_was_not_found_or_cannot_be_executed() {
        for (errno, code) in [(2, 127), (8, 126), (13, 126), (12, 126)] {
            for status in [Status::Success, Status::Failed] {
                assert_eq!(
                    Ending::new(Some(&not_started(errno)), &verdict(status)).code(),
                    code,
                    "{errno}"
                );
            }
        }
    }

    #[test]
    fn a_run_that_was_not_in_order_is_believed_no_exit_status() {
        let exited = ProgramEnd::Exited { status: 0 };
        for (status, code) in [
            (Status::Panic, 125),
            (Status::Died, 125),
            (Status::Failed, 125),
            (Status::Usage, 125),
            (Status::Host, 125),
            (Status::Unsupported, 125),
            (Status::TimedOut, 124),
            (Status::Deadline, 124),
            (Status::Interrupted, 130),
        ] {
            for end in [None, Some(&exited), Some(&signalled())] {
                assert_eq!(Ending::new(end, &verdict(status)).code(), code, "{status:?}");
            }
        }
        assert_eq!(Ending::new(None, &verdict(Status::Success)).code(), 125);
    }

    #[test]
    fn help_lists_the_fixed_codes() {
        for code in ["124", "125", "126", "127", "128+S", "130"] {
            assert!(HELP.contains(code), "{code}");
        }
    }
}
