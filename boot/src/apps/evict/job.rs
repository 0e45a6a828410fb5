//! What the tasks of an eviction run share.

use kernel::uffd::{Features, Modes, Uffd};

use super::options::Options;
use crate::apps::AppError;
use crate::apps::common::{Frames, Notes, Region};

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
    /// The [`Source`] that each page came from when it last was missing.
    came: Notes,
}

impl Job {
    /// A region with nothing in it and a staging area, both registered for missing pages: MOVE asks for that of where it moves
    /// pages to.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(options: &Options) -> Result<Self, AppError> {
        let frames = Frames::new();
        let region = Region::new(options.pages)?;
        let staging = region.beside(options.staging)?;
        let uffd = region.delegate(Modes::MISSING, Features::empty())?;
        staging.join(&uffd, Modes::MISSING)?;
        Ok(Self {
            came: Notes::new(region.pages()),
            region,
            staging,
            uffd,
            frames,
        })
    }

    /// Notes how `page` has come.
    pub fn brought(&self, page: usize, from: Source) {
        self.came.note(page, from as u8);
    }

    /// How `page` has come since this was last asked.
    pub fn came(&self, page: usize) -> Source {
        Source::ALL[usize::from(self.came.take(page))]
    }
}
