//! What a run amounts to, from what was said and how the emulator ended.
//!
//! | said | emulator ended | verdict |
//! | --- | --- | --- |
//! | `End` | with exactly the status that belongs to it (QEMU), or anyhow (Bochs, whose status says nothing) | what `End` says |
//! | `End` | otherwise | died: the two disagree |
//! | `Panic`, no `End` | anyhow | panic |
//! | neither | did not end in time | hang |
//! | neither | QEMU status 1 before the kernel said anything | the emulator refused |
//! | neither | anything else | died (triple fault, reset, killed) |
//!
//! Silence is never a success, and a success that contradicts other records is none.

use crate::protocol::Transcript;
use crate::record::ExitStatus;
use crate::status::Status;

/// What an emulator's own exit status is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitRule {
    /// The kernel chooses it through an exit device; it has to match.
    Exact,
    /// It says nothing.
    Ignored,
}

/// Which limit ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `--timeout`: seconds for the whole run.
    Total(u64),
    /// Seconds without a word from the machine.
    Silence(u64),
}

/// How the emulator's process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// We killed it: it had sent `End` and did not go.
    Lingered,
    /// We killed it: a limit ran out.
    TimedOut(Limit),
    /// We killed it: Ctrl-C.
    Interrupted,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "the emulator ended with status {status}"),
            Self::Signal(signal) => write!(f, "the emulator was killed by signal {signal}"),
            Self::Lingered => write!(f, "the emulator did not end"),
            Self::TimedOut(Limit::Total(seconds)) => write!(f, "not done after {seconds} s (--timeout)"),
            Self::TimedOut(Limit::Silence(seconds)) => {
                write!(f, "not a word from the machine for {seconds} s (--silence)")
            }
            Self::Interrupted => write!(f, "interrupted"),
        }
    }
}

/// What a run amounts to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The kind; xtask ends with it.
    pub status: Status,
    /// One sentence.
    pub reason: String,
}

impl Verdict {
    fn new(status: Status, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// Judges a run; `wants_report` says whether a success without a report is believable.
pub fn judge(rule: ExitRule, wants_report: bool, transcript: &Transcript, ended: Ended) -> Verdict {
    if ended == Ended::Interrupted {
        return Verdict::new(Status::Interrupted, "interrupted");
    }
    match transcript.end() {
        Some((said, message)) if agrees(rule, said, ended) => closed(said, message, wants_report, transcript),
        Some((said, _)) => {
            let reason =
                format!("the kernel closed the run with {said:?}, but {ended}; the two do not agree");
            Verdict::new(Status::Died, reason)
        }
        None => unclosed(rule, transcript, ended),
    }
}

fn agrees(rule: ExitRule, said: ExitStatus, ended: Ended) -> bool {
    match rule {
        ExitRule::Exact => ended == Ended::Exited(said.qemu_status()),
        ExitRule::Ignored => matches!(ended, Ended::Exited(_) | Ended::Signal(_) | Ended::Lingered),
    }
}

fn closed(said: ExitStatus, message: &str, wants_report: bool, transcript: &Transcript) -> Verdict {
    match said {
        ExitStatus::Success => match contradiction(wants_report, transcript) {
            Some(reason) => Verdict::new(Status::Failed, reason),
            None => Verdict::new(Status::Success, message),
        },
        ExitStatus::Failed => Verdict::new(Status::Failed, message),
        ExitStatus::Usage => Verdict::new(Status::Usage, message),
        ExitStatus::Deadline => Verdict::new(Status::Deadline, message),
        ExitStatus::Unsupported => Verdict::new(Status::Unsupported, message),
        ExitStatus::Panic => match transcript.panic() {
            Some(panic) => Verdict::new(
                Status::Panic,
                format!("{} (at {})", panic.message, panic.location),
            ),
            None => Verdict::new(Status::Panic, message),
        },
    }
}

/// Why a claimed success cannot be believed.
fn contradiction(wants_report: bool, transcript: &Transcript) -> Option<String> {
    if transcript.panic().is_some() {
        return Some("the kernel claims success and reported a panic".into());
    }
    if let Some(defect) = transcript.malformed.first() {
        return Some(format!(
            "the kernel claims success, but a record could not be read ({}): {}",
            defect.reason, defect.line
        ));
    }
    match transcript.report() {
        None if wants_report => Some("the kernel claims success and sent no report".into()),
        Some(report) if !report.failures.is_empty() => Some(format!(
            "the kernel claims success and its report names a failure: {}",
            report.failures[0]
        )),
        _ => None,
    }
}

fn unclosed(rule: ExitRule, transcript: &Transcript, ended: Ended) -> Verdict {
    if let Some(panic) = transcript.panic() {
        let reason = format!(
            "{} (at {}; the run was not closed: {ended})",
            panic.message, panic.location
        );
        return Verdict::new(Status::Panic, reason);
    }
    match ended {
        Ended::TimedOut(_) => Verdict::new(Status::TimedOut, format!("the machine hung: {ended}")),
        Ended::Exited(1) if rule == ExitRule::Exact && transcript.records.is_empty() => {
            Verdict::new(Status::Host, "the emulator refused to start")
        }
        _ => {
            let reason = format!("the machine died without a verdict: {ended}");
            Verdict::new(Status::Died, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::record::{Record, Report};

    use super::*;
    use crate::protocol::Malformed;

    const STATUSES: [(ExitStatus, Status); 6] = [
        (ExitStatus::Success, Status::Success),
        (ExitStatus::Failed, Status::Failed),
        (ExitStatus::Usage, Status::Usage),
        (ExitStatus::Panic, Status::Panic),
        (ExitStatus::Deadline, Status::Deadline),
        (ExitStatus::Unsupported, Status::Unsupported),
    ];

    fn booted() -> Record {
        Record::Booted {
            door: "pvh".into(),
            memory: 1,
            frequency: 1,
        }
    }

    fn panic() -> Record {
        Record::Panic {
            message: "boom".into(),
            location: "a.rs:1".into(),
            task: "init".into(),
            backtrace: vec![],
        }
    }

    fn end(status: ExitStatus) -> Record {
        Record::End {
            status,
            message: "closing".into(),
        }
    }

    fn said(records: &[Record]) -> Transcript {
        Transcript {
            records: records.to_vec(),
            malformed: vec![],
        }
    }

    /// Every way a process can end that is not ours.
    fn endings() -> Vec<Ended> {
        let mut all: Vec<Ended> = (0..=255).map(Ended::Exited).collect();
        all.extend((1..=64).map(Ended::Signal));
        all.extend([
            Ended::Lingered,
            Ended::TimedOut(Limit::Total(1)),
            Ended::TimedOut(Limit::Silence(1)),
        ]);
        all
    }

    #[test]
    fn qemu_is_believed_only_with_the_exact_status() {
        for (claim, status) in STATUSES {
            for ended in endings() {
                let verdict = judge(ExitRule::Exact, false, &said(&[booted(), end(claim)]), ended);
                let matching = ended == Ended::Exited(claim.qemu_status());
                assert_eq!(
                    verdict.status,
                    if matching { status } else { Status::Died },
                    "{claim:?}, {ended:?}"
                );
            }
        }
    }

    #[test]
    fn bochs_is_believed_by_its_closing_record_alone() {
        for (claim, status) in STATUSES {
            for ended in endings() {
                let verdict = judge(ExitRule::Ignored, false, &said(&[booted(), end(claim)]), ended);
                let cut = matches!(ended, Ended::TimedOut(_));
                assert_eq!(
                    verdict.status,
                    if cut { Status::Died } else { status },
                    "{claim:?}, {ended:?}"
                );
            }
        }
    }

    #[test]
    fn without_a_closing_record_nothing_succeeds() {
        for rule in [ExitRule::Exact, ExitRule::Ignored] {
            for records in [
                &[][..],
                &[booted()],
                &[booted(), end(ExitStatus::Success), booted()],
            ] {
                for ended in endings() {
                    let status = judge(rule, false, &said(records), ended).status;
                    let expected = match ended {
                        Ended::TimedOut(_) => Status::TimedOut,
                        Ended::Exited(1) if rule == ExitRule::Exact && records.is_empty() => Status::Host,
                        _ => Status::Died,
                    };
                    assert_eq!(status, expected, "{rule:?}, {records:?}, {ended:?}");
                }
            }
        }
    }

    #[test]
    fn a_panic_that_could_not_close_the_run_is_still_a_panic() {
        for rule in [ExitRule::Exact, ExitRule::Ignored] {
            for ended in endings() {
                let verdict = judge(rule, false, &said(&[booted(), panic()]), ended);
                assert_eq!(verdict.status, Status::Panic, "{ended:?}");
                assert!(verdict.reason.contains("boom"));
            }
        }
    }

    #[test]
    fn a_closed_panic_is_named_by_its_message() {
        let transcript = said(&[booted(), panic(), end(ExitStatus::Panic)]);
        let ended = Ended::Exited(ExitStatus::Panic.qemu_status());
        let verdict = judge(ExitRule::Exact, true, &transcript, ended);
        assert_eq!(
            (verdict.status, verdict.reason.as_str()),
            (Status::Panic, "boom (at a.rs:1)")
        );
    }

    #[test]
    fn an_interrupt_beats_everything() {
        let transcript = said(&[booted(), end(ExitStatus::Success)]);
        assert_eq!(
            judge(ExitRule::Exact, false, &transcript, Ended::Interrupted).status,
            Status::Interrupted
        );
    }

    #[test]
    fn a_success_that_contradicts_itself_is_a_failure() {
        let ended = Ended::Exited(ExitStatus::Success.qemu_status());
        let done = end(ExitStatus::Success);
        let failing = Report {
            failures: vec!["page 7 differs".into()],
            ..Report::default()
        };
        let torn = Malformed {
            line: "{\"x".into(),
            reason: "cut".into(),
        };
        let cases = [
            (false, said(&[booted(), panic(), done.clone()]), "panic"),
            (true, said(&[booted(), done.clone()]), "no report"),
            (
                true,
                said(&[booted(), Record::Report(failing), done.clone()]),
                "page 7",
            ),
            (
                false,
                Transcript {
                    malformed: vec![torn],
                    ..said(&[booted(), done.clone()])
                },
                "could not be read",
            ),
        ];
        for (wants_report, transcript, word) in cases {
            let verdict = judge(ExitRule::Exact, wants_report, &transcript, ended);
            assert_eq!(verdict.status, Status::Failed, "{word}");
            assert!(verdict.reason.contains(word), "{}", verdict.reason);
        }
        let fine = said(&[booted(), Record::Report(Report::default()), done]);
        assert_eq!(judge(ExitRule::Exact, true, &fine, ended).status, Status::Success);
    }
}
