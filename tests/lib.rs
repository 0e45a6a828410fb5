//! Runs the tests inside the image and says of each by name how it went.
//!
//! The image knows its tests (`test-list`) and runs them one after the other (`test`), telling when one begins and
//! ends. A test that panics, hangs or kills the machine has no end: it has failed, and the machine is booted again
//! without it for the rest. A test that never ran has failed too; silence is no success.

use std::collections::BTreeMap;

use xtask::app::{App, TestArgs};
use xtask::elf::Kernel;
use xtask::job::Job;
use xtask::machine::Machine;
use xtask::paths::RunDir;
use xtask::protocol::Transcript;
use xtask::record::Record;
use xtask::session::{self, Limits};
use xtask::status::Status;
use xtask::ui::Ui;
use xtask::verdict::{Verdict, judge};
use xtask::{cmd, interrupt};

/// Most boots of one machine in one run.
const MAX_BOOTS: usize = 12;
const LIMITS: Limits = Limits {
    total: Some(900),
    silence: Some(60),
};

/// How a test went: `Err` says why it failed.
pub type Outcome = Result<(), String>;

/// How all tests of a machine went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Results {
    /// By name.
    pub tests: BTreeMap<String, Outcome>,
    /// Whether the last boot was closed with a verdict that fits the tests.
    pub closing: Option<Outcome>,
}

/// The names of the tests that the image holds.
///
/// # Errors
/// When it cannot be booted or does not answer.
pub fn list(kernel: &Kernel, machine: &dyn Machine) -> anyhow::Result<Vec<String>> {
    let (transcript, verdict, panic) = boot(kernel, machine, &App::TestList)?;
    anyhow::ensure!(
        verdict.status == Status::Success,
        "{}: the image did not list its tests: {}{panic}",
        machine.name(),
        verdict.reason
    );
    let name = |record: &Record| {
        if let Record::TestKnown { name } = record {
            Some(name.clone())
        } else {
            None
        }
    };
    Ok(transcript.records.iter().filter_map(name).collect())
}

/// Runs the tests whose name contains `filter`, booting again after each one that takes the machine down.
pub fn run(kernel: &Kernel, machine: &dyn Machine, known: &[String], filter: Option<&str>) -> Results {
    let mut results = Results::default();
    let mut culprits: Vec<String> = Vec::new();
    for _ in 0..MAX_BOOTS {
        let args = TestArgs {
            filter: filter.map(str::to_owned),
            skip: culprits.clone(),
        };
        let (transcript, verdict, panic) = match boot(kernel, machine, &App::Test(args)) {
            Ok(said) => said,
            Err(error) => {
                results.give_up(known, filter, &format!("{error:#}"));
                return results;
            }
        };
        let Some(culprit) = results.take(&transcript, &verdict, &panic) else {
            break;
        };
        if interrupt::requested() {
            break;
        }
        culprits.push(culprit);
    }
    results.give_up(known, filter, "it never ran");
    results
}

impl Results {
    /// Takes over what one boot said. Returns the test that took the machine down, if one did.
    fn take(&mut self, transcript: &Transcript, verdict: &Verdict, panic: &str) -> Option<String> {
        let mut running = None;
        for record in &transcript.records {
            match record {
                Record::TestBegin { name } => running = Some(name.clone()),
                Record::TestEnd { name, failure, .. } => {
                    running = None;
                    self.tests
                        .insert(name.clone(), failure.clone().map_or(Ok(()), Err));
                }
                _ => {}
            }
        }
        if let Some(name) = &running {
            self.tests
                .insert(name.clone(), Err(format!("{}{panic}", verdict.reason)));
        }
        self.closing = Some(
            self.fits(verdict, running.as_deref())
                .map_err(|reason| format!("{reason}{panic}")),
        );
        running
    }

    /// Whether a boot's verdict fits what its tests said. A boot that was cut short by a test fits: that test has
    /// failed, and the next boot is looked at instead.
    fn fits(&self, verdict: &Verdict, culprit: Option<&str>) -> Outcome {
        let any_failed = self.tests.values().any(Result::is_err);
        match (verdict.status, culprit) {
            (Status::Success, None) => Ok(()),
            (Status::Failed, None) if any_failed => Ok(()),
            (_, Some(_)) => Ok(()),
            _ => Err(verdict.reason.clone()),
        }
    }

    /// Every test that should have run and did not has failed.
    fn give_up(&mut self, known: &[String], filter: Option<&str>, reason: &str) {
        for name in known
            .iter()
            .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
        {
            self.tests
                .entry(name.clone())
                .or_insert_with(|| Err(reason.to_owned()));
        }
    }
}

/// One boot: what was said, what it amounts to, and the panic as text to append to a message.
fn boot(kernel: &Kernel, machine: &dyn Machine, app: &App) -> anyhow::Result<(Transcript, Verdict, String)> {
    let mut ui = Ui::new(true);
    let job = Job::new(app, machine, kernel.clone(), None, &mut ui)?;
    let dir = RunDir::take(&format!("{}-{}", app.name(), machine.name()))?;
    let launch = machine.prepare(&job, &dir)?;
    let outcome = session::run(&launch, LIMITS, &mut ())?;
    let mut verdict = judge(machine.exit_rule(), false, &outcome.transcript, outcome.ended);
    if verdict.status == Status::Died
        && let Some(cause) = machine.cause_of_death(&launch)
    {
        verdict.reason = format!("{}: {cause}", verdict.reason);
    }
    let panic = cmd::boot::named_panic(&job, &outcome, &ui).map_or(String::new(), |panic| {
        format!("\n{}", cmd::boot::render_panic(&panic))
    });
    Ok((outcome.transcript, verdict, panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(name: &str) -> Record {
        Record::TestBegin { name: name.into() }
    }

    fn end(name: &str, failure: Option<&str>) -> Record {
        Record::TestEnd {
            name: name.into(),
            failure: failure.map(str::to_owned),
            ticks: 1,
        }
    }

    fn take(results: &mut Results, records: &[Record], status: Status) -> Option<String> {
        let transcript = Transcript {
            records: records.to_vec(),
            malformed: vec![],
        };
        results.take(
            &transcript,
            &Verdict {
                status,
                reason: "reason".into(),
            },
            "",
        )
    }

    #[test]
    fn ends_are_believed_and_the_verdict_must_fit() {
        let mut results = Results::default();
        let records = [begin("a"), end("a", None), begin("b"), end("b", Some("no"))];
        assert_eq!(take(&mut results, &records, Status::Failed), None);
        assert_eq!(results.tests["a"], Ok(()));
        assert_eq!(results.tests["b"], Err("no".into()));
        assert_eq!(results.closing, Some(Ok(())));
        assert_eq!(take(&mut results, &records, Status::Died), None);
        assert!(
            results.closing.is_some_and(|closing| closing.is_err()),
            "died after the last test"
        );
    }

    #[test]
    fn a_failure_that_no_test_admits_is_no_success() {
        let mut results = Results::default();
        assert_eq!(
            take(&mut results, &[begin("a"), end("a", None)], Status::Failed),
            None
        );
        assert_eq!(results.closing, Some(Err("reason".into())));
    }

    #[test]
    fn a_test_without_an_end_took_the_machine_down() {
        for status in [Status::Panic, Status::TimedOut, Status::Died] {
            let mut results = Results::default();
            let culprit = take(&mut results, &[begin("a"), end("a", None), begin("b")], status);
            assert_eq!(culprit.as_deref(), Some("b"));
            assert_eq!(results.tests["b"], Err("reason".into()));
        }
    }

    #[test]
    fn what_never_ran_has_failed_unless_it_was_filtered_out() {
        let mut results = Results::default();
        take(&mut results, &[begin("x::a"), end("x::a", None)], Status::Success);
        let known = ["x::a", "x::b", "y::c"].map(str::to_owned);
        results.give_up(&known, Some("x::"), "it never ran");
        assert_eq!(results.tests.len(), 2);
        assert_eq!(results.tests["x::b"], Err("it never ran".into()));
        assert_eq!(results.tests["x::a"], Ok(()));
    }
}
