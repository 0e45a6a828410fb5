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
//! promised one, since it is marked; after that its number can be claimed again. A number that is claimed stays here, so that it
//! is not promised twice. If it was released meanwhile, or somebody else has filled the object's hole, whoever gives the claim up
//! takes the pool's promise back.
//!
//! **Locks**: an object's cache, then a promise, then the pool.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::mm::addr::Pfn;
use crate::mm::frame::{Anon, Frame, allocator};
use crate::mm::memtype::{AllocError, PoolOps};
use crate::sync::SpinLock;

/// Nothing was promised: the pool has not so many pages that are nobody's, or the kernel no memory to remember them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotPromised;

/// Pages that are promised, by number: their offset in an object divided by the granule.
#[derive(Debug)]
pub struct Promise {
    pool: &'static PoolOps,
    pages: SpinLock<Pages>,
}

#[derive(Debug)]
struct Pages {
    /// In order.
    list: Vec<Promised>,
    /// Claims made so far.
    claims: u64,
}

#[derive(Debug)]
struct Promised {
    page: u64,
    /// Which claim has it.
    claim: Option<u64>,
    /// Whether the object has a page there since it was claimed.
    filled: bool,
}

impl Pages {
    fn find(&self, page: u64) -> Result<usize, usize> {
        self.list.binary_search_by_key(&page, |promised| promised.page)
    }

    fn get(&mut self, page: u64) -> Option<&mut Promised> {
        self.find(page).ok().map(|at| &mut self.list[at])
    }

    fn remove(&mut self, page: u64) {
        if let Ok(at) = self.find(page) {
            self.list.remove(at);
        }
    }

    /// Puts a number where it belongs; there is room for it.
    fn insert(&mut self, page: u64) {
        if let Err(at) = self.find(page) {
            let promised = Promised {
                page,
                claim: None,
                filled: false,
            };
            self.list.insert(at, promised);
        }
    }
}

impl Promise {
    /// Nothing is promised.
    pub fn new(pool: &'static PoolOps) -> Arc<Self> {
        Arc::new(Self {
            pool,
            pages: SpinLock::new(Pages {
                list: Vec::new(),
                claims: 0,
            }),
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
            if pages.find(page).is_ok() || !missing(page) {
                continue;
            }
            let promised = new.try_reserve(1).is_ok() && (self.pool.promise)().is_ok();
            if !promised {
                new.iter().for_each(|_| (self.pool.release)());
                return Err(NotPromised);
            }
            new.push(page);
        }
        if pages.list.try_reserve(new.len()).is_err() {
            new.iter().for_each(|_| (self.pool.release)());
            return Err(NotPromised);
        }
        for page in new {
            pages.insert(page);
        }
        Ok(())
    }

    /// Takes back what is promised of `gone`.
    pub fn release(&self, gone: Range<u64>) {
        let mut pages = self.pages.lock();
        pages.list.retain(|promised| {
            let kept = !gone.contains(&promised.page);
            if !kept && promised.claim.is_none() {
                (self.pool.release)();
            }
            kept
        });
    }

    /// A page that was used is promised again: its only owner has let go of it, and it went back to the pool as a promised one.
    pub fn give_back(&self, page: u64) {
        let mut pages = self.pages.lock();
        if pages.find(page).is_err() && pages.list.try_reserve(1).is_ok() {
            pages.insert(page);
        } else {
            (self.pool.release)();
        }
    }

    /// The object has a page there now.
    pub(super) fn note_filled(&self, page: u64) {
        let mut pages = self.pages.lock();
        match pages.get(page) {
            Some(promised) if promised.claim.is_some() => promised.filled = true,
            Some(_) => {
                pages.remove(page);
                (self.pool.release)();
            }
            None => {}
        }
    }

    /// The object has none there any more.
    pub(super) fn note_emptied(&self, page: u64) {
        if let Some(promised) = self.pages.lock().get(page) {
            promised.filled = false;
        }
    }

    /// The number of the claim to a page, if it is promised and nobody has claimed it.
    fn take(&self, page: u64) -> Option<u64> {
        let mut pages = self.pages.lock();
        let claim = pages.claims + 1;
        let promised = pages.get(page).filter(|promised| promised.claim.is_none())?;
        promised.claim = Some(claim);
        pages.claims = claim;
        Some(claim)
    }

    /// A claim was not used; its page, if it took one out, is back in the pool.
    fn put_back(&self, page: u64, claim: u64) {
        let mut pages = self.pages.lock();
        match pages.get(page).filter(|promised| promised.claim == Some(claim)) {
            Some(promised) if !promised.filled => promised.claim = None,
            Some(_) => {
                pages.remove(page);
                (self.pool.release)();
            }
            None => (self.pool.release)(),
        }
    }

    /// A claim was used.
    fn forget(&self, page: u64, claim: u64) {
        let mut pages = self.pages.lock();
        if pages
            .get(page)
            .is_some_and(|promised| promised.claim == Some(claim))
        {
            pages.remove(page);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // No claim is left: each has a reference.
        for _ in self.pages.get_mut().list.drain(..) {
            (self.pool.release)();
        }
    }
}

/// The right to one page that was promised. It is promised again unless [`Self::used`] says otherwise. A page that was taken out
/// on it and not used has to go back before it.
#[derive(Debug)]
pub struct Claim {
    promise: Arc<Promise>,
    page: u64,
    number: u64,
    used: bool,
}

impl Claim {
    /// That to `page`, if it is promised.
    pub fn to(promise: &Arc<Promise>, page: u64) -> Option<Self> {
        promise.take(page).map(|number| Self {
            promise: Arc::clone(promise),
            page,
            number,
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
        self.promise.forget(self.page, self.number);
        self.used = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.used {
            self.promise.put_back(self.page, self.number);
        }
    }
}
