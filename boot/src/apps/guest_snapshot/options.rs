//! What the live snapshot of a guest is told: keys of the command line, besides those of every guest
//! ([`Guest`]).
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `after-mark` | ticks between the guest's mark 1 and the snapshot | 0 |
//! | `batch` | pages that the sweep saves before it gives way | 8 |
//! | `kill-monitor-after` | the monitor ends after so many faults | never |
//! | `late-save` | the page of this fault, counted from 1, is saved after the guest went on | never |

use kernel::trace::cmdline::Cmdline;

use crate::apps::common::MAX_PAGES;
use crate::apps::guest::{Guest, SavePoint};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "guest-mem",
    "delegated",
    "mark-after",
    "guest-deadline",
    "after-mark",
    "batch",
    "kill-monitor-after",
    "late-save",
];
const BATCH: u64 = 8;

/// What the built-in guest does unless it is told otherwise.
const WORKLOAD: &str = "workload";

/// A snapshot, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The guest, and when its snapshot is armed.
    pub guest: Guest,
    /// Pages that the sweep saves before it gives way.
    pub batch: usize,
    /// When the monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// Which fault's page is saved too late.
    pub late_save: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense, alone or with another; no guest in the ramdisk.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let mut guest = Guest::parse(cmdline, system, WORKLOAD)?;
        if let Some(ticks) = cmdline.number("after-mark", 0, u64::MAX)? {
            match &mut guest.point {
                SavePoint::Mark { then } => *then = ticks,
                SavePoint::Ticks(_) => {
                    return Err(AppError::usage("after-mark and mark-after exclude each other"));
                }
            }
        }
        Ok(Self {
            guest,
            batch: cmdline.number("batch", 1, MAX_PAGES)?.unwrap_or(BATCH) as usize,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            late_save: cmdline.number("late-save", 1, u64::MAX)?,
        })
    }
}
