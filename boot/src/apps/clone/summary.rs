//! The report of clones.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::samples::Samples;
use kernel::mm::addr::PAGE_SIZE;

use super::instance::Came;
use super::job::FetchError;
use super::monitor::Served;
use super::options::Options;
use super::worker::Worked;
use crate::apps::Done;
use crate::apps::common::{Draft, MAX_MISMATCHES};

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// Frames in use when all had worked.
    pub in_use: u64,
    /// Pages of the cache at that time.
    pub cached: u64,
    /// Pages that were fetched by then.
    pub fetched: u64,
    /// Ticks that it took to start each clone.
    pub started: Samples,
    /// What each worker saw.
    pub worked: Vec<Worked>,
    /// What each monitor did.
    pub served: Vec<Served>,
    /// Whether the object could be spoiled, if it was to be.
    pub spoiled: Result<(), FetchError>,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        report.failures(self.failures());
        let private = self.private();
        let Self {
            options,
            in_use,
            cached,
            fetched,
            started,
            worked,
            served,
            ..
        } = self;
        let source = &options.snapshot.source;
        let sum = |of: fn(&Worked) -> u64| worked.iter().map(of).sum::<u64>();
        let (held, verified) = (sum(|worked| worked.held), sum(|worked| worked.verified));
        let saved = held.saturating_sub(in_use);
        report.figure("snapshot", source.bytes(), "bytes");
        report.figure("pages of a clone", source.pages(), "pages");
        report.figure("clones", options.clones, "clones");
        report.figure(
            "missing faults",
            served.iter().map(|served| served.missing).sum(),
            "faults",
        );
        report.figure(
            "minor faults",
            served.iter().map(|served| served.minor).sum(),
            "faults",
        );
        report.figure("fetched while they worked", fetched, "pages");
        report.figure("pages that the clones have", held, "pages");
        report.figure("of them private", private, "pages");
        report.figure("pages of the cache", cached, "pages");
        report.figure("memory in use", in_use * PAGE_SIZE, "bytes");
        report.figure("memory saved", saved * PAGE_SIZE, "bytes");
        report.figure("saved", saved * 100 / held.max(1), "%");
        report.figure("verified", verified, "pages");
        let message = format!(
            "{verified} pages of {} clones verified; {held} were held in the memory of {in_use}",
            options.clones
        );
        let mut touches = Came::ALL.map(|_| Samples::default());
        let (mut stores, mut first) = (Samples::default(), Samples::default());
        for worked in worked {
            for (all, one) in touches.iter_mut().zip(worked.touches) {
                all.append(one);
            }
            stores.append(worked.stores);
            first.extend(worked.first_page);
        }
        let names = [
            "mapped",
            "not in the cache: fetch, CONTINUE",
            "in the cache: CONTINUE",
        ];
        let rows = names.into_iter().zip(touches);
        report.latencies(
            "touch to next instruction",
            rows.chain([("first store to a page: copy", stores)]),
        );
        report.latencies(
            "from nothing to a clone",
            [("started", started), ("first page", first)],
        );
        report.done(message)
    }

    /// Pages that clones have changed.
    fn private(&self) -> u64 {
        self.worked.iter().map(|worked| worked.private.len() as u64).sum()
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (number, served) in self.served.iter().enumerate() {
            failures.extend(
                served
                    .error
                    .as_ref()
                    .map(|error| format!("clone {number}: {error}")),
            );
        }
        if let Err(error) = self.spoiled {
            failures.push(error.to_string());
        }
        for worked in &self.worked {
            let number = worked.number;
            if let Some((page, error)) = worked.error {
                failures.push(format!(
                    "clone {number}: page {page} could not be reached: {error}"
                ));
            }
            let wrong = worked.mismatches.iter().take(MAX_MISMATCHES);
            failures.extend(wrong.map(|mismatch| format!("clone {number}: {mismatch}")));
        }
        let needed = self.cached + self.private();
        if failures.is_empty() && self.in_use != needed {
            failures.push(format!(
                "{} pages are in use; {} of the cache and {} private ones are {needed}",
                self.in_use,
                self.cached,
                self.private()
            ));
        }
        if failures.is_empty() && self.fetched != self.cached {
            failures.push(format!(
                "{} pages were fetched, and the cache has {}",
                self.fetched, self.cached
            ));
        }
        failures
    }
}
