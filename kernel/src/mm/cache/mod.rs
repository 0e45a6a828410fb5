//! Memory objects: bytes with a size that areas of several address spaces can map, and their page cache.
//!
//! ```text
//!   Space ── Vma { backing } ──► Object ── folios by offset      the cache
//!     ▲                             │
//!     └──────── View ◄──────────────┘                            who maps it
//! ```
//!
//! An object knows its views: the address spaces that have mapped it (and, of a virtual machine, its stage-2 tables).
//! Whatever takes pages out of the cache has every view take its translations of them away too.
//!
//! **Locks.** The cache's lock comes after the table's: a fault looks into the cache and writes the entry in one step under
//! its table's lock. Taking a page away goes the other way round in two steps: first out of the cache, then out of every
//! view. A fault that found the page before has its entry written before the view is asked, and so loses it again; one
//! that looks afterwards does not find it. The folios that were taken out are let go of last.

mod object;

pub use object::{CacheError, Lookup, Object, ObjectRange, Taken, View};
