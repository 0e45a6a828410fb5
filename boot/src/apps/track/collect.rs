//! Collecting what was written since the last time.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kernel::arch::{Clock, Machine};
use kernel::lab::page_set::PageSet;
use kernel::lab::samples::Samples;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{PageRun, ScanError, ScanRequest};
use kernel::uffd::{Uffd, WriteProtectError};

use crate::apps::common::Region;

/// What is to go wrong with a collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// What is reported is not protected again: it will be reported once more.
    SkipProtect,
    /// Everything is protected before it is looked at: what was written is not reported.
    ProtectEarly,
}

/// Why a collection failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollectError {
    /// The scan was refused.
    Scan(ScanError),
    /// The early protection was.
    Protect(WriteProtectError),
}

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan(error) => write!(f, "the region could not be scanned: {error:?}"),
            Self::Protect(error) => write!(f, "the region could not be protected: {error:?}"),
        }
    }
}

/// Collects what was written to a region.
#[derive(Debug)]
pub struct Collector {
    region: Region,
    uffd: Arc<Uffd>,
    runs: Vec<PageRun>,
    /// Ticks of each collection.
    pub times: Samples,
    /// Scans that were made.
    pub scans: u64,
}

impl Collector {
    /// A collector that has room for `runs` runs of pages a scan.
    pub fn new(region: &Region, uffd: &Arc<Uffd>, runs: usize) -> Self {
        Self {
            region: region.clone(),
            uffd: Arc::clone(uffd),
            runs: alloc::vec![PageRun::EMPTY; runs],
            times: Samples::default(),
            scans: 0,
        }
    }

    /// The pages that were written since the last collection; they are protected again.
    ///
    /// # Errors
    /// See [`CollectError`].
    pub fn collect(&mut self, fault: Fault) -> Result<PageSet, CollectError> {
        let mut written = PageSet::new(self.region.pages());
        if fault == Fault::ProtectEarly {
            self.uffd
                .write_protect(self.region.range)
                .map_err(CollectError::Protect)?;
        }
        let before = Machine::ticks();
        let mut rest = self.region.range;
        while !rest.is_empty() {
            let request = match fault {
                Fault::SkipProtect => ScanRequest::written(rest),
                _ => ScanRequest::collect_written(rest),
            };
            let scanned = self
                .region
                .space
                .scan(&request, &mut self.runs)
                .map_err(CollectError::Scan)?;
            self.scans += 1;
            for run in &self.runs[..scanned.runs] {
                let first = self.region.page(run.range.start);
                (first..first + run.range.pages() as usize).for_each(|page| _ = written.insert(page));
            }
            rest = VirtRange::new(scanned.end, rest.end);
        }
        self.times.record(Machine::ticks() - before);
        Ok(written)
    }
}
