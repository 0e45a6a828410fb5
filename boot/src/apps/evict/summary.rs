//! The report of an eviction run.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::digest::Mismatch;
use kernel::lab::samples::Samples;
use kernel::mm::addr::PAGE_SIZE;

use super::job::{Job, Source};
use super::options::Options;
use super::pager::Paged;
use super::worker::Worked;
use crate::apps::Done;
use crate::apps::common::{Draft, MAX_MISMATCHES, looks_no_further};

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// What the tasks shared.
    pub job: &'a Job,
    /// Frames that tasks had in use when the workers had ended.
    pub in_use: u64,
    /// What each worker saw.
    pub worked: Vec<Worked>,
    /// What the pager did.
    pub paged: Paged,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        report.failures(self.failures());
        let Self {
            options,
            job,
            worked,
            paged,
            ..
        } = self;
        let touches: usize = worked
            .iter()
            .flat_map(|worked| &worked.latency)
            .map(Samples::len)
            .sum();
        let sum = |of: fn(&Worked) -> u64| worked.iter().map(of).sum::<u64>();
        let (changes, verified) = (sum(|worked| worked.changes), sum(|worked| worked.verified));
        report.figure("region", options.pages, "pages");
        report.figure("budget", options.budget, "pages");
        report.figure("most memory in use", job.frames.peak(), "pages");
        report.figure("staging area", options.staging, "pages");
        report.figure("touches", touches as u64, "touches");
        report.figure("changes", changes, "pages");
        report.figure("faults", paged.faults, "faults");
        report.figure("came as zeros", paged.came[Source::Zeros as usize], "pages");
        report.figure(
            "came from the staging area",
            paged.came[Source::Staged as usize],
            "pages",
        );
        report.figure(
            "came from the store",
            paged.came[Source::Stored as usize],
            "pages",
        );
        report.figure("moved out", paged.moved_out, "pages");
        report.figure("written to the store", paged.written * PAGE_SIZE, "bytes");
        report.figure("verified", verified, "pages");
        let mut latency = Source::ALL.map(|_| Samples::default());
        for worked in worked {
            for (all, one) in latency.iter_mut().zip(worked.latency) {
                all.append(one);
            }
        }
        let names = [
            "resident",
            "untouched: COPY of zeros",
            "staged: MOVE",
            "stored: COPY",
        ];
        report.latencies("touch to next instruction", names.into_iter().zip(latency));
        report.done(format!(
            "{verified} pages verified after {} rounds in the memory of {}; {} went to the store and came back",
            options.rounds,
            options.budget,
            paged.came[Source::Stored as usize],
        ))
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        failures.extend(self.paged.error.as_ref().map(ToString::to_string));
        let errors = self.worked.iter().filter_map(|worked| worked.error);
        failures.extend(errors.map(|(page, error)| format!("page {page} could not be reached: {error}")));
        let (peak, budget) = (self.job.frames.peak(), self.options.budget);
        if peak > budget {
            failures.push(format!(
                "{peak} pages were in memory at once; the budget is {budget}"
            ));
        }
        if self.in_use != self.paged.resident && self.paged.error.is_none() {
            failures.push(format!(
                "{} pages are in memory in the end, and the pager knows of {}",
                self.in_use, self.paged.resident
            ));
        }
        let mut wrong: Vec<&Mismatch> = self.worked.iter().flat_map(|worked| &worked.mismatches).collect();
        wrong.sort_by_key(|mismatch| mismatch.page);
        failures.extend(wrong.iter().map(ToString::to_string));
        if self
            .worked
            .iter()
            .any(|worked| worked.mismatches.len() == MAX_MISMATCHES)
        {
            failures.push(looks_no_further("a worker"));
        }
        if failures.is_empty() && self.paged.came[Source::Stored as usize] == 0 {
            failures.push("no page went to the store and came back: nothing was shown".into());
        }
        failures
    }
}
