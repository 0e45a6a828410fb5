//! The monitor: reads each fault, fetches the page and those ahead of it, fills them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use kernel::lab::pages::Page;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::range::VirtRange;
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::{self, TaskId};

use super::job::{FillError, Job};
use super::options::Options;
use crate::apps::common::{Fault, PAGE, next_fault};

/// What the monitors have done when the last one ends.
#[derive(Debug, Default)]
pub struct Served {
    /// How many there were.
    pub monitors: u64,
    /// Faults that it resolved.
    pub faults: u64,
    /// Requests to the source on behalf of faults.
    pub fetches: u64,
    /// Prefetches given up because a page ahead could not be read.
    pub prefetches_given_up: u64,
    /// Why it ended before the channel was closed.
    pub error: Option<MonitorError>,
}

/// Why a monitor gave up.
#[derive(Debug)]
pub enum MonitorError {
    /// A page that somebody waits for could not be filled.
    Fill(FillError),
    /// It was told to end (`kill-monitor-after`).
    Killed,
    /// It touched the region that it serves.
    OwnRegion {
        /// The monitor.
        task: TaskId,
        /// How that failed.
        error: AccessError,
    },
    /// It touched the region that it serves and nothing happened.
    OwnRegionReadable,
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(error) => write!(f, "the monitor gave up: {error}"),
            Self::Killed => f.write_str("the monitor was killed"),
            Self::OwnRegion { task, error } => {
                write!(
                    f,
                    "the monitor (task {task}) touched the region it serves: {error}"
                )
            }
            Self::OwnRegionReadable => {
                f.write_str("the monitor could read a missing page of the region it serves")
            }
        }
    }
}

/// The monitor of one restore.
pub struct Monitor {
    job: Arc<Job>,
    prefetch: usize,
    kill_after: Option<u64>,
    touches_own_region: bool,
    buffer: Vec<u8>,
    served: Served,
}

impl Monitor {
    /// A monitor for `job`.
    pub fn new(job: &Arc<Job>, options: &Options) -> Self {
        Self {
            job: Arc::clone(job),
            prefetch: options.prefetch,
            kill_after: options.kill_monitor_after,
            touches_own_region: options.monitor_touches_own_region,
            buffer: Vec::with_capacity((1 + options.prefetch) * PAGE),
            served: Served {
                monitors: 1,
                ..Served::default()
            },
        }
    }

    /// A monitor that goes on where one was killed, and lives on.
    pub fn successor(job: &Arc<Job>, prefetch: usize, served: Served) -> Self {
        Self {
            job: Arc::clone(job),
            prefetch,
            kill_after: None,
            touches_own_region: false,
            buffer: Vec::with_capacity((1 + prefetch) * PAGE),
            served: Served {
                monitors: served.monitors + 1,
                error: None,
                ..served
            },
        }
    }

    /// Serves faults until the channel is closed or something is wrong.
    pub fn run(mut self) -> Served {
        let result = self.serve_all();
        self.served.error = result.err();
        self.served
    }

    fn serve_all(&mut self) -> Result<(), MonitorError> {
        while self.kill_after != Some(self.served.faults) {
            let Some(Fault { addr, .. }) = next_fault(&self.job.uffd) else {
                return Ok(());
            };
            if self.touches_own_region {
                self.touch_own_region()?;
            }
            self.serve(self.job.region.page(addr))
                .map_err(MonitorError::Fill)?;
            self.served.faults += 1;
        }
        Err(MonitorError::Killed)
    }

    /// Fills `page`, which somebody waits for, and up to `prefetch` absent pages behind it.
    #[inline]
    fn serve(&mut self, page: usize) -> Result<(), FillError> {
        let run = self.job.pages.absent_run(page, 1 + self.prefetch);
        if run.is_empty() {
            // Filled between the fault and now: the waiter only has to look again. The range is one page of the region.
            let _ = self.job.uffd.wake(VirtRange::page(self.job.region.address(page)));
            return Ok(());
        }
        // Written down first: the workload runs as soon as COPY has woken it.
        self.job.pages.filled(page..page + 1, Page::Demanded);
        self.job.pages.filled(page + 1..run.end, Page::Ahead);
        self.served.fetches += 1;
        match self.job.fill(run.clone(), &mut self.buffer) {
            Ok(()) => Ok(()),
            Err(FillError::Copy { page: stopped, .. }) if stopped > page => {
                // The page that somebody waits for is there; how much more is for the next fault to say.
                self.give_up_ahead(stopped..run.end);
                Ok(())
            }
            Err(FillError::Source(_)) if run.len() > 1 => {
                // A page ahead may be the bad one; nobody waits for that.
                self.give_up_ahead(page + 1..run.end);
                self.served.fetches += 1;
                let result = self.job.fill(page..page + 1, &mut self.buffer);
                self.taken_back(page..page + 1, result)
            }
            result => self.taken_back(run, result),
        }
    }

    fn give_up_ahead(&mut self, pages: Range<usize>) {
        self.job.pages.filled(pages, Page::Absent);
        self.served.prefetches_given_up += 1;
    }

    /// Takes back what was written down about `pages`, if filling them failed.
    fn taken_back(&self, pages: Range<usize>, result: Result<(), FillError>) -> Result<(), FillError> {
        if result.is_err() {
            self.job.pages.filled(pages, Page::Absent);
        }
        result
    }

    /// What a broken monitor does: it reads memory whose faults only it could resolve.
    fn touch_own_region(&self) -> Result<(), MonitorError> {
        let last = VirtRange::page(self.job.region.range.end - PAGE_SIZE);
        match uaccess::load(last.start) {
            Err(error) => Err(MonitorError::OwnRegion {
                task: task::current().id(),
                error,
            }),
            Ok(_) => Err(MonitorError::OwnRegionReadable),
        }
    }
}
