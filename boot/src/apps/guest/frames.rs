//! Frames that were not given back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kernel::mm::frame::{self, Kind};

/// Kinds of frames that guests take: memory, tables, control blocks. Stacks and the heap are the kernel's to keep.
const KINDS: [Kind; 3] = [Kind::Anon, Kind::Table, Kind::KernelData];

/// How many frames of each kind were in use at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Unreturned([u64; KINDS.len()]);

impl Unreturned {
    /// Counts from now on.
    pub fn since_now() -> Self {
        let stats = frame::allocator().stats();
        Self(KINDS.map(|kind| stats.of(kind)))
    }

    /// A sentence for each kind of which there are more by now.
    pub fn failures(&self) -> Vec<String> {
        let now = Self::since_now();
        let kinds = KINDS.iter().zip(self.0.iter().zip(now.0));
        let more = kinds.filter_map(|(kind, (before, now))| {
            Some((kind, now.checked_sub(*before).filter(|more| *more > 0)?))
        });
        more.map(|(kind, more)| format!("{more} frames ({}) were not given back", kind.name()))
            .collect()
    }
}
