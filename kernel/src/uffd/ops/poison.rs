//! POISON: make every access to absent pages fail.

use super::{FillMode, Outcome};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::range::VirtRange;
use crate::mm::space::{Filler, Filling, Unready};
use crate::mm::vma::Vma;
use crate::uffd::Resolver;
use crate::uffd::api::Ioctls;

/// Poison, for every entry that remembers nothing.
struct Poison;

impl Filler for Poison {
    const OP: OpSet = OpSet::POISON;
    const COMMAND: Ioctls = Ioctls::POISON;
    const MODES: FillMode = FillMode::DONTWAKE;

    fn goes_over_markers(_vma: &Vma) -> bool {
        false
    }

    #[inline]
    fn prepare(&mut self, _ops: &UffdOps, _size: u64, _offset: u64) -> Result<Filling, Unready> {
        Ok(Filling::Poison)
    }
}

impl Resolver {
    /// Has every access to the absent pages of `range` fail with
    /// [`FaultError::Poisoned`](crate::mm::fault::FaultError::Poisoned), and wakes whoever waits there: for pages that can
    /// never be provided. It outlives the registration; discarding the pages or filling them by COPY ends it.
    ///
    /// The entries must be truly empty: a page or a marker counts as [`Refusal::Exists`](super::Refusal::Exists).
    pub fn poison(&self, range: VirtRange, mode: FillMode) -> Outcome {
        self.fill(range, mode, &mut Poison)
    }
}
