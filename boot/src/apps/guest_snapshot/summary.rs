//! The report of a guest's snapshot.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::digest::DigestList;

use super::verify::Verified;
use crate::apps::Done;
use crate::apps::common::{Draft, MAX_MISMATCHES, Taken, Then, looks_no_further};
use crate::apps::guest::{Ended, GuestError, Layout, Printed, other_status};

/// What a guest came to, from the instant of arming on.
pub struct End {
    /// How it ended.
    pub ended: Result<Ended, GuestError>,
    /// What it printed.
    pub printed: Printed,
    /// What its delegated memory held in the end.
    pub delegated: DigestList,
}

/// Everything that is known at the end of a run.
pub struct Run {
    /// What guests run on here.
    pub vendor: &'static str,
    /// Where the guest's memory lies.
    pub layout: Layout,
    /// The region at that instant.
    pub then: Then,
    /// Stage-2 violations of the guest.
    pub violations: u64,
    /// The image.
    pub taken: Taken,
    /// What it holds.
    pub verified: Verified,
    /// What the guest came to.
    pub ended: End,
    /// What came of the image in another machine; `None` where it is not whole.
    pub restored: Option<End>,
}

impl Run {
    /// Tells it all; `unreturned` says which frames were not given back.
    pub fn done(self, mut report: Draft, unreturned: Vec<String>) -> Done {
        report.failures(self.failures());
        report.failures(unreturned);
        let ticks = |end: &End| end.ended.as_ref().ok().map(|ended| ended.ticks);
        report.figure("ordinary memory", self.layout.ordinary.pages(), "pages");
        report.figure("delegated memory", self.layout.delegated.pages(), "pages");
        report.pages("never touched before", self.then.untouched);
        self.taken.tell(&mut report);
        report.figure("stage-2 violations", self.violations, "violations");
        report.time("from arming to the guest's end", ticks(&self.ended));
        report.time("the same, restored", self.restored.as_ref().and_then(ticks));
        report.figure("lines printed", self.ended.printed.count, "lines");
        report.figure("verified", self.verified.pages, "pages");
        report.done(format!(
            "{}: {} pages of the guest saved as they were at arming and verified; restored, it ended as the first",
            self.vendor, self.verified.pages
        ))
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = self.taken.failures("the guest's memory");
        let mismatches = &self.verified.mismatches;
        let wrong =
            |mismatch: &_| format!("the image is not the guest's memory as it was at arming: {mismatch}");
        failures.extend(mismatches.iter().map(wrong));
        if mismatches.len() == MAX_MISMATCHES {
            failures.push(looks_no_further("the run"));
        }
        if let Err(error) = &self.ended.ended {
            failures.push(error.to_string());
        }
        failures.extend(self.taken.gap());
        if let Some(restored) = &self.restored {
            failures.extend(self.ended.differences(restored));
        }
        if failures.is_empty() && self.taken.on_fault == 0 {
            failures
                .push("no store of the guest met a page that was not saved yet: nothing was shown".into());
        }
        failures
    }
}

impl End {
    /// In what `restored` differs from this end.
    fn differences(&self, restored: &Self) -> Vec<String> {
        let ended = match (&self.ended, &restored.ended) {
            // That is a failure of its own.
            (Err(_), _) => return Vec::new(),
            (_, Err(error)) => return alloc::vec![format!("restored: {error}")],
            (Ok(first), Ok(second)) => (first.status, second.status),
        };
        let mut differences = Vec::new();
        let status = other_status(ended.1, ended.0);
        differences.extend(status.map(|text| format!("the restored guest: {text}")));
        let lines = restored.printed.difference(&self.printed);
        differences.extend(lines.map(|text| format!("the restored guest printed other lines: {text}")));
        let pages = restored
            .delegated
            .differences(&self.delegated)
            .take(MAX_MISMATCHES);
        differences.extend(pages.map(|mismatch| {
            format!("delegated memory of the restored guest is not what it is in the first: {mismatch}")
        }));
        differences
    }
}
