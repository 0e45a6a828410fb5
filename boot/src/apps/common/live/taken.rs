//! What is known of an image when all who took it have ended.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel::lab::capture::Saver;
use kernel::mm::addr::PAGE_SIZE;

use super::{Armed, Live, Served, Swept};
use crate::apps::common::Draft;

/// An image, and how it was taken.
#[derive(Debug)]
pub struct Taken {
    /// How it began.
    pub armed: Armed,
    /// What the monitor did.
    pub served: Served,
    /// What the sweep did.
    pub swept: Swept,
    /// Pages that were saved because a store waited.
    pub on_fault: usize,
    by_sweep: usize,
    left: usize,
    whole: Option<u64>,
}

impl Taken {
    /// What has become of the image of `live`.
    pub fn of(live: &Live, armed: Armed, served: Served, swept: Swept) -> Self {
        Self {
            armed,
            served,
            swept,
            on_fault: live.image.saved_by(Saver::Fault),
            by_sweep: live.image.saved_by(Saver::Sweep),
            left: live.image.left(),
            whole: live.whole(),
        }
    }

    /// Tells it all.
    pub fn tell(&self, report: &mut Draft) {
        let saved = self.on_fault + self.by_sweep;
        report.figure("faults", self.served.faults, "faults");
        report.pages("saved on a fault", self.on_fault);
        report.pages("saved by the sweep", self.by_sweep);
        report.figure("unprotecting calls of the sweep", self.swept.calls, "calls");
        report.figure("image", saved as u64 * PAGE_SIZE, "bytes");
        report.time("time to arm", Some(self.armed.ticks));
        let whole = self.whole.map(|whole| whole - self.armed.begin);
        report.time("time to the whole image", whole);
    }

    /// What went wrong; `what` was to be protected.
    pub fn failures(&self, what: &str) -> Vec<String> {
        let mut failures = Vec::new();
        if let Err(error) = self.armed.result {
            failures.push(format!("{what} could not be write-protected: {error:?}"));
        }
        failures.extend(self.served.error.as_ref().map(ToString::to_string));
        let sweep = self.swept.error;
        failures.extend(sweep.map(|error| format!("the sweep gave up: {error}")));
        failures
    }

    /// What it lacks, if it lacks anything.
    pub fn gap(&self) -> Option<String> {
        (self.left > 0).then(|| format!("{} pages were never saved", self.left))
    }
}
