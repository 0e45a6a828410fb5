//! ZEROPAGE: fill absent pages with zeros.

use super::{FillMode, Outcome};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::range::VirtRange;
use crate::mm::space::{Filler, Filling, Unready};
use crate::mm::vma::Vma;
use crate::uffd::Resolver;
use crate::uffd::api::Ioctls;

/// The shared zero page, for every entry that remembers nothing.
struct Zeros;

impl Filler for Zeros {
    const OP: OpSet = OpSet::ZEROPAGE;
    const COMMAND: Ioctls = Ioctls::ZEROPAGE;
    const MODES: FillMode = FillMode::DONTWAKE;

    /// A page of a shared object is filled in the object, whatever this mapping remembers of it.
    fn goes_over_markers(vma: &Vma) -> bool {
        vma.is_shared()
    }

    #[inline]
    fn prepare(&mut self, _ops: &UffdOps, _size: u64, _offset: u64) -> Result<Filling, Unready> {
        Ok(Filling::Zero)
    }
}

impl Resolver {
    /// Fills `range` with zeros, and wakes whoever waits there: with new pages where the area shares an object, with the
    /// shared zero page elsewhere; a later store then gets a page of its own without a message.
    ///
    /// Where the zero page is mapped, the entries must be truly empty: a marker counts as
    /// [`Refusal::Exists`](super::Refusal::Exists).
    pub fn zeropage(&self, range: VirtRange, mode: FillMode) -> Outcome {
        self.fill(range, mode, &mut Zeros)
    }
}
