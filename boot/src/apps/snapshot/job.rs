//! What the tasks of a snapshot share.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::arch::{Clock, Machine};
use kernel::lab::capture::{Blank, Capture, Saver};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::{Completion, WaitReason};
use kernel::uffd::{Features, FillMode, Modes, Uffd, WriteProtectError};

use crate::apps::AppError;
use crate::apps::common::{PAGE, Region};

static READY: WaitReason = WaitReason("the writer to have written for a while");
static ARMED: WaitReason = WaitReason("the region to be write-protected");

/// The region, its image, and how far things are.
pub struct Job {
    /// The writer's memory.
    pub region: Region,
    /// The monitor's end of the channel.
    pub uffd: Uffd,
    /// Every page as it was when the region was protected.
    pub image: Capture,
    /// The writer waits to go on.
    pub ready: Completion,
    /// The region is protected, and the writer may go on.
    pub armed: Completion,
    /// The image will never be whole.
    pub given_up: AtomicBool,
    /// When the last page was saved.
    whole: AtomicU64,
}

/// Why a page could not be saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveError {
    /// It could not be read.
    Read {
        /// The page.
        page: usize,
        /// Why.
        error: AccessError,
    },
    /// Its protection could not be ended.
    Release {
        /// The page.
        page: usize,
        /// Why.
        error: WriteProtectError,
    },
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { page, error } => write!(f, "page {page} could not be saved: {error}"),
            Self::Release { page, error } => {
                write!(f, "the protection of page {page} could not be ended: {error:?}")
            }
        }
    }
}

impl Job {
    /// A region of `pages` pages, registered for write protection of all of them, touched or not, and a blank image.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(pages: u64) -> Result<Self, AppError> {
        let region = Region::new(pages)?;
        let uffd = region.delegate(Modes::WP, Features::WP_UNPOPULATED)?;
        Ok(Self {
            image: Capture::new(region.pages(), PAGE).map_err(AppError::failed)?,
            region,
            uffd,
            ready: Completion::new(&READY),
            armed: Completion::new(&ARMED),
            given_up: AtomicBool::new(false),
            whole: AtomicU64::new(0),
        })
    }

    /// Whether nobody will save anything any more.
    pub fn is_over(&self) -> bool {
        self.image.is_whole() || self.given_up.load(Ordering::Relaxed)
    }

    /// When the image became whole.
    pub fn whole(&self) -> Option<u64> {
        self.image.is_whole().then(|| self.whole.load(Ordering::Relaxed))
    }

    /// Reads a page from the region and puts it into the image.
    ///
    /// # Errors
    /// [`SaveError::Read`].
    #[inline]
    pub fn save(&self, mut blank: Blank, saver: Saver) -> Result<(), SaveError> {
        let page = blank.page();
        uaccess::read(self.region.address(page), blank.bytes_mut())
            .map_err(|error| SaveError::Read { page, error })?;
        self.whole.store(Machine::ticks(), Ordering::Relaxed);
        self.image.save(blank, saver);
        Ok(())
    }

    /// Ends the protection of `pages` and wakes who waits for them.
    ///
    /// # Errors
    /// [`SaveError::Release`].
    #[inline]
    pub fn release(&self, pages: Range<usize>) -> Result<(), SaveError> {
        let (page, range) = (pages.start, self.region.part(pages));
        self.uffd
            .remove_write_protection(range, FillMode::empty())
            .map_err(|error| SaveError::Release { page, error })
    }
}
