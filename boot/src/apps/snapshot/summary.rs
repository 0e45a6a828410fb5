//! The report of a snapshot.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::capture::Saver;
use kernel::mm::addr::PAGE_SIZE;
use kernel::uffd::WriteProtectError;

use super::job::Job;
use super::verify::Verified;
use super::writer::Written;
use crate::apps::Done;
use crate::apps::common::{Draft, ImageServed, Swept, Then, looks_no_further};

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What the tasks shared.
    pub job: &'a Job,
    /// When the region began to be protected.
    pub begin: u64,
    /// Whether it could be.
    pub armed: Result<(), WriteProtectError>,
    /// Ticks that this took.
    pub arming: u64,
    /// The region at that instant.
    pub then: Then,
    /// What the writer did.
    pub written: Written,
    /// What the monitor did.
    pub served: ImageServed,
    /// What the sweep did.
    pub swept: Swept,
    /// What image and region hold.
    pub verified: Verified,
}

impl Run<'_> {
    /// Tells it all.
    pub fn done(self, mut report: Draft) -> Done {
        report.failures(self.failures());
        let image = &self.job.live.image;
        let on_fault = image.saved_by(Saver::Fault);
        let stores = self.written.protected.len() + self.written.saved.len();
        report.pages("region", self.job.live.region.pages());
        report.pages("never touched before", self.then.untouched);
        report.figure("stores before arming", self.written.before.len() as u64, "stores");
        report.figure("stores while the image was taken", stores as u64, "stores");
        report.figure("faults", self.served.faults, "faults");
        report.pages("saved on a fault", on_fault);
        report.pages("saved by the sweep", image.saved_by(Saver::Sweep));
        report.figure("unprotecting calls of the sweep", self.swept.calls, "calls");
        report.figure(
            "image",
            (image.pages() - image.left()) as u64 * PAGE_SIZE,
            "bytes",
        );
        report.time("time to arm", Some(self.arming));
        let whole = self.job.live.whole().map(|whole| whole - self.begin);
        report.time("time to the whole image", whole);
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
        let mut failures = Vec::new();
        let verified = &self.verified;
        if let Err(error) = self.armed {
            failures.push(format!("the region could not be write-protected: {error:?}"));
        }
        failures.extend(self.served.error.as_ref().map(ToString::to_string));
        failures.extend(
            self.swept
                .error
                .map(|error| format!("the sweep gave up: {error}")),
        );
        if let Some((page, error)) = self.written.error {
            failures.push(format!("page {page} could not be written: {error}"));
        }
        if let Some((page, error)) = verified.error {
            failures.push(format!("page {page} could not be read: {error}"));
        }
        match self.job.live.image.left() {
            0 => {}
            left => failures.push(format!("{left} pages were never saved")),
        }
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
