//! The report of a guest's restore.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use hv::vm::Counters;

use super::monitor;
use super::options::{Injury, Options};
use super::owner;
use super::verify::Verified;
use crate::apps::Done;
use crate::apps::common::Draft;
use crate::apps::guest::{Ended, GuestError, Printed, other_status};

/// What the restored guest came to.
pub struct Restored {
    /// How it ended.
    pub ended: Result<Ended, GuestError>,
    /// What it printed.
    pub printed: Printed,
    /// Ticks from nothing until it ran.
    pub until_resumed: u64,
    /// Pages of ordinary and of delegated memory that were there then ...
    pub at_resume: (u64, u64),
    /// ... and in the end.
    pub resident: (u64, u64),
    /// What its vCPU did.
    pub counts: Counts,
    /// What the monitor of ordinary memory did.
    pub served: monitor::Served,
    /// What the owner did.
    pub owner: owner::Served,
    /// What delegated memory held in the end.
    pub verified: Verified,
}

/// A machine's [`Counters`] in the end.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    exits: u64,
    violations: u64,
    injected: u64,
    hypercalls: u64,
}

impl Counts {
    /// What they are now.
    pub fn of(counters: &Counters) -> Self {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            exits: now(&counters.exits),
            violations: now(&counters.violations),
            injected: now(&counters.injected),
            hypercalls: now(&counters.hypercalls),
        }
    }
}

/// Everything that is known at the end of a run.
pub struct Run<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// What guests run on here.
    pub vendor: &'static str,
    /// Pages that were saved, of ordinary and of delegated memory.
    pub saved: (u64, u64),
    /// How the guest ended without an interruption, from where it was saved ...
    pub ended: Ended,
    /// ... and what it printed.
    pub printed: Printed,
    /// What the restored one came to.
    pub restored: Restored,
}

impl Run<'_> {
    /// Tells it all; `unreturned` says which frames were not given back.
    pub fn done(self, mut report: Draft, unreturned: Vec<String>) -> Done {
        report.failures(self.failures());
        report.failures(unreturned);
        let layout = self.options.guest.layout;
        let Restored {
            counts,
            served,
            owner,
            verified,
            ..
        } = self.restored;
        let by_guest = self.restored.resident.1.saturating_sub(owner.filled);
        report.figure("ordinary memory", layout.ordinary.pages(), "pages");
        report.figure("ordinary: saved", self.saved.0, "pages");
        report.figure("delegated memory", layout.delegated.pages(), "pages");
        report.figure("delegated: saved", self.saved.1, "pages");
        let (ordinary, delegated) = self.restored.at_resume;
        report.figure("there when it went on", ordinary + delegated, "pages");
        report.figure(
            "ordinary: missing faults to the monitor",
            served.faults(),
            "faults",
        );
        report.figure(
            "ordinary: of them on pages never touched before",
            served.zeros,
            "faults",
        );
        report.figure("ordinary: there in the end", self.restored.resident.0, "pages");
        report.figure("delegated: faults told to the guest", counts.injected, "faults");
        report.figure("delegated: missing faults to the owner", owner.missing, "faults");
        report.figure("delegated: minor faults to the owner", owner.minor, "faults");
        report.figure("delegated: filled by the guest", by_guest, "pages");
        report.figure("delegated: filled by the owner", owner.filled, "pages");
        report.figure("delegated: never touched", verified.untouched, "pages");
        report.figure("stage-2 violations", counts.violations, "violations");
        report.figure("hypercalls", counts.hypercalls, "calls");
        report.figure("exits", counts.exits, "exits");
        report.time("from nothing until it ran", Some(self.restored.until_resumed));
        report.time(
            "from there to the end",
            self.restored.ended.as_ref().ok().map(|ended| ended.ticks),
        );
        report.time("the same without an interruption", Some(self.ended.ticks));
        report.figure("lines printed", self.restored.printed.count, "lines");
        report.figure("verified", verified.pages, "pages");
        report.latencies(
            "from a fault told to the owner until it is resolved",
            [("write(), clear", owner.ticks)],
        );
        report.done(format!(
            "{}: the restored guest ended as the uninterrupted one, with {} lines and {} delegated pages verified",
            self.vendor, self.restored.printed.count, verified.pages
        ))
    }

    /// What went wrong, causes before consequences.
    fn failures(&self) -> Vec<String> {
        let restored = &self.restored;
        let mut failures = Vec::new();
        failures.extend(restored.served.error.as_ref().map(ToString::to_string));
        if restored.at_resume != (0, 0) {
            failures.push(format!(
                "pages were there before the guest went on: {:?}",
                restored.at_resume
            ));
        }
        // A guest that failed early has left most pages as they were: that is no cause.
        let (causes, consequences) = match restored.verified.is_hopeless() {
            false => (restored.verified.failures(), Vec::new()),
            true => (Vec::new(), restored.verified.failures()),
        };
        failures.extend(causes);
        match &restored.ended {
            Err(error) => failures.push(format!("restored: {error}")),
            Ok(ended) => {
                let status = other_status(ended.status, self.ended.status);
                failures.extend(status.map(|text| format!("the restored guest: {text}")));
                let difference = restored.printed.difference(&self.printed);
                failures
                    .extend(difference.map(|text| format!("the restored guest printed other lines: {text}")));
            }
        }
        failures.extend(consequences);
        let filled = restored.served.faults();
        if failures.is_empty() && restored.resident.0 != filled {
            failures.push(format!(
                "{} pages of ordinary memory are there, and the monitor filled {filled}",
                restored.resident.0
            ));
        }
        failures.extend(self.unnoticed(failures.is_empty()));
        failures
    }

    /// A page that was treated badly, and nothing came of it.
    fn unnoticed(&self, nothing_failed: bool) -> Option<String> {
        let injury = self.options.injury.filter(|_| nothing_failed)?;
        let what = match injury {
            Injury::Corrupt(_) => "changed",
            Injury::Skip(_) => "left out",
            Injury::Wrong(_) => "mistaken for another",
        };
        Some(format!(
            "delegated page {} was {what} and nothing came of it: the guest does not depend on it",
            injury.page()
        ))
    }
}
