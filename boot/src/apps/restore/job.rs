//! What the tasks of a restore share.

use alloc::vec::Vec;
use core::fmt;

use kernel::drivers::source::SourceError;
use kernel::lab::pages::Pages;
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, Uffd};

use super::options::Options;
use crate::apps::common::{PAGE, Region, SetupError, Snapshot};

/// The region, who serves it and what it should hold.
pub struct Job {
    /// The workload's memory, as large as the snapshot.
    pub region: Region,
    /// The monitor's end of the channel.
    pub uffd: Uffd,
    /// Which pages are there, and why.
    pub pages: Pages,
    /// Where they come from, and what they should be.
    pub snapshot: Snapshot,
}

/// Why pages could not be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillError {
    /// The source failed; it names the page.
    Source(SourceError),
    /// COPY stopped at this page.
    Copy {
        /// The page.
        page: usize,
        /// Why.
        why: Refusal,
    },
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "{error}"),
            Self::Copy {
                page,
                why: Refusal::OutOfMemory,
            } => write!(
                f,
                "page {page} could not be filled: no physical memory is left; give the machine more (--mem)"
            ),
            Self::Copy { page, why } => {
                write!(f, "page {page} could not be filled: COPY was refused: {why:?}")
            }
        }
    }
}

impl Job {
    /// An empty region as large as the snapshot, registered for missing pages.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(options: &Options) -> Result<Self, SetupError> {
        let pages = options.snapshot.source.pages();
        let region = Region::new(pages)?;
        let uffd = region.delegate(Modes::MISSING, Features::empty())?;
        Ok(Self {
            region,
            uffd,
            pages: Pages::new(pages as usize),
            snapshot: options.snapshot.clone(),
        })
    }

    /// Reads `pages` from the source, through `buffer` unless they lie in memory, and fills them in one call.
    ///
    /// # Errors
    /// See [`FillError`].
    #[inline]
    pub fn fill(&self, pages: core::ops::Range<usize>, buffer: &mut Vec<u8>) -> Result<(), FillError> {
        let bytes = self
            .snapshot
            .read(pages.clone(), buffer)
            .map_err(FillError::Source)?;
        let len = bytes.len() as u64;
        let outcome = self
            .uffd
            .copy(self.region.address(pages.start), bytes, len, FillMode::empty());
        let why = match outcome {
            Outcome::Done => return Ok(()),
            Outcome::Partial { why, .. } | Outcome::Refused(why) => why,
        };
        Err(FillError::Copy {
            page: pages.start + outcome.bytes(len) as usize / PAGE,
            why,
        })
    }
}
