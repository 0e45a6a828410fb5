//! Memory types, and what each lets a userfault context do.
//!
//! A type is one file with a [`MemType`] in it, and one line in [`ALL`]. What is special about it stands in its
//! [`UffdOps`]: which faults may be trapped, which operations resolve them, in which granule, and where a fresh folio
//! comes from. The copying, the retries, the page tables and the wake-ups are the same for all types and live elsewhere.
//!
//! `modes` and `ops` are data, so they can be read at a glance and cannot disagree: [`UffdOps::checked`] is evaluated at
//! compile time, and a table that could not resolve what it traps does not compile. This one does:
//!
//! ```
//! use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! const TABLE: UffdOps = UffdOps {
//!     modes: Modes::all(),
//!     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//!     granule: Granule::Base,
//!     filled_by_write: false,
//!     alloc: Supply::Frames,
//!     cache: Some(CacheOps::PAGE_CACHE),
//! };
//! const CHECKED: UffdOps = TABLE.checked();
//! assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! And these, which differ from it in one respect each, do not:
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! # const TABLE: UffdOps = UffdOps {
//! #     modes: Modes::all(),
//! #     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//! #     granule: Granule::Base,
//! #     filled_by_write: false,
//! #     alloc: Supply::Frames,
//! #     cache: Some(CacheOps::PAGE_CACHE),
//! # };
//! // Traps missing pages, but nothing could fill them.
//! const CHECKED: UffdOps = UffdOps { ops: OpSet::CONTINUE.union(OpSet::WRITEPROTECT), ..TABLE }.checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! # const TABLE: UffdOps = UffdOps {
//! #     modes: Modes::all(),
//! #     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//! #     granule: Granule::Base,
//! #     filled_by_write: false,
//! #     alloc: Supply::Frames,
//! #     cache: Some(CacheOps::PAGE_CACHE),
//! # };
//! // Traps pages that are in the cache but not mapped, but nothing could map them.
//! const CHECKED: UffdOps = UffdOps { ops: OpSet::COPY.union(OpSet::WRITEPROTECT), ..TABLE }.checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! # const TABLE: UffdOps = UffdOps {
//! #     modes: Modes::all(),
//! #     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//! #     granule: Granule::Base,
//! #     filled_by_write: false,
//! #     alloc: Supply::Frames,
//! #     cache: Some(CacheOps::PAGE_CACHE),
//! # };
//! // Traps stores to protected pages, but nothing could protect them or stop it.
//! const CHECKED: UffdOps = UffdOps { ops: OpSet::COPY.union(OpSet::CONTINUE), ..TABLE }.checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! # const TABLE: UffdOps = UffdOps {
//! #     modes: Modes::all(),
//! #     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//! #     granule: Granule::Base,
//! #     filled_by_write: false,
//! #     alloc: Supply::Frames,
//! #     cache: Some(CacheOps::PAGE_CACHE),
//! # };
//! // Maps what the cache has, and has no cache.
//! const CHECKED: UffdOps = UffdOps { cache: None, ..TABLE }.checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{CacheOps, Granule, Modes, OpSet, Supply, UffdOps};
//! # const TABLE: UffdOps = UffdOps {
//! #     modes: Modes::all(),
//! #     ops: OpSet::COPY.union(OpSet::CONTINUE).union(OpSet::WRITEPROTECT),
//! #     granule: Granule::Base,
//! #     filled_by_write: false,
//! #     alloc: Supply::Frames,
//! #     cache: Some(CacheOps::PAGE_CACHE),
//! # };
//! // Maps the shared page of zeros, which is a base page, where only huge pages fit.
//! const CHECKED: UffdOps = UffdOps { granule: Granule::Huge, ops: OpSet::all(), ..TABLE }.checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```
//!
//! ```compile_fail,E0080
//! # use kernel::mm::memtype::{Granule, Modes, OpSet, Supply, UffdOps};
//! // Says that `write()` fills its objects, which have no cache to fill.
//! const CHECKED: UffdOps = UffdOps {
//!     modes: Modes::MISSING,
//!     ops: OpSet::POISON,
//!     granule: Granule::Base,
//!     filled_by_write: true,
//!     alloc: Supply::Frames,
//!     cache: None,
//! }
//! .checked();
//! # assert!(CHECKED.modes.contains(Modes::MISSING));
//! ```

use arrayvec::ArrayVec;
use bitflags::bitflags;

use super::cache::{CacheError, Lookup, Object, Presence, Run, RunStart};
use super::frame::{Anon, Folio, Frame, OutOfFrames, PoolEmpty};
use super::pt::Level;

pub mod anon;
pub mod droppable;
pub mod guest_memfd;
pub mod hugetlb;
pub mod secret;
pub mod shmem;
pub mod special;
pub mod sysv;
#[cfg(test)]
mod tests;
pub mod zero;

bitflags! {
    /// Kinds of faults that a registration traps. The values are Linux's `UFFDIO_REGISTER_MODE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Modes: u8 {
        /// A page that is nowhere.
        const MISSING = 1;
        /// A write to a protected page.
        const WP = 2;
        /// A page that is in the cache but not mapped.
        const MINOR = 4;
    }
}

bitflags! {
    /// Operations that resolve or change registered memory.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct OpSet: u8 {
        /// Fill with a copy.
        const COPY = 1;
        /// Fill with zeros.
        const ZEROPAGE = 2;
        /// Map what the cache has.
        const CONTINUE = 4;
        /// Protect against writing, or stop protecting.
        const WRITEPROTECT = 8;
        /// Make accesses fail.
        const POISON = 16;
        /// Move pages from elsewhere in the space.
        const MOVE = 32;
    }
}

/// The unit in which a type is filled: the fill loop's step, the alignment it asks for and the mask of reported addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granule {
    /// 4 KiB.
    Base,
    /// 2 MiB.
    Huge,
}

impl Granule {
    /// The level whose leaves have this size.
    pub const fn level(self) -> Level {
        match self {
            Self::Base => Level::PAGE,
            Self::Huge => Level::MID,
        }
    }

    /// Size in bytes.
    pub const fn size(self) -> u64 {
        self.level().size()
    }
}

/// What a memory type lets a userfault context do.
#[derive(Clone, Copy, Debug)]
pub struct UffdOps {
    /// Faults that may be registered.
    pub modes: Modes,
    /// Operations that work.
    pub ops: OpSet,
    /// The unit of all of them.
    pub granule: Granule,
    /// Whether missing pages can (also) be filled by writing to the memory object.
    pub filled_by_write: bool,
    /// Where a folio of the granule's size comes from.
    pub alloc: Supply,
    /// The cache beside the page tables, for types that have one.
    pub cache: Option<CacheOps>,
}

/// How the pages of a type's objects are found, kept and given up. The fill loop calls these; it copies, maps and undoes
/// by itself.
#[derive(Clone, Copy, Debug)]
pub struct CacheOps {
    /// The page at an offset of an object.
    pub lookup: fn(&Object, u64) -> Lookup,
    /// Whether there is a page at an offset of an object, which does not count as used thereby.
    pub presence: fn(&Object, u64) -> Presence,
    /// The pages from an offset of an object on, up to a hole, as many as are wanted and found in one go.
    pub lookup_run: fn(&Object, u64, &mut Run) -> RunStart,
    /// Puts a page in.
    pub insert: fn(&Object, u64, Folio) -> Result<(), CacheError>,
    /// Takes this very page out again, which was put in a moment ago, because mapping it failed.
    pub remove: fn(&Object, u64, &Folio) -> Option<Folio>,
}

impl CacheOps {
    /// The page cache of [`Object`].
    pub const PAGE_CACHE: Self = Self {
        lookup: Object::lookup,
        presence: Object::presence,
        lookup_run: Object::lookup_run,
        insert: Object::insert,
        remove: Object::remove,
    };
}

/// A pool that pages are set aside in for a type, and that can promise some to somebody ([`Promise`](super::cache::Promise)).
#[derive(Clone, Copy, Debug)]
pub struct PoolOps {
    /// Promises one more page.
    pub promise: fn() -> Result<(), AllocError>,
    /// Takes one promise back.
    pub release: fn(),
    /// A page that was promised, with arbitrary contents.
    pub alloc: fn() -> Result<Frame<Anon>, AllocError>,
}

/// Where pages come from.
#[derive(Clone, Copy, Debug)]
pub enum Supply {
    /// The frame allocator: base pages.
    Frames,
    /// A pool.
    Pool(fn() -> Result<Frame<Anon>, AllocError>),
}

impl Supply {
    /// A page with arbitrary contents.
    ///
    /// # Errors
    /// See [`AllocError`].
    #[inline]
    pub fn take(&self) -> Result<Frame<Anon>, AllocError> {
        match self {
            Self::Frames => Ok(Frame::alloc()?),
            Self::Pool(take) => take(),
        }
    }

    /// Up to `wanted` pages, as many as there is room for.
    ///
    /// # Errors
    /// See [`AllocError`]; what there was before that is in `pages`.
    #[inline]
    pub fn take_some<const N: usize>(
        &self,
        wanted: usize,
        pages: &mut ArrayVec<Frame<Anon>, N>,
    ) -> Result<(), AllocError> {
        let wanted = wanted.min(pages.remaining_capacity());
        match self {
            Self::Frames => Ok(Frame::alloc_some(wanted, pages)?),
            Self::Pool(take) => {
                for _ in 0..wanted {
                    pages.push(take()?);
                }
                Ok(())
            }
        }
    }
}

/// Why there is no folio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// No frame is free.
    OutOfFrames,
    /// The reserved pool is empty.
    PoolEmpty,
}

impl From<OutOfFrames> for AllocError {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

impl From<PoolEmpty> for AllocError {
    fn from(_: PoolEmpty) -> Self {
        Self::PoolEmpty
    }
}

impl UffdOps {
    /// The same table, if it can resolve whatever it traps; otherwise a compile-time error.
    ///
    /// # Panics
    /// The table is inconsistent. Meant for constants, where that ends the build.
    pub const fn checked(self) -> Self {
        let can_fill =
            self.ops.contains(OpSet::COPY) || self.ops.contains(OpSet::ZEROPAGE) || self.filled_by_write;
        assert!(
            !self.modes.contains(Modes::MISSING) || can_fill,
            "MISSING needs COPY, ZEROPAGE or write()"
        );
        assert!(
            !self.ops.contains(OpSet::ZEROPAGE) || matches!(self.granule, Granule::Base),
            "ZEROPAGE maps the shared page of zeros, which is a base page"
        );
        assert!(
            !self.modes.contains(Modes::MINOR) || self.ops.contains(OpSet::CONTINUE),
            "MINOR needs CONTINUE"
        );
        assert!(
            !self.ops.contains(OpSet::CONTINUE) || self.cache.is_some(),
            "CONTINUE maps what a cache has"
        );
        assert!(
            !self.filled_by_write || self.cache.is_some(),
            "write() fills a cache"
        );
        assert!(
            !self.modes.contains(Modes::WP) || self.ops.contains(OpSet::WRITEPROTECT),
            "WP needs WRITEPROTECT"
        );
        self
    }
}

/// What a private mapping of an object does with a hole that is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privately {
    /// There are no private mappings.
    Never,
    /// The object gets a page, which is then mapped for reading or copied.
    Caches,
    /// The mapping gets a page of its own.
    Itself,
}

/// What Linux's userfaultfd takes a type for. Decides where Linux looks at the kind of a mapping and not at what can be
/// done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Private anonymous memory.
    Anonymous,
    /// `memfd`, `tmpfs` and shared anonymous memory.
    Shmem,
    /// Huge pages from a pool.
    Hugetlb,
    /// Any other memory object: it cannot be registered there, except for noting stores ([`Features::WP_ASYNC`]).
    ///
    /// [`Features::WP_ASYNC`]: crate::uffd::Features::WP_ASYNC
    File,
    /// Mappings that cannot be registered in any way.
    Special,
}

/// A memory type.
#[derive(Debug)]
pub struct MemType {
    /// For messages.
    pub name: &'static str,
    /// What Linux takes it for.
    pub class: Class,
    /// How private mappings of its objects behave.
    pub privately: Privately,
    /// Whether its objects keep the size that they are made with, and are allocated and punched in whole pages.
    pub fixed_size: bool,
    /// Whether only a guest can reach its pages: tasks can map them, and every touch fails.
    pub guest_only: bool,
    /// The pool that its pages come from and that its mappings are promised them out of, if there is one.
    pub pool: Option<&'static PoolOps>,
    /// What a userfault context may do; `None` when it may do nothing.
    pub uffd: Option<UffdOps>,
}

impl MemType {
    /// The unit in which it is mapped.
    #[inline]
    pub const fn granule(&self) -> Granule {
        match &self.uffd {
            Some(ops) => ops.granule,
            None => Granule::Base,
        }
    }

    /// A page of its granule, with arbitrary contents.
    ///
    /// # Errors
    /// See [`AllocError`].
    pub fn alloc(&self) -> Result<Frame<Anon>, AllocError> {
        match &self.uffd {
            Some(ops) => ops.alloc.take(),
            None => Supply::Frames.take(),
        }
    }

    /// Whether its pages are those of memory objects only: there is none without one.
    pub const fn lives_in_objects(&self) -> bool {
        let has_cache = matches!(&self.uffd, Some(UffdOps { cache: Some(_), .. }));
        has_cache || !matches!(self.privately, Privately::Itself)
    }

    /// Whether its objects can be written to, other than through a mapping.
    pub const fn takes_writes(&self) -> bool {
        match &self.uffd {
            Some(ops) => ops.filled_by_write,
            None => true,
        }
    }

    /// The page at an offset of one of its objects.
    #[inline]
    pub fn lookup(&self, object: &Object, offset: u64) -> Lookup {
        (self.cache().lookup)(object, offset)
    }

    /// How to find the pages of its objects.
    #[inline]
    pub fn cache(&self) -> &CacheOps {
        match &self.uffd {
            Some(UffdOps {
                cache: Some(cache), ..
            }) => cache,
            _ => &CacheOps::PAGE_CACHE,
        }
    }
}

/// All types.
pub static ALL: &[&MemType] = &[
    &anon::ANON,
    &droppable::DROPPABLE,
    &shmem::SHMEM,
    &secret::SECRET,
    &sysv::SYSV,
    &special::SPECIAL,
    &hugetlb::HUGETLB,
    &zero::ZERO,
    &guest_memfd::GUEST_MEMFD,
    &guest_memfd::GUEST_MEMFD_WRITTEN,
    &guest_memfd::GUEST_MEMFD_PRIVATE,
];

impl PartialEq for MemType {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}
