//! What a monitor notes about pages.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};

/// A number for each page, which a monitor notes when it brings the page and whoever touched it takes. 0 until then.
#[derive(Debug)]
pub struct Notes {
    notes: Vec<AtomicU8>,
}

impl Notes {
    /// Nothing noted of `pages` pages.
    pub fn new(pages: usize) -> Self {
        let mut notes = Vec::with_capacity(pages);
        notes.resize_with(pages, || AtomicU8::new(0));
        Self { notes }
    }

    /// Notes `note` of `page`, before whoever waits for it runs.
    #[inline]
    pub fn note(&self, page: usize, note: u8) {
        self.notes[page].store(note, Ordering::Relaxed);
    }

    /// What was noted of `page` since this was last asked.
    #[inline]
    pub fn take(&self, page: usize) -> u8 {
        self.notes[page].swap(0, Ordering::Relaxed)
    }
}
