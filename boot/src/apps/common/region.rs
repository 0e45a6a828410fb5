//! A region in an address space of its own.

use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use kernel::lab::rng::SplitMix64;
use kernel::mm::addr::{PAGE_SIZE, VirtAddr};
use kernel::mm::cache::Object;
use kernel::mm::frame::OutOfFrames;
use kernel::mm::memtype::anon::ANON;
use kernel::mm::pt::Prot;
use kernel::mm::range::VirtRange;
use kernel::mm::space::{MapError, MapRequest, Memory, Privilege, Space};
use kernel::mm::uaccess::{self, AccessError};
use kernel::uffd::{Event, Features, Modes, ReadError, RegisterError, TrapKind, Uffd};

use super::{PAGE, progress, run_in};
use crate::apps::AppError;

/// Memory that can be read and written, and the space that it is in.
#[derive(Clone, Debug)]
pub struct Region {
    /// The address space.
    pub space: Arc<Space>,
    /// Where the region is.
    pub range: VirtRange,
}

/// Why there is no region.
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

impl From<SetupError> for AppError {
    fn from(error: SetupError) -> Self {
        Self::failed(error)
    }
}

impl From<OutOfFrames> for SetupError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

impl Region {
    /// A region of `pages` pages with nothing in it, in a space of its own.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(pages: u64) -> Result<Self, SetupError> {
        Self::map(&Space::new(Privilege::Kernel)?, pages, Memory::Own(&ANON))
    }

    /// A region that maps all of `object` privately, in a space of its own.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn of(object: &Arc<Object>) -> Result<Self, SetupError> {
        let pages = object.size().div_ceil(PAGE_SIZE);
        Self::map(&Space::new(Privilege::Kernel)?, pages, Memory::private(object))
    }

    /// Another region of `pages` pages in the same space.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn beside(&self, pages: u64) -> Result<Self, SetupError> {
        Self::map(&self.space, pages, Memory::Own(&ANON))
    }

    fn map(space: &Arc<Space>, pages: u64, memory: Memory) -> Result<Self, SetupError> {
        let request = MapRequest {
            at: None,
            len: pages * PAGE_SIZE,
            prot: Prot::READ | Prot::WRITE,
            memory,
        };
        let range = space.map(request).map_err(SetupError::Map)?;
        let space = Arc::clone(space);
        Ok(Self { space, range })
    }

    /// A context that all of the region is registered with.
    ///
    /// # Errors
    /// [`SetupError::Register`].
    pub fn delegate(&self, modes: Modes, features: Features) -> Result<Uffd, SetupError> {
        let uffd = Uffd::new(&self.space, features);
        self.join(&uffd, modes)?;
        Ok(uffd)
    }

    /// Registers all of the region with a context that is there.
    ///
    /// # Errors
    /// [`SetupError::Register`].
    pub fn join(&self, uffd: &Uffd, modes: Modes) -> Result<(), SetupError> {
        uffd.register(self.range, modes).map_err(SetupError::Register)?;
        Ok(())
    }

    /// Number of pages.
    #[inline]
    pub fn pages(&self) -> usize {
        self.range.pages() as usize
    }

    /// Where a page is.
    #[inline]
    pub fn address(&self, page: usize) -> VirtAddr {
        self.range.start + page as u64 * PAGE_SIZE
    }

    /// Where a run of pages is.
    #[inline]
    pub fn part(&self, pages: Range<usize>) -> VirtRange {
        VirtRange::new(self.address(pages.start), self.address(pages.end))
    }

    /// Which page an address of the region is in.
    #[inline]
    pub fn page(&self, addr: VirtAddr) -> usize {
        ((addr - self.range.start) / PAGE_SIZE) as usize
    }
}

/// A task waits for a page.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The page's address.
    pub addr: VirtAddr,
    /// Why it waits.
    pub kind: TrapKind,
}

/// The next fault; `None` once the channel is closed, or its monitor is another's. For contexts that asked for no events.
#[inline]
pub fn next_fault(uffd: &Uffd) -> Option<Fault> {
    loop {
        match uffd.read_event() {
            Ok(Event::Pagefault { addr, kind, .. }) => return Some(Fault { addr, kind }),
            Err(ReadError::Closed | ReadError::Orphaned | ReadError::Fresh | ReadError::Interrupted) => {
                return None;
            }
            // Nothing else is delivered to such a context.
            Ok(_) | Err(ReadError::WouldBlock | ReadError::NotAdmitted) => {}
        }
    }
}

/// Fills the first `pages` pages of `region` with what `seed` decides, in a task of its own.
///
/// # Errors
/// One could not be written, or there is no memory for the task.
pub fn populate(region: &Region, pages: usize, seed: u64) -> Result<(), AppError> {
    let of = region.clone();
    let fill = move || {
        let mut content = alloc::vec![0; PAGE];
        let mut rng = SplitMix64::new(seed);
        for page in 0..pages {
            rng.fill(&mut content);
            uaccess::write(of.address(page), &content)?;
            progress("populated pages", page + 1, pages);
        }
        Ok(())
    };
    run_in(&region.space, "populate", fill)?
        .map_err(|error: AccessError| AppError::Failed(format!("the region could not be filled: {error}")))
}
