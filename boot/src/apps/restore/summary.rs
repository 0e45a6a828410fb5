//! The report of a restore.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::digest::Mismatch;
use kernel::lab::pages::Counts;
use kernel::mm::addr::PAGE_SIZE;

use super::job::FillError;
use super::monitor::Served;
use super::options::Options;
use super::workload::{Verified, Work};
use crate::apps::Done;
use crate::apps::common::{Draft, MAX_MISMATCHES, looks_no_further};

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// Frames that were free before.
    pub free: u64,
    /// What the workload saw.
    pub work: Work,
    /// What the monitor did.
    pub served: Served,
    /// Whether the rest could be filled.
    pub rest: Result<(), FillError>,
    /// What the region holds.
    pub verified: Verified,
    /// Pages by the reason they were there for, when the workload had what it wanted.
    pub counts: Counts,
    /// Ticks until the touched set was there.
    pub touched: u64,
    /// Ticks until everything was there.
    pub whole: u64,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        report.failures(self.failures());
        let source = &self.options.snapshot.source;
        report.figure("snapshot", source.bytes(), "bytes");
        report.figure("region", source.pages(), "pages");
        let padding = source.pages() * PAGE_SIZE - source.bytes();
        if padding > 0 {
            report.figure("zero padding of the last page", padding, "bytes");
        }
        report.figure("touches", self.work.touches, "touches");
        report.figure("faults", self.served.faults, "faults");
        if self.served.monitors > 1 {
            report.figure("monitors", self.served.monitors, "monitors");
        }
        report.figure("fetches for faults", self.served.fetches, "requests");
        report.figure(
            "bytes for faults",
            (self.counts.demanded + self.ahead()) * PAGE_SIZE,
            "bytes",
        );
        if self.options.prefetch > 0 {
            report.figure("prefetched", self.ahead(), "pages");
            report.figure("prefetch hits", self.counts.hits, "pages");
            report.figure("prefetch waste", self.counts.waste, "pages");
            report.figure("prefetches given up", self.served.prefetches_given_up, "requests");
        }
        let touched = self.work.error.is_none().then_some(self.touched);
        let whole = touched.filter(|_| self.rest.is_ok()).map(|_| self.whole);
        report.time("time to the first page", self.work.first_page);
        report.time("time to the touched set", touched);
        report.time("time to the whole region", whole);
        report.figure("verified", self.verified.pages, "pages");
        report.latencies("touch to next instruction", [("fault", self.work.latency)]);
        report.done(format!("{} pages restored and verified", self.verified.pages))
    }

    fn ahead(&self) -> u64 {
        self.counts.hits + self.counts.waste
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        failures.extend(self.served.error.as_ref().map(ToString::to_string));
        if let Err(error) = self.rest {
            failures.push(format!("the rest of the region: {error}"));
        }
        let unreachable = self.work.error.iter().chain(&self.verified.error);
        failures.extend(unreachable.map(|(page, error)| format!("page {page} could not be read: {error}")));
        if !failures.is_empty() && self.options.snapshot.source.pages() > self.free {
            let (pages, free) = (self.options.snapshot.source.pages(), self.free);
            failures.push(format!(
                "the region has {pages} pages; {free} frames were free at the start"
            ));
        }
        let mut wrong: Vec<&Mismatch> = self
            .work
            .mismatches
            .iter()
            .chain(&self.verified.mismatches)
            .collect();
        wrong.sort_by_key(|mismatch| mismatch.page);
        wrong.dedup_by_key(|mismatch| (mismatch.page, mismatch.found));
        failures.extend(wrong.iter().map(ToString::to_string));
        let most = self.work.mismatches.len().max(self.verified.mismatches.len());
        if most >= MAX_MISMATCHES {
            failures.push(looks_no_further("the run"));
        }
        failures
    }
}
