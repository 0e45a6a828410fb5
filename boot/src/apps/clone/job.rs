//! What the clones share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::drivers::source::SourceError;
use kernel::mm::addr::PAGE_SIZE;
use kernel::mm::cache::{Lookup, Object, WriteError};
use kernel::mm::memtype::shmem::SHMEM;
use kernel::task::WaitReason;
use kernel::task::sleep_lock::SleepLock;

use super::options::Options;
use crate::apps::common::Snapshot;

static FETCHING: WaitReason = WaitReason::uninterruptible("another clone's page to be fetched");

/// The snapshot, and the object that has what was fetched of it.
pub struct Job {
    /// Where pages come from, and what they should be.
    pub snapshot: Snapshot,
    /// The object that every clone maps; its cache begins empty.
    pub object: Arc<Object>,
    /// Held by whoever fetches a page, so that each is fetched once.
    fetching: SleepLock,
    fetched: AtomicU64,
}

/// Why a page did not get into the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// The source failed; it names the page.
    Source(SourceError),
    /// The object did not take it.
    Write {
        /// The page.
        page: usize,
        /// Why.
        error: WriteError,
    },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "{error}"),
            Self::Write { page, error } => {
                write!(f, "page {page} could not be written to the object: {error:?}")
            }
        }
    }
}

impl Job {
    /// An object as large as the snapshot, with nothing in it.
    pub fn new(options: &Options) -> Self {
        let snapshot = options.snapshot.clone();
        Self {
            object: Object::new(&SHMEM, snapshot.source.pages() * PAGE_SIZE),
            snapshot,
            fetching: SleepLock::new(&FETCHING),
            fetched: AtomicU64::new(0),
        }
    }

    /// Has `page` in the cache; says whether it had to be fetched, through `buffer`.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn fetch(&self, page: usize, buffer: &mut Vec<u8>) -> Result<bool, FetchError> {
        let offset = page as u64 * PAGE_SIZE;
        let _fetching = self.fetching.lock();
        if let Lookup::Present(_) = self.object.lookup(offset) {
            return Ok(false);
        }
        let bytes = self
            .snapshot
            .read(page..page + 1, buffer)
            .map_err(FetchError::Source)?;
        self.write(page, 0, bytes)?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Pages that were fetched.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Changes the first byte of `page` in the object, which nobody should do.
    ///
    /// # Errors
    /// [`FetchError::Write`].
    pub fn spoil(&self, page: u64) -> Result<(), FetchError> {
        let mut byte = [0];
        self.object.read(page * PAGE_SIZE, &mut byte);
        self.write(page as usize, 0, &[!byte[0]])
    }

    fn write(&self, page: usize, at: u64, bytes: &[u8]) -> Result<(), FetchError> {
        let (_, written) = self.object.write(page as u64 * PAGE_SIZE + at, bytes);
        written.map_err(|error| FetchError::Write { page, error })
    }
}
