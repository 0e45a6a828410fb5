//! A clone: an address space that maps the object privately, and its channel.

use kernel::uffd::{Features, Modes, Uffd};

use super::job::Job;
use crate::apps::common::{Notes, Region, SetupError};

/// What it took to have a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Came {
    /// Nothing: it was mapped.
    Mapped = 0,
    /// It was fetched from the snapshot.
    Fetched = 1,
    /// Another clone had had it fetched.
    Shared = 2,
}

impl Came {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mapped, Self::Fetched, Self::Shared];
}

/// A clone.
pub struct Instance {
    /// Its memory.
    pub region: Region,
    /// Its monitor's end of its channel.
    pub uffd: Uffd,
    /// The [`Came`] of each page that was brought.
    came: Notes,
}

impl Instance {
    /// A clone with nothing mapped.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(job: &Job) -> Result<Self, SetupError> {
        let region = Region::of(&job.object)?;
        let uffd = region.delegate(Modes::MISSING | Modes::MINOR, Features::empty())?;
        Ok(Self {
            came: Notes::new(region.pages()),
            region,
            uffd,
        })
    }

    /// Notes how `page` has come.
    pub fn brought(&self, page: usize, came: Came) {
        self.came.note(page, came as u8);
    }

    /// How `page` has come since this was last asked.
    pub fn came(&self, page: usize) -> Came {
        Came::ALL[usize::from(self.came.take(page))]
    }
}
