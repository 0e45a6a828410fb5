//! The monitor: saves the page that a store waits for, then lets the store happen.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering;

use kernel::lab::capture::{Claim, Saver};
use kernel::task;

use super::{Live, Options, SaveError};
use crate::apps::common::{Fault, next_fault};

/// What a monitor has done when it ends.
#[derive(Debug, Default)]
pub struct Served {
    /// Faults that it read.
    pub faults: u64,
    /// Why it ended before the channel was closed.
    pub error: Option<MonitorError>,
}

/// Why a monitor gave up.
#[derive(Debug)]
pub enum MonitorError {
    /// A page could not be saved.
    Save(SaveError),
    /// It was told to end (`kill-monitor-after`).
    Killed,
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Save(error) => write!(f, "the monitor gave up: {error}"),
            Self::Killed => f.write_str("the monitor was killed"),
        }
    }
}

/// The monitor of one image.
pub struct Monitor {
    live: Arc<Live>,
    kill_after: Option<u64>,
    late_save: Option<u64>,
    served: Served,
}

impl Monitor {
    /// A monitor for `live`.
    pub fn new(live: &Arc<Live>, options: &Options) -> Self {
        Self {
            live: Arc::clone(live),
            kill_after: options.kill_monitor_after,
            late_save: options.late_save,
            served: Served::default(),
        }
    }

    /// Serves faults until the channel is closed or something is wrong.
    pub fn run(mut self) -> Served {
        self.served.error = self.serve_all().err();
        if let Some(MonitorError::Save(_)) = self.served.error {
            // It had claimed that page.
            self.live.given_up.store(true, Ordering::Relaxed);
        }
        self.served
    }

    fn serve_all(&mut self) -> Result<(), MonitorError> {
        while self.kill_after != Some(self.served.faults) {
            let Some(Fault { addr, .. }) = next_fault(&self.live.uffd) else {
                return Ok(());
            };
            self.served.faults += 1;
            let page = self.live.region.page(addr);
            self.serve(page).map_err(MonitorError::Save)?;
        }
        Err(MonitorError::Killed)
    }

    #[inline]
    fn serve(&self, page: usize) -> Result<(), SaveError> {
        match self.live.image.claim(page) {
            Claim::Ours(blank) if self.late_save == Some(self.served.faults) => {
                // What a broken monitor does. The writer gets its turn in between.
                self.live.release(page..page + 1)?;
                task::yield_now();
                self.live.save(blank, Saver::Fault)
            }
            Claim::Ours(blank) => {
                self.live.save(blank, Saver::Fault)?;
                self.live.release(page..page + 1)
            }
            // The sweep has saved it since, and may not have come to ending its protection.
            Claim::Saved => self.live.release(page..page + 1),
            // Whoever saves it ends its protection, and that wakes.
            Claim::Claimed => Ok(()),
        }
    }
}
