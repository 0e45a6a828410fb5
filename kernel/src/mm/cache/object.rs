//! The object: its size, its folios, its views.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use crate::mm::frame::Folio;
use crate::mm::memtype::{MemType, Untouched};
use crate::sync::SpinLock;

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

/// Why a folio did not get into the cache; it comes back to the caller.
#[derive(Debug)]
pub enum CacheError {
    /// A page is there already.
    Exists(Folio),
    /// The offset lies past the end of the object.
    BeyondEnd(Folio),
    /// No memory for the cache's own nodes, or the object may not have more pages.
    OutOfMemory(Folio),
}

/// Which translations of an object's pages a view has to take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Those of pages of the cache: private copies stay (a hole was punched).
    CachePages,
    /// All, private copies too (the object became shorter).
    Everything,
}

/// Who has translations of an object's pages.
pub trait View: Send + Sync {
    /// Takes the translations of `range` of `object` away; protection that a userfault context asked for is remembered.
    /// False when the view does not map the object at all any more.
    fn take_away(&self, object: &Object, range: ObjectRange, what: Taken) -> bool;
}

/// A memory object.
pub struct Object {
    ty: &'static MemType,
    cache: SpinLock<Cache>,
    /// A superset of those that map it: who maps nothing any more is dropped when it is next asked.
    views: SpinLock<Vec<Weak<dyn View>>>,
}

struct Cache {
    size: u64,
    folios: BTreeMap<u64, Folio>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("ty", &self.ty.name)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Object {
    /// An object of `size` bytes, all of them holes.
    pub fn new(ty: &'static MemType, size: u64) -> Arc<Self> {
        Arc::new(Self {
            ty,
            cache: SpinLock::new(Cache {
                size,
                folios: BTreeMap::new(),
            }),
            views: SpinLock::new(Vec::new()),
        })
    }

    /// Its memory type.
    pub fn ty(&self) -> &'static MemType {
        self.ty
    }

    /// What an untrapped touch of a hole finds.
    pub fn untouched(&self) -> Untouched {
        self.ty.untouched
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.cache.lock().size
    }

    /// The page at `offset`, a multiple of the type's granule.
    pub fn lookup(&self, offset: u64) -> Lookup {
        let cache = self.cache.lock();
        if offset >= cache.size {
            return Lookup::BeyondEnd;
        }
        match cache.folios.get(&offset) {
            Some(folio) => Lookup::Present(folio.clone()),
            None => Lookup::Absent,
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
        if cache.folios.contains_key(&offset) {
            return Err(CacheError::Exists(folio));
        }
        folio.note_cached();
        cache.folios.insert(offset, folio);
        Ok(())
    }

    /// Takes a page out that [`Self::insert`] has just put in and that nobody could map.
    pub fn remove(&self, offset: u64) -> Option<Folio> {
        self.cache.lock().folios.remove(&offset)
    }

    /// Notes that `view` may have translations of its pages from now on. It is asked for them also by a removal that has
    /// begun: a fork attaches the child while it has the parent locked, and the parent may be what the removal waits for.
    pub fn attach(&self, view: Weak<dyn View>) {
        let mut views = self.views.lock();
        if !views.iter().any(|old| old.ptr_eq(&view)) {
            views.push(view);
        }
    }
}
