//! What the tasks of a restore share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kernel::drivers::source::{PageSource, SourceError};
use kernel::lab::digest::Digests;
use kernel::lab::pages::Pages;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::frame::OutOfFrames;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory, Privilege, Space};
use kernel::uffd::{Features, FillMode, Modes, Outcome, Refusal, RegisterError, Uffd};

use super::options::Options;

/// Bytes of a page.
pub const PAGE: usize = PAGE_SIZE as usize;

/// The region, who serves it and what it should hold.
pub struct Job {
    /// The workload's address space.
    pub space: Arc<Space>,
    /// The region in it, as large as the snapshot.
    pub region: VirtRange,
    /// The monitor's end of the channel.
    pub uffd: Uffd,
    /// Which pages are there, and why.
    pub pages: Pages,
    /// Where they come from.
    pub source: Arc<dyn PageSource>,
    /// What they should be.
    pub digests: Digests<'static>,
}

/// Why there is no region to restore into.
#[derive(Debug)]
pub enum SetupError {
    /// No memory for the space.
    OutOfFrames,
    /// No room in the space.
    Map(MapError),
    /// The channel refuses the region.
    Register(RegisterError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames => f.write_str("no memory for an address space"),
            Self::Map(error) => write!(f, "the region could not be mapped: {error:?}"),
            Self::Register(error) => write!(f, "the region could not be registered: {error:?}"),
        }
    }
}

impl From<OutOfFrames> for SetupError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
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
        let space = Space::new(Privilege::Kernel)?;
        let pages = options.source.pages();
        let request = MapRequest {
            at: None,
            len: pages * PAGE_SIZE,
            prot: Prot::READ | Prot::WRITE,
            memory: Memory::Own(&ANON),
        };
        let region = space.map(request).map_err(SetupError::Map)?;
        let uffd = Uffd::new(&space, Features::empty());
        uffd.register(region, Modes::MISSING)
            .map_err(SetupError::Register)?;
        Ok(Self {
            space,
            region,
            uffd,
            pages: Pages::new(pages as usize),
            source: Arc::clone(&options.source),
            digests: options.digests,
        })
    }

    /// Where a page is.
    #[inline]
    pub fn address(&self, page: usize) -> VirtAddr {
        self.region.start + page as u64 * PAGE_SIZE
    }

    /// Which page an address of the region is in.
    #[inline]
    pub fn page(&self, addr: VirtAddr) -> usize {
        ((addr - self.region.start) / PAGE_SIZE) as usize
    }

    /// Reads `pages` from the source, through `buffer` unless they lie in memory, and fills them in one call.
    ///
    /// # Errors
    /// See [`FillError`].
    #[inline]
    pub fn fill(&self, pages: core::ops::Range<usize>, buffer: &mut Vec<u8>) -> Result<(), FillError> {
        let (first, count) = (pages.start as u64, pages.len());
        let bytes = match self.source.in_memory(first, count as u64) {
            Some(bytes) => bytes,
            None => {
                buffer.resize(count * PAGE, 0);
                self.source.read(first, buffer).map_err(FillError::Source)?;
                buffer
            }
        };
        let len = (count * PAGE) as u64;
        let outcome = self
            .uffd
            .copy(self.address(pages.start), bytes, len, FillMode::empty());
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
