//! How an image is taken: keys of the command line.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `batch` | pages that the sweep saves before it gives way | 8 |
//! | `kill-monitor-after` | the monitor ends after so many faults | never |
//! | `late-save` | the page of this fault, counted from 1, is saved after the store was made | never |

use kernel::trace::cmdline::{Cmdline, CmdlineError};

use crate::apps::common::MAX_PAGES;

const BATCH: u64 = 8;

/// How an image is taken.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pages that the sweep saves before it gives way.
    pub batch: usize,
    /// When the monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// Which fault's page is saved too late.
    pub late_save: Option<u64>,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn parse(cmdline: &Cmdline<'static>) -> Result<Self, CmdlineError<'static>> {
        Ok(Self {
            batch: cmdline.number("batch", 1, MAX_PAGES)?.unwrap_or(BATCH) as usize,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            late_save: cmdline.number("late-save", 1, u64::MAX)?,
        })
    }
}
