//! How much memory tasks have in use, by the allocator's own count.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::mm::frame::{self, Kind};

/// Frames that are memory of tasks or of memory objects; page tables are not among them.
#[derive(Debug)]
pub struct Frames {
    before: u64,
    peak: AtomicU64,
}

impl Frames {
    /// Counts from now on.
    pub fn new() -> Self {
        Self {
            before: Self::all(),
            peak: AtomicU64::new(0),
        }
    }

    fn all() -> u64 {
        frame::allocator().stats().of(Kind::Anon)
    }

    /// How many more there are than at the beginning.
    pub fn in_use(&self) -> u64 {
        Self::all().saturating_sub(self.before)
    }

    /// Looks how many there are. Whoever may have taken one calls this before any is given back.
    #[inline]
    pub fn look(&self) {
        self.peak.fetch_max(self.in_use(), Ordering::Relaxed);
    }

    /// The most that were ever seen.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}
