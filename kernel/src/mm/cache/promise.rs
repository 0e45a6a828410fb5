//! Pages of a pool that somebody has been promised and has not used yet: shared mappings by the object, a private mapping by
//! itself (Linux: reservations of huge pages).
//!
//! ```text
//!   promised ──Claim──► claimed ──alloc──► a page, marked ──used──► a page like any
//!       ▲                  │                     │
//!       └──────────────────┴──── given up ───────┘        released: the mapping, or the part of the object, is gone
//! ```
//!
//! For every page here the pool keeps one that nobody else gets. One that was taken out and not used goes back to the pool as a
//! promised one, since it is marked, and its number comes back here.
//!
//! **Locks**: an object's cache, then a promise, then the pool.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::mm::addr::Pfn;
use crate::mm::frame::{Anon, Folio, Frame, allocator};
use crate::mm::memtype::{AllocError, PoolOps};
use crate::sync::SpinLock;

/// Nothing was promised: the pool has not so many pages that are nobody's, or the kernel no memory to remember them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotPromised;

/// Pages that are promised, by number: their offset in an object divided by the granule.
#[derive(Debug)]
pub struct Promise {
    pool: &'static PoolOps,
    /// In order.
    pages: SpinLock<Vec<u64>>,
}

impl Promise {
    /// Nothing is promised.
    pub fn new(pool: &'static PoolOps) -> Arc<Self> {
        Arc::new(Self {
            pool,
            pages: SpinLock::new(Vec::new()),
        })
    }

    /// Promises those of `wanted` that are `missing` and not promised yet.
    ///
    /// # Errors
    /// See [`NotPromised`]; nothing changed then.
    pub fn extend(
        &self,
        wanted: Range<u64>,
        mut missing: impl FnMut(u64) -> bool,
    ) -> Result<(), NotPromised> {
        let mut pages = self.pages.lock();
        let mut new = Vec::new();
        for page in wanted {
            if pages.binary_search(&page).is_ok() || !missing(page) {
                continue;
            }
            let promised = new.try_reserve(1).is_ok() && (self.pool.promise)().is_ok();
            if !promised {
                new.iter().for_each(|_| (self.pool.release)());
                return Err(NotPromised);
            }
            new.push(page);
        }
        if pages.try_reserve(new.len()).is_err() {
            new.iter().for_each(|_| (self.pool.release)());
            return Err(NotPromised);
        }
        for page in new {
            insert(&mut pages, page);
        }
        Ok(())
    }

    /// Takes back what is promised of `gone`.
    pub fn release(&self, gone: Range<u64>) {
        let mut pages = self.pages.lock();
        let before = pages.len();
        pages.retain(|page| !gone.contains(page));
        for _ in pages.len()..before {
            (self.pool.release)();
        }
    }

    /// A page that was used and that its only owner is about to let go of: it is promised again.
    pub fn give_back(&self, page: u64, folio: &Folio) {
        allocator().mark_promised(folio.pfn());
        self.put_back(page);
    }

    fn put_back(&self, page: u64) {
        let mut pages = self.pages.lock();
        if pages.try_reserve(1).is_ok() {
            insert(&mut pages, page);
        } else {
            (self.pool.release)();
        }
    }

    fn take(&self, page: u64) -> bool {
        let mut pages = self.pages.lock();
        match pages.binary_search(&page) {
            Ok(at) => {
                pages.remove(at);
                true
            }
            Err(_) => false,
        }
    }
}

/// Puts a number where it belongs; there is room for it.
fn insert(pages: &mut Vec<u64>, page: u64) {
    if let Err(at) = pages.binary_search(&page) {
        pages.insert(at, page);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        for _ in self.pages.get_mut().drain(..) {
            (self.pool.release)();
        }
    }
}

/// The right to one page that was promised. It is promised again unless [`Self::used`] says otherwise.
#[derive(Debug)]
pub struct Claim {
    promise: Arc<Promise>,
    page: u64,
    used: bool,
}

impl Claim {
    /// That to `page`, if it is promised.
    pub fn to(promise: &Arc<Promise>, page: u64) -> Option<Self> {
        promise.take(page).then(|| Self {
            promise: Arc::clone(promise),
            page,
            used: false,
        })
    }

    /// The page, with arbitrary contents.
    ///
    /// # Errors
    /// None but injected ones.
    pub fn alloc(&self) -> Result<Frame<Anon>, AllocError> {
        (self.promise.pool.alloc)()
    }

    /// Whether it is to that page.
    pub fn is_to(&self, promise: &Arc<Promise>, page: u64) -> bool {
        Arc::ptr_eq(&self.promise, promise) && self.page == page
    }

    /// Where it comes from.
    pub fn pool(&self) -> &'static PoolOps {
        self.promise.pool
    }

    /// It is mapped, or in the cache, and owned there: the page that [`Self::alloc`] or the pool's own gave.
    pub fn used(mut self, page: Pfn) {
        allocator().unmark_promised(page);
        self.used = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.used {
            self.promise.put_back(self.page);
        }
    }
}
