//! Neighbouring pages of an object, looked up in one go.

use arrayvec::ArrayVec;

use crate::mm::frame::Folio;

/// Most pages of a run.
const MAX: usize = 64;

/// What is at the first offset of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunStart {
    /// The offset lies past the end of the object.
    BeyondEnd,
    /// No page.
    Absent,
    /// A page; it and those after it are in the run.
    Found,
}

/// Pages at neighbouring offsets, shared with the cache.
#[derive(Debug)]
pub struct Run {
    pages: ArrayVec<Folio, MAX>,
    wanted: usize,
}

impl Run {
    /// Room for `wanted` pages, or for as many as a run can have.
    pub fn new(wanted: usize) -> Self {
        Self {
            pages: ArrayVec::new(),
            wanted: wanted.min(MAX),
        }
    }

    /// Whether a further page has room.
    #[inline]
    pub fn wants_more(&self) -> bool {
        self.pages.len() < self.wanted
    }

    /// Adds the next page.
    ///
    /// # Panics
    /// The run has as many as it can have.
    #[inline]
    pub fn push(&mut self, page: Folio) {
        self.pages.push(page);
    }

    /// Takes the pages out, the first one first.
    #[inline]
    pub fn drain(&mut self) -> impl Iterator<Item = Folio> {
        self.pages.drain(..)
    }

    /// Number of pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
}
