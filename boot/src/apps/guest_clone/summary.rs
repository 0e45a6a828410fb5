//! The report of a guest's clones.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::lab::digest::DigestList;
use kernel::lab::samples::Samples;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::uaccess::AccessError;

use super::instance::Held;
use super::options::Options;
use crate::apps::Done;
use crate::apps::common::{Draft, MAX_MISMATCHES};
use crate::apps::guest::{Ended, GuestError, Printed, other_status};

/// What a clone came to.
pub struct Clone {
    /// Which pages it had.
    pub held: Held,
    /// How it ended.
    pub ended: Result<Ended, GuestError>,
    /// What it printed.
    pub printed: Printed,
    /// What its delegated memory held in the end.
    pub delegated: Result<DigestList, AccessError>,
}

/// Everything that is known at the end of a run.
pub struct Run {
    /// What guests run on here.
    pub vendor: &'static str,
    /// What was asked for.
    pub options: Options,
    /// Frames in use when all had come to their ends.
    pub in_use: u64,
    /// Pages of what was saved at that time.
    pub cached: u64,
    /// Ticks that it took to start each clone.
    pub started: Samples,
    /// What each came to.
    pub clones: Vec<Clone>,
    /// How the guest that they are clones of ended ...
    pub ended: Ended,
    /// ... what it printed ...
    pub printed: Printed,
    /// ... and what its delegated memory held.
    pub delegated: DigestList,
}

impl Run {
    /// Tells it all; `unreturned` says which frames were not given back.
    pub fn done(self, mut report: Draft, unreturned: Vec<String>) -> Done {
        report.failures(self.failures());
        report.failures(unreturned);
        let (shared, private) = (self.sum(|held| held.shared), self.sum(|held| held.private));
        let held = shared + private;
        let count = self.clones.len();
        report.figure("pages of a guest", self.options.guest.layout.pages(), "pages");
        report.figure("clones", count as u64, "clones");
        report.figure("pages of what was saved", self.cached, "pages");
        report.figure("pages that the clones have", held, "pages");
        report.figure("of them shared", shared, "pages");
        report.figure("of them private", private, "pages");
        report.figure("memory in use", self.in_use * PAGE_SIZE, "bytes");
        // What was saved is there anyway; without sharing, every page of a clone would be its own.
        report.figure("memory saved", shared * PAGE_SIZE, "bytes");
        report.figure("saved", shared * 100 / held.max(1), "%");
        report.figure("lines printed by each", self.printed.count, "lines");
        report.time("from the snapshot to the end, alone", Some(self.ended.ticks));
        let mut times = Samples::with_capacity(count);
        self.clones
            .iter()
            .filter_map(|clone| clone.ended.as_ref().ok())
            .for_each(|ended| times.record(ended.ticks));
        let vendor = self.vendor;
        report.latencies(
            "a clone among the others",
            [
                ("from nothing until it is started", self.started),
                ("from its start to its end", times),
            ],
        );
        report.done(format!(
            "{vendor}: {count} clones ended as the guest that they were saved from; of the {held} pages that they have, \
             {shared} are shared"
        ))
    }

    fn sum(&self, of: fn(&Held) -> u64) -> u64 {
        self.clones.iter().map(|clone| of(&clone.held)).sum()
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (number, clone) in self.clones.iter().enumerate() {
            let sentences = self.failures_of(clone);
            failures.extend(
                sentences
                    .into_iter()
                    .map(|text| format!("clone {number}: {text}")),
            );
        }
        let needed = self.cached + self.sum(|held| held.private);
        if failures.is_empty() && self.in_use != needed {
            failures.push(format!(
                "{} pages are in use; {} that were saved and {} private ones are {needed}",
                self.in_use,
                self.cached,
                self.sum(|held| held.private)
            ));
        }
        if let (Some(page), true) = (self.options.corrupt, failures.is_empty()) {
            failures.push(format!(
                "delegated page {page} was changed and nothing came of it: the guest does not depend on it"
            ));
        }
        failures
    }

    fn failures_of(&self, clone: &Clone) -> Vec<String> {
        let ended = match &clone.ended {
            Ok(ended) => ended,
            Err(error) => return alloc::vec![format!("{error}")],
        };
        let mut failures = Vec::new();
        match &clone.delegated {
            Err(error) => failures.push(format!("its memory could not be read: {error}")),
            Ok(found) => {
                let wrong = found.differences(&self.delegated).take(MAX_MISMATCHES);
                failures.extend(wrong.map(|mismatch| format!("delegated memory in the end: {mismatch}")));
            }
        }
        failures.extend(other_status(ended.status, self.ended.status));
        let lines = clone.printed.difference(&self.printed);
        failures.extend(lines.map(|text| format!("it printed other lines: {text}")));
        failures
    }
}
