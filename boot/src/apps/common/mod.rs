//! What applications share.
//!
//! | file | what |
//! | --- | --- |
//! | `region` | an address space with a region that is delegated, and its faults |
//! | `input` | keys that several understand, the ramdisk's entries, and whether memory is enough |
//! | `snapshot` | a snapshot that was taken elsewhere |
//! | `notes` | what a monitor notes about pages for those who touch them |
//! | `frames` | how much memory tasks have in use |
//! | `live` | an image of a region that is taken while others write |
//! | `tasks` | tasks whose result is needed |
//! | `draft` | a report in the making |
//!
//! An experiment runs in three roles, each a task: whoever touches the region runs in its space; a monitor serves the
//! faults; the application itself starts them, waits and tells.

use alloc::collections::TryReserveError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::mm::addr::PAGE_SIZE;
use kernel::trace::emit;
use kernel::trace::record::Record;

mod draft;
mod frames;
mod input;
mod live;
mod notes;
mod region;
mod snapshot;
mod tasks;

pub use draft::Draft;
pub use frames::Frames;
pub use input::{MAX_PAGES, check_memory, entry, order, pages, seed};
pub use live::{Live, Options as ImageOptions, Swept, Taken, Then, sweep};
pub use notes::Notes;
pub use region::{Fault, Region, SetupError, next_fault, populate};
pub use snapshot::Snapshot;
pub use tasks::{join, run_in, start};

/// Bytes of a page.
pub const PAGE: usize = PAGE_SIZE as usize;
/// Wrong pages after which a run is not worth going on.
pub const MAX_MISMATCHES: usize = 8;
/// Progress records of a phase.
const STEPS: usize = 20;

/// A buffer of `bytes` zero bytes; an allocation that fails is an error and no panic.
///
/// # Errors
/// There is no memory for it.
pub fn buffer(bytes: usize) -> Result<Vec<u8>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes)?;
    buffer.resize(bytes, 0);
    Ok(buffer)
}

/// What a report says of `who` has come to [`MAX_MISMATCHES`] of them.
pub fn looks_no_further(who: &str) -> String {
    format!("{who} looks no further after {MAX_MISMATCHES} wrong pages; there may be more")
}

/// Tells the host side how far a phase is, in twentieths; called with every `done` from 1 on.
pub fn progress(what: &str, done: usize, total: usize) {
    if done * STEPS / total != (done - 1) * STEPS / total {
        emit(&Record::Progress {
            what: what.into(),
            done: done as u64,
            total: total as u64,
        });
    }
}
