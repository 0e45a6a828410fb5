//! The object: its size, its pages, its views; and its cache as faults and fills use it.

use alloc::sync::{Arc, Weak};
use core::fmt;

use super::promise::{NotPromised, Promise};
use super::quota::Quota;
use super::radix::{InsertError, RadixTree};
use super::run::{Run, RunStart};
use super::views::{NoRoomForView, View, Views};
use crate::mm::frame::Folio;
use crate::mm::memtype::{AllocError, MemType};
use crate::mm::pressure::{self, MAX_RELIEFS};
use crate::sync::SpinLock;
use crate::task::{SleepLock, WaitReason};

/// Largest size of an object in bytes, as on Linux.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Frames that are asked back when a call finds none.
const RELIEF: u64 = 16;

static LAYOUT: WaitReason = WaitReason::uninterruptible("a change of a memory object by another task");

/// Bytes `[start, end)` of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectRange {
    /// First byte.
    pub start: u64,
    /// First byte past the range.
    pub end: u64,
}

/// What the cache has for an offset.
#[derive(Debug)]
pub enum Lookup {
    /// The offset lies past the end of the object.
    BeyondEnd,
    /// No page.
    Absent,
    /// This one, shared with the cache.
    Present(Folio),
}

/// Whether the cache has a page for an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The offset lies past the end of the object.
    BeyondEnd,
    /// No.
    Absent,
    /// Yes.
    Present,
}

/// Why a folio did not get into the cache; it comes back to the caller.
#[derive(Debug)]
pub enum CacheError {
    /// A page is there already.
    Exists(Folio),
    /// The offset lies past the end of the object.
    BeyondEnd(Folio),
    /// No memory for the cache's own nodes.
    OutOfMemory(Folio),
    /// The quota that the object counts towards is used up.
    NoSpace(Folio),
}

/// Why the object got no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPage {
    /// No frame is free, or no memory for the cache's own nodes (Linux: ENOMEM).
    OutOfMemory,
    /// The reserved pool of the memory type is empty (ENOSPC).
    PoolEmpty,
    /// The quota that the object counts towards is used up (ENOSPC).
    NoSpace,
}

impl From<AllocError> for NoPage {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::OutOfFrames => Self::OutOfMemory,
            AllocError::PoolEmpty => Self::PoolEmpty,
        }
    }
}

impl NoPage {
    /// Why a page that nobody else has put in either, and that may lie past the end, could not be put in.
    pub(super) fn because_of(error: &CacheError) -> Self {
        match error {
            CacheError::NoSpace(_) => Self::NoSpace,
            CacheError::OutOfMemory(_) | CacheError::Exists(_) | CacheError::BeyondEnd(_) => {
                Self::OutOfMemory
            }
        }
    }
}

/// A memory object.
#[derive(Debug)]
pub struct Object {
    ty: &'static MemType,
    /// log2 of the bytes of a page.
    page_shift: u32,
    quota: Option<Arc<Quota>>,
    /// Pages that shared mappings were promised, for types with a pool.
    promise: Option<Arc<Promise>>,
    /// Held by whoever changes size or contents, so that such calls come one after the other.
    pub(super) layout: SleepLock,
    pub(super) cache: SpinLock<Cache>,
    pub(super) views: Views,
}

/// What the `cache` lock protects.
pub(super) struct Cache {
    /// In bytes.
    pub(super) size: u64,
    /// By number: the offset divided by the type's granule. Pages past the end are there if they were allocated ahead.
    pub(super) pages: RadixTree<Folio>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("size", &self.size)
            .field("pages", &self.pages.len())
            .finish()
    }
}

impl Object {
    /// An object of `size` bytes, all of them holes.
    ///
    /// # Panics
    /// The size is above [`MAX_SIZE`].
    pub fn new(ty: &'static MemType, size: u64) -> Arc<Self> {
        Arc::new(Self::make(ty, size, None))
    }

    /// An object whose pages count towards `quota`.
    ///
    /// # Panics
    /// The size is above [`MAX_SIZE`].
    pub fn with_quota(ty: &'static MemType, size: u64, quota: Arc<Quota>) -> Arc<Self> {
        Arc::new(Self::make(ty, size, Some(quota)))
    }

    fn make(ty: &'static MemType, size: u64, quota: Option<Arc<Quota>>) -> Self {
        assert!(size <= MAX_SIZE, "an object of {size} bytes");
        Self {
            ty,
            page_shift: ty.granule().level().shift(),
            quota,
            promise: ty.pool.map(Promise::new),
            layout: SleepLock::new(&LAYOUT),
            cache: SpinLock::new(Cache {
                size,
                pages: RadixTree::new(),
            }),
            views: Views::default(),
        }
    }

    /// Its memory type.
    pub fn ty(&self) -> &'static MemType {
        self.ty
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.cache.lock().size
    }

    /// Bytes of the pages in its cache.
    pub fn resident(&self) -> u64 {
        self.cache.lock().pages.len() * self.granule()
    }

    /// Where the first page begins that is not before that of `offset` and has been used. One that was only allocated ahead of
    /// use is still a hole (as on Linux).
    pub fn data_from(&self, offset: u64) -> Option<u64> {
        let mut page = self.page_of(offset);
        let cache = self.cache.lock();
        loop {
            let (found, folio) = cache.pages.first_from(page)?;
            if !folio.is_unused() {
                return Some(found * self.granule());
            }
            page = found + 1;
        }
    }

    /// Bytes of a page.
    #[inline]
    pub(super) fn granule(&self) -> u64 {
        1 << self.page_shift
    }

    /// The number of the page that `offset` lies in.
    #[inline]
    pub(super) fn page_of(&self, offset: u64) -> u64 {
        offset >> self.page_shift
    }

    /// The page at `offset`, a multiple of the type's granule.
    pub fn lookup(&self, offset: u64) -> Lookup {
        let cache = self.cache.lock();
        if offset >= cache.size {
            return Lookup::BeyondEnd;
        }
        match cache.pages.get(self.page_of(offset)) {
            Some(folio) => Lookup::Present(folio.share_used()),
            None => Lookup::Absent,
        }
    }

    /// The first page between `offset` and `end`, multiples of the type's granule, that is in use, and where it begins. One
    /// that was only allocated ahead of use, or lies past the end of the object, is passed over.
    pub fn next_in_use(&self, offset: u64, end: u64) -> Option<(u64, Folio)> {
        let cache = self.cache.lock();
        let granule = self.granule();
        let end = end.min(cache.size).div_ceil(granule);
        let mut from = offset / granule;
        while let Some((page, folio)) = cache.pages.first_from(from).filter(|(page, _)| *page < end) {
            if !folio.is_unused() {
                return Some((page * granule, folio.share_used()));
            }
            from = page + 1;
        }
        None
    }

    /// Whether there is a page at `offset`, a multiple of the type's granule: all that is asked about a page that somebody else
    /// is to map. It does not count as used.
    pub fn presence(&self, offset: u64) -> Presence {
        let cache = self.cache.lock();
        if offset >= cache.size {
            return Presence::BeyondEnd;
        }
        match cache.pages.get(self.page_of(offset)) {
            Some(_) => Presence::Present,
            None => Presence::Absent,
        }
    }

    /// The pages from `offset` on, a multiple of the type's granule, up to a hole, the end of the object, or as many as `run`
    /// wants and a node of the cache has.
    pub fn lookup_run(&self, offset: u64, run: &mut Run) -> RunStart {
        let cache = self.cache.lock();
        if offset >= cache.size {
            return RunStart::BeyondEnd;
        }
        let granule = self.granule();
        let page = self.page_of(offset);
        let left = cache.size.div_ceil(granule) - page;
        for slot in cache.pages.tail(page).iter().take(left as usize) {
            match slot {
                Some(folio) if run.wants_more() => {
                    run.push(folio.share_used());
                }
                _ => break,
            }
        }
        if run.is_empty() {
            RunStart::Absent
        } else {
            RunStart::Found
        }
    }

    /// Puts a page in.
    ///
    /// # Errors
    /// See [`CacheError`].
    pub fn insert(&self, offset: u64, folio: Folio) -> Result<(), CacheError> {
        let mut cache = self.cache.lock();
        if offset >= cache.size {
            return Err(CacheError::BeyondEnd(folio));
        }
        self.put(&mut cache, self.page_of(offset), folio, false)
    }

    /// Takes the page `folio` out, which [`Self::insert`] has just put in and which the caller could not map. If somebody
    /// else has found it meanwhile, it stays; so does another page that has taken its place.
    pub fn remove(&self, offset: u64, folio: &Folio) -> Option<Folio> {
        let mut cache = self.cache.lock();
        let page = self.page_of(offset);
        let found = cache.pages.get(page)?;
        // Two owners: the cache, and the caller.
        if found.pfn() != folio.pfn() || found.owners() > 2 {
            return None;
        }
        self.take(&mut cache, page)
    }

    /// Promises pages for the holes in `range`, which begins and ends between pages, for shared mappings. Does nothing for types
    /// without a pool.
    ///
    /// # Errors
    /// See [`NotPromised`].
    pub fn promise(&self, range: ObjectRange) -> Result<(), NotPromised> {
        let Some(promise) = &self.promise else {
            return Ok(());
        };
        let cache = self.cache.lock();
        let pages = range.start / self.granule()..range.end / self.granule();
        promise.extend(pages, |page| cache.pages.get(page).is_none())
    }

    /// What its shared mappings were promised.
    pub fn promised(&self) -> Option<&Arc<Promise>> {
        self.promise.as_ref()
    }

    /// Notes that `view` may have translations of its pages from now on.
    ///
    /// The view calls this under the lock that keeps [`View::take_away`] out, and begins to map the object before it lets go
    /// of that lock: it is not asked in between, to say that it maps nothing. A removal that has begun asks it too: a fork
    /// attaches the child while it has the parent locked, and the parent may be what the removal waits for.
    ///
    /// # Errors
    /// See [`NoRoomForView`].
    pub fn attach(&self, view: Weak<dyn View>) -> Result<(), NoRoomForView> {
        self.views.attach(view)
    }

    /// Number of views that are attached, or were and have not been asked since they stopped mapping the object.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// Puts a page in, past the end too; `unused` if it is there ahead of use.
    pub(super) fn put(
        &self,
        cache: &mut Cache,
        page: u64,
        folio: Folio,
        unused: bool,
    ) -> Result<(), CacheError> {
        let quota = self.quota.as_ref();
        // First, also where there is a page already (as on Linux).
        if !quota.is_none_or(|quota| quota.charge(self.granule())) {
            return Err(CacheError::NoSpace(folio));
        }
        folio.note_cached(unused);
        let (error, folio) = match cache.pages.insert(page, folio) {
            Ok(()) => {
                if let Some(promise) = &self.promise {
                    promise.note_filled(page);
                }
                return Ok(());
            }
            Err(InsertError::Exists(folio)) => (CacheError::Exists as fn(Folio) -> CacheError, folio),
            Err(InsertError::OutOfMemory(folio)) => (CacheError::OutOfMemory as _, folio),
        };
        folio.note_not_cached();
        self.uncharge();
        Err(error(folio))
    }

    /// Takes a page out.
    pub(super) fn take(&self, cache: &mut Cache, page: u64) -> Option<Folio> {
        let folio = cache.pages.remove(page)?;
        if let Some(promise) = &self.promise {
            promise.note_emptied(page);
        }
        self.uncharge();
        Some(folio)
    }

    /// Runs a step of a call on the object until it does not end for want of memory, or nobody can give any back. Locks are
    /// not held in between: whoever gives memory back may change the object.
    pub(super) fn relieved<E: Copy>(
        short: impl Fn(E) -> bool,
        mut step: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reliefs = 0;
        loop {
            match step() {
                Err(error) if short(error) && reliefs < MAX_RELIEFS && pressure::relieve(RELIEF) => {
                    reliefs += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn uncharge(&self) {
        if let Some(quota) = &self.quota {
            quota.uncharge(self.granule());
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let pages = self.cache.get_mut().pages.len();
        if let Some(quota) = &self.quota {
            quota.uncharge(pages * self.granule());
        }
    }
}
