//! The report of a snapshot.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::job::Job;
use super::verify::Verified;
use super::writer::Written;
use crate::apps::Done;
use crate::apps::common::{Draft, Taken, Then, looks_no_further};

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What the tasks shared.
    pub job: &'a Job,
    /// The image.
    pub taken: Taken,
    /// The region at that instant.
    pub then: Then,
    /// What the writer did.
    pub written: Written,
    /// What image and region hold.
    pub verified: Verified,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        report.failures(self.failures());
        let stores = self.written.protected.len() + self.written.saved.len();
        report.pages("region", self.job.live.region.pages());
        report.pages("never touched before", self.then.untouched);
        report.figure("stores before arming", self.written.before.len() as u64, "stores");
        report.figure("stores while the image was taken", stores as u64, "stores");
        self.taken.tell(&mut report);
        report.figure("changed since arming", self.verified.changed, "pages");
        report.figure("verified", self.verified.pages, "pages");
        let message = format!(
            "{} pages saved as they were at arming and verified; {} have changed since",
            self.verified.pages, self.verified.changed
        );
        report.latencies(
            "store to next instruction",
            [
                ("before arming", self.written.before),
                ("page not saved yet", self.written.protected),
                ("page saved", self.written.saved),
            ],
        );
        report.done(message)
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let mut failures = self.taken.failures("the region");
        let verified = &self.verified;
        if let Some((page, error)) = self.written.error {
            failures.push(format!("page {page} could not be written: {error}"));
        }
        if let Some((page, error)) = verified.error {
            failures.push(format!("page {page} could not be read: {error}"));
        }
        failures.extend(self.taken.gap());
        let image = |mismatch: &_| format!("the image is not the region as it was at arming: {mismatch}");
        failures.extend(verified.mismatches.iter().map(image));
        let lost = |page| format!("page {page} was stored to since arming and reads as it did then");
        failures.extend(verified.unchanged.iter().map(lost));
        let strange = |page| format!("page {page} has changed since arming, and nobody stored to it");
        failures.extend(verified.strange.iter().map(strange));
        if verified.is_hopeless() {
            failures.push(looks_no_further("the run"));
        }
        if failures.is_empty() && self.written.protected.is_empty() {
            failures.push("no store met a page that was not saved yet: nothing was shown".into());
        }
        failures
    }
}
