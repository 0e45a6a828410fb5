//! Page tables: one walker, formats plugged in.
//!
//! ```text
//!   PageTable<F> ── Cursor<F> over a range ── Flush<F::Addr> (must be spent on an Invalidator)
//!        │              │
//!      node: 512 raw entries in a frame         format: F::decode / F::encode, nothing else
//! ```
//!
//! A format ([`PtFormat`]) says how an entry is encoded: absent with a [`Marker`], a table, or a leaf. Stage 1 is
//! [`crate::arch::Stage1`]; the stage-2 formats live in the hypervisor crate.
//!
//! | file | what |
//! | --- | --- |
//! | `format` | what an entry means |
//! | `node` | raw access to 512 entries in a frame |
//! | `table`, `cursor` | the table; a range of it, entry by entry |
//! | `split`, `collapse` | one large leaf into 512 small ones, and back |
//! | `transform`, `write_protect` | many entries in place: rights, protection |
//! | `relocate`, `transplant` | entries that move to another place of the table, one by one or in ranges |
//! | `prune` | nodes that hold nothing any more |
//! | `flush` | the duty to flush |
//!
//! **Ownership.** A table entry owns the node it points to. A leaf owns one reference to its
//! [`Folio`](crate::mm::frame::Folio), unless it carries [`AttrFlags::BORROWED`] (direct map, shared zero page, device
//! memory). Numbered invariants, on which the unsafe code of `node` rests:
//!
//! 1. a `Table` entry at a slot that the table owns names a live `Frame<Table>` that nothing else names;
//! 2. an owned leaf stands for exactly one reference that was given up by `Folio::into_raw`;
//! 3. entries change only through `&mut PageTable` (the hardware may set accessed and dirty bits meanwhile).
//!
//! **Locking.** Whoever holds `&mut PageTable` has the lock of its owner; a [`Cursor`] borrows it for a range.
//!
//! **Flushing.** Taking away or restricting a translation yields a [`Flush`] that keeps what was mapped alive until
//! the invalidator has run on every CPU that may hold the old translation. Filling an absent entry needs no flush.

#[cfg(any(test, feature = "testing"))]
pub mod check;
mod collapse;
mod cursor;
mod flush;
mod format;
mod node;
mod prune;
mod relocate;
mod split;
mod table;
mod transform;
mod transplant;
mod write_protect;

pub use collapse::CollapseError;
pub use cursor::{Cursor, InstallError, Installed, Progress};
pub use flush::{Flush, Invalidator};
pub use format::{Attr, AttrFlags, CacheType, Entry, Leaf, Level, Marker, Prot, PtFormat};
pub use relocate::{Lifted, ROUTE_PAGES, Route};
pub use split::SplitError;
pub use table::{Glance, PageTable, Vacant, lookup_from};
pub use transform::Seen;
pub use write_protect::Writable;

#[cfg(test)]
mod tests;
