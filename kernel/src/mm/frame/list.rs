//! A bounded batch of folios, for work that must not allocate.

use arrayvec::ArrayVec;

use super::Folio;

/// Folios that fit into one batch.
pub const BATCH: usize = 64;

/// Folios on their way out: kept alive until the batch is dropped.
#[derive(Debug, Default)]
pub struct FolioBatch(ArrayVec<Folio, BATCH>);

impl FolioBatch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self(ArrayVec::new_const())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// Adds a folio.
    ///
    /// # Panics
    /// The batch is full; callers look first.
    pub fn push(&mut self, folio: Folio) {
        self.0.push(folio);
    }

    /// Drops all of them, which frees those that nobody else owns.
    pub fn release(&mut self) {
        self.0.clear();
    }
}
