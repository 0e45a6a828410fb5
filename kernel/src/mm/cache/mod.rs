//! Memory objects: bytes with a size that areas of several address spaces can map, and their page cache.
//!
//! ```text
//!   Space ── Vma { backing } ──► Object ── RadixTree of folios by page     the cache
//!     ▲                             │  └── Quota, shared by objects        how much of it there may be
//!     └──────── View ◄──────────────┘                                      who maps it
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `object` | the object, and its cache as faults and fills use it |
//! | `radix`, `run` | the tree; neighbouring pages of it |
//! | `rw` | `read` and `write` |
//! | `allocate` | pages ahead of use |
//! | `resize` | `truncate`, and holes |
//! | `views` | who maps it |
//! | `quota` | a limit on the pages of several objects |
//!
//! An object knows its views: the address spaces that have mapped it (and, of a virtual machine, its stage-2 tables).
//! Whatever takes pages out of the cache has every view take its translations of them away too. What is written to the
//! object reaches every mapping by itself, for they share its folios.
//!
//! **Locks**, in this order: the object's `layout` (a lock to sleep on, held by whoever writes, allocates, truncates or
//! punches; no lock of a space is held by them), the locks of a view, `cache` and `views`. A fault looks into the cache and
//! writes the entry in one step under its table's lock. Taking pages away goes in steps: first out of the cache, then out
//! of every view, without `cache`. A fault that found the page before has its entry written before the view is asked, and
//! so loses it again; one that looks afterwards does not find it. The folios that were taken out are let go of last.

mod allocate;
mod object;
mod promise;
mod quota;
mod radix;
mod resize;
mod run;
mod rw;
mod views;

pub use allocate::AllocateError;
pub use object::{CacheError, Lookup, MAX_SIZE, NoPage, Object, ObjectRange, Presence};
pub use promise::{Claim, NotPromised, Promise};
pub use quota::Quota;
pub use resize::{PunchError, TruncateError};
pub use run::{Run, RunStart};
pub use rw::WriteError;
pub use views::{NoRoomForView, Taken, View};
