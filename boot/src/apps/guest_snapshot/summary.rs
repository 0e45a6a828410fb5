//! The report of a guest's snapshot.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::capture::Saver;
use kernel::lab::digest::DigestList;
use kernel::mm::addr::PAGE_SIZE;
use kernel::uffd::WriteProtectError;

use super::verify::Verified;
use crate::apps::Done;
use crate::apps::common::{Draft, ImageServed, Live, MAX_MISMATCHES, Swept, Then, looks_no_further};
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

/// The image, when all who saved it have ended.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pages: usize,
    on_fault: usize,
    by_sweep: usize,
    left: usize,
    whole: Option<u64>,
}

impl Taken {
    /// What has become of the image of `live`.
    pub fn of(live: &Live) -> Self {
        Self {
            pages: live.image.pages(),
            on_fault: live.image.saved_by(Saver::Fault),
            by_sweep: live.image.saved_by(Saver::Sweep),
            left: live.image.left(),
            whole: live.whole(),
        }
    }
}

/// Everything that is known at the end of a run.
pub struct Run {
    /// What guests run on here.
    pub vendor: &'static str,
    /// Where the guest's memory lies.
    pub layout: Layout,
    /// When the region began to be protected.
    pub begin: u64,
    /// Whether it could be.
    pub armed: Result<(), WriteProtectError>,
    /// Ticks that this took.
    pub arming: u64,
    /// The region at that instant.
    pub then: Then,
    /// What the monitor did.
    pub served: ImageServed,
    /// What the sweep did.
    pub swept: Swept,
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
        let taken = self.taken;
        let ticks = |end: &End| end.ended.as_ref().ok().map(|ended| ended.ticks);
        report.figure("ordinary memory", self.layout.ordinary.pages(), "pages");
        report.figure("delegated memory", self.layout.delegated.pages(), "pages");
        report.pages("never touched before", self.then.untouched);
        report.figure("faults", self.served.faults, "faults");
        report.pages("saved on a fault", taken.on_fault);
        report.pages("saved by the sweep", taken.by_sweep);
        report.figure("unprotecting calls of the sweep", self.swept.calls, "calls");
        report.figure("image", (taken.pages - taken.left) as u64 * PAGE_SIZE, "bytes");
        report.figure("stage-2 violations", self.violations, "violations");
        report.time("time to arm", Some(self.arming));
        report.time(
            "time to the whole image",
            taken.whole.map(|whole| whole - self.begin),
        );
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
        let mut failures = Vec::new();
        if let Err(error) = self.armed {
            failures.push(format!(
                "the guest's memory could not be write-protected: {error:?}"
            ));
        }
        failures.extend(self.served.error.as_ref().map(ToString::to_string));
        failures.extend(
            self.swept
                .error
                .map(|error| format!("the sweep gave up: {error}")),
        );
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
        match self.taken.left {
            0 => {}
            left => failures.push(format!("{left} pages were never saved")),
        }
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
