//! The monitor of a clone: maps the page of the cache, and has it fetched if it is not there.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kernel::mm::range::VirtRange;
use kernel::uffd::{FillMode, Outcome, TrapKind};

use super::instance::{Came, Instance};
use super::job::{FetchError, Job};
use crate::apps::common::{Fault, PAGE, next_fault};

/// What a monitor has done when it ends.
#[derive(Debug, Default)]
pub struct Served {
    /// Faults on pages that were not in the cache.
    pub missing: u64,
    /// Faults on pages that were.
    pub minor: u64,
    /// Why it ended before the channel was closed.
    pub error: Option<MonitorError>,
}

/// Why a monitor gave up.
#[derive(Debug)]
pub enum MonitorError {
    /// A page that somebody waits for could not be fetched.
    Fetch(FetchError),
    /// A page could not be mapped.
    Continue(usize, Outcome),
    /// It was told to end (`kill-monitor-after`).
    Killed,
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => write!(f, "the monitor gave up: {error}"),
            Self::Continue(page, outcome) => {
                write!(
                    f,
                    "the monitor gave up: page {page} could not be mapped: CONTINUE: {outcome:?}"
                )
            }
            Self::Killed => f.write_str("the monitor was killed"),
        }
    }
}

/// The monitor of one clone.
pub struct Monitor {
    job: Arc<Job>,
    instance: Arc<Instance>,
    kill_after: Option<u64>,
    buffer: Vec<u8>,
    served: Served,
}

impl Monitor {
    /// A monitor for `instance`.
    pub fn new(job: &Arc<Job>, instance: &Arc<Instance>, kill_after: Option<u64>) -> Self {
        Self {
            job: Arc::clone(job),
            instance: Arc::clone(instance),
            kill_after,
            buffer: Vec::with_capacity(PAGE),
            served: Served::default(),
        }
    }

    /// Serves faults until the channel is closed or something is wrong.
    pub fn run(mut self) -> Served {
        self.served.error = self.serve_all().err();
        self.served
    }

    fn serve_all(&mut self) -> Result<(), MonitorError> {
        while self.kill_after != Some(self.served.missing + self.served.minor) {
            let Some(fault) = next_fault(&self.instance.uffd) else {
                return Ok(());
            };
            self.serve(fault)?;
        }
        Err(MonitorError::Killed)
    }

    fn serve(&mut self, fault: Fault) -> Result<(), MonitorError> {
        let page = self.instance.region.page(fault.addr);
        let fetched = match fault.kind {
            TrapKind::Missing => {
                self.served.missing += 1;
                // Another clone may have been faster.
                self.job
                    .fetch(page, &mut self.buffer)
                    .map_err(MonitorError::Fetch)?
            }
            _ => {
                self.served.minor += 1;
                false
            }
        };
        // Written down first: the worker runs as soon as CONTINUE has woken it.
        self.instance
            .brought(page, if fetched { Came::Fetched } else { Came::Shared });
        match self
            .instance
            .uffd
            .cont(VirtRange::page(fault.addr), FillMode::empty())
        {
            Outcome::Done => Ok(()),
            outcome => Err(MonitorError::Continue(page, outcome)),
        }
    }
}
