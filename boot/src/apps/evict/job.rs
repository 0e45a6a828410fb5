//! What the tasks of an eviction run share.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use kernel::mm::frame::{self, Kind};
use kernel::uffd::{Features, Modes, Uffd};

use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::Region;

/// What it took to have a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Source {
    /// Nothing: it was there.
    Resident = 0,
    /// A page of zeros: nobody had touched it.
    Zeros = 1,
    /// MOVE from the staging area.
    Staged = 2,
    /// COPY from the store.
    Stored = 3,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Resident, Self::Zeros, Self::Staged, Self::Stored];
}

/// The region, the staging area, and what is known of both.
pub struct Job {
    /// What the workers work on.
    pub region: Region,
    /// Where pages wait for being written, in the same space.
    pub staging: Region,
    /// The pager's end of the channel.
    pub uffd: Uffd,
    /// Memory in use.
    pub frames: Frames,
    /// How each page came when it last was missing.
    came: Vec<AtomicU8>,
}

impl Job {
    /// A region with nothing in it and a staging area, both registered for missing pages: MOVE asks for that of where it moves
    /// pages to.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(options: &Options) -> Result<Self, AppError> {
        let frames = Frames::new();
        let region = Region::new(options.pages).map_err(AppError::failed)?;
        let staging = region.beside(options.staging).map_err(AppError::failed)?;
        let uffd = region
            .delegate(Modes::MISSING, Features::empty())
            .map_err(AppError::failed)?;
        staging.join(&uffd, Modes::MISSING).map_err(AppError::failed)?;
        let mut came = Vec::new();
        came.resize_with(region.pages(), || AtomicU8::new(Source::Resident as u8));
        Ok(Self {
            region,
            staging,
            uffd,
            frames,
            came,
        })
    }

    /// Notes how `page` has come.
    pub fn brought(&self, page: usize, from: Source) {
        self.came[page].store(from as u8, Ordering::Relaxed);
    }

    /// How `page` has come since this was last asked.
    pub fn came(&self, page: usize) -> Source {
        let came = self.came[page].swap(Source::Resident as u8, Ordering::Relaxed);
        Source::ALL[usize::from(came)]
    }
}

/// Frames that tasks have in use, as the allocator counts them.
#[derive(Debug)]
pub struct Frames {
    before: u64,
    peak: AtomicU64,
}

impl Frames {
    /// From now on.
    fn new() -> Self {
        Self {
            before: frame::allocator().stats().of(Kind::Anon),
            peak: AtomicU64::new(0),
        }
    }

    /// More than there were at the beginning.
    pub fn in_use(&self) -> u64 {
        frame::allocator()
            .stats()
            .of(Kind::Anon)
            .saturating_sub(self.before)
    }

    /// Looks how many there are. Whoever may have taken one calls this before any is given back.
    #[inline]
    pub fn look(&self) {
        self.peak.fetch_max(self.in_use(), Ordering::Relaxed);
    }

    /// The most that were ever seen.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}
