//! An image of a region that is taken while others write: which page is saved, by whom, and what it held.
//!
//! ```text
//!             claim                  save
//!   blank ─────────────► claimed ─────────────► saved
//! ```
//!
//! A page is claimed once, so it is read once: by whoever serves a store to it, or by the sweep that comes by. Protection of
//! a page ends only after it was saved. Its buffer is allocated before the first claim; saving allocates nothing.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::SpinLock;

/// Who saved a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Saver {
    /// Whoever serves faults: a store to the page had to wait.
    Fault,
    /// The sweep over all pages.
    Sweep,
}

#[derive(Debug)]
enum Slot {
    /// Not saved: the buffer it will be saved in.
    Blank(Vec<u8>),
    /// Somebody has the buffer.
    Claimed,
    /// Saved.
    Saved(Vec<u8>, Saver),
}

/// What asking for a page gives.
#[derive(Debug)]
pub enum Claim {
    /// It is the caller's to save.
    Ours(Blank),
    /// Somebody else is saving it.
    Claimed,
    /// It was saved.
    Saved,
}

/// A page to be saved. One that is dropped instead is never saved.
#[must_use]
#[derive(Debug)]
pub struct Blank {
    page: usize,
    bytes: Vec<u8>,
}

impl Blank {
    /// Which page.
    pub fn page(&self) -> usize {
        self.page
    }

    /// Where its content goes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The image.
#[derive(Debug)]
pub struct Capture {
    slots: Vec<SpinLock<Slot>>,
    left: AtomicUsize,
}

impl Capture {
    /// An image of `pages` pages of `size` bytes, none of them saved.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(pages: usize, size: usize) -> Result<Self, TryReserveError> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(pages)?;
        for _ in 0..pages {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(size)?;
            bytes.resize(size, 0);
            slots.push(SpinLock::new(Slot::Blank(bytes)));
        }
        Ok(Self {
            slots,
            left: AtomicUsize::new(pages),
        })
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.slots.len()
    }

    /// Asks for `page`, to save it.
    #[inline]
    pub fn claim(&self, page: usize) -> Claim {
        let mut slot = self.slots[page].lock();
        match core::mem::replace(&mut *slot, Slot::Claimed) {
            Slot::Blank(bytes) => Claim::Ours(Blank { page, bytes }),
            Slot::Claimed => Claim::Claimed,
            saved @ Slot::Saved(..) => {
                *slot = saved;
                Claim::Saved
            }
        }
    }

    /// Takes over what was claimed, with the page's content in it.
    #[inline]
    pub fn save(&self, blank: Blank, saver: Saver) {
        *self.slots[blank.page].lock() = Slot::Saved(blank.bytes, saver);
        // Release: whoever finds the image whole sees all of it.
        self.left.fetch_sub(1, Ordering::Release);
    }

    /// Whether `page` is saved.
    #[inline]
    pub fn is_saved(&self, page: usize) -> bool {
        matches!(*self.slots[page].lock(), Slot::Saved(..))
    }

    /// Pages that are not saved yet.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Whether every page is saved.
    pub fn is_whole(&self) -> bool {
        self.left() == 0
    }

    /// Pages that `saver` saved.
    pub fn saved_by(&self, saver: Saver) -> usize {
        let saved = |slot: &&SpinLock<Slot>| matches!(&*slot.lock(), Slot::Saved(_, by) if *by == saver);
        self.slots.iter().filter(saved).count()
    }

    /// What `look` makes of a page's content; `None` while the page is not saved.
    pub fn with_page<R>(&self, page: usize, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &*self.slots[page].lock() {
            Slot::Saved(bytes, _) => Some(look(bytes)),
            Slot::Blank(_) | Slot::Claimed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(capture: &Capture, page: usize) -> Blank {
        match capture.claim(page) {
            Claim::Ours(blank) => blank,
            other => panic!("page {page} is blank: {other:?}"),
        }
    }

    #[test]
    fn page_is_claimed_once_and_keeps_what_was_saved() {
        let capture = Capture::new(3, 4).unwrap();
        let mut blank = claimed(&capture, 1);
        assert!(matches!(capture.claim(1), Claim::Claimed));
        assert!(!capture.is_saved(1), "claimed is not saved");
        assert_eq!(capture.with_page(1, <[u8]>::len), None);
        blank.bytes_mut().copy_from_slice(b"data");
        assert_eq!(blank.page(), 1);
        capture.save(blank, Saver::Fault);
        assert!(matches!(capture.claim(1), Claim::Saved));
        assert_eq!(capture.with_page(1, <[u8]>::to_vec), Some(b"data".to_vec()));
    }

    #[test]
    fn image_is_whole_when_every_page_is_saved() {
        let capture = Capture::new(3, 4).unwrap();
        for (page, saver) in [(2, Saver::Sweep), (0, Saver::Fault), (1, Saver::Sweep)] {
            assert!(!capture.is_whole());
            capture.save(claimed(&capture, page), saver);
        }
        assert!(capture.is_whole());
        assert_eq!(
            (capture.saved_by(Saver::Fault), capture.saved_by(Saver::Sweep)),
            (1, 2)
        );
        assert_eq!((capture.left(), capture.pages()), (0, 3));
    }

    #[test]
    fn image_larger_than_memory_is_an_error() {
        assert!(Capture::new(1, usize::MAX).is_err());
    }
}
