//! An image of a region that is taken while others write, by write protection.
//!
//! ```text
//!   whoever writes              monitor (task in the space)         sweep (task in the space)
//!   a page ── WP: message ────► saves the page as it is             saves pages nobody has stored to,
//!   goes on ◄───── woken ────── ends its protection                 a batch at a time; ends their protection
//! ```
//!
//! The region is registered and not protected at first. When all of it is write-protected, the image is *armed*: from then on
//! every page is saved as it was at that instant, once, before its protection ends.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::arch::{Clock, Machine};
use kernel::lab::capture::{Blank, Capture, Saver};
use kernel::mm::uaccess::{self, AccessError};
use kernel::task::spawn::JoinHandle;
use kernel::uffd::{Features, FillMode, Modes, Uffd, WriteProtectError};

use crate::apps::AppError;
use crate::apps::common::{PAGE, Region, run_in, start};

mod monitor;
mod options;
mod sweep;
mod taken;
mod then;

use monitor::Monitor;
pub use monitor::Served;
pub use options::Options;
pub use sweep::{Swept, sweep};
pub use taken::Taken;
pub use then::Then;
use then::digests;

/// The region, its image, and how far things are.
pub struct Live {
    /// The memory that is written to.
    pub region: Region,
    /// The monitor's end of the channel.
    pub uffd: Uffd,
    /// Every page as it was when the region was protected.
    pub image: Capture,
    /// The image will never be whole.
    pub given_up: AtomicBool,
    /// When the last page was saved.
    whole: AtomicU64,
}

/// How arming went.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    /// When the region began to be protected.
    pub begin: u64,
    /// Ticks that this took.
    pub ticks: u64,
    /// Whether it could be.
    pub result: Result<(), WriteProtectError>,
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

impl Live {
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
            given_up: AtomicBool::new(false),
            whole: AtomicU64::new(0),
        })
    }

    /// Takes the digests of the region as it is now.
    ///
    /// # Errors
    /// A page could not be read, or there is no memory for a task.
    pub fn digests(&self) -> Result<Then, AppError> {
        let of = self.region.clone();
        run_in(&self.region.space, "digests", move || digests(&of))?.map_err(AppError::failed)
    }

    /// Starts the monitor.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn start_monitor(self: &Arc<Self>, options: &Options) -> Result<JoinHandle<Served>, AppError> {
        let monitor = Monitor::new(self, options);
        let monitor = start("monitor", Some(&self.region.space), move || monitor.run())?;
        self.uffd.attach_monitor(monitor.task());
        Ok(monitor)
    }

    /// Protects the whole region: from now on the image is of this instant.
    pub fn arm(&self) -> Armed {
        let begin = Machine::ticks();
        let result = self.uffd.write_protect(self.region.range);
        let ticks = Machine::ticks() - begin;
        if result.is_err() {
            self.given_up.store(true, Ordering::Relaxed);
        }
        Armed { begin, ticks, result }
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
