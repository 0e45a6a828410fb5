//! ZEROPAGE: fill absent pages with zeros.

use super::{FillMode, Outcome};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::range::VirtRange;
use crate::mm::space::{FillStop, Filler, Filling};
use crate::uffd::Uffd;

/// The shared zero page, for every entry that remembers nothing.
struct Zeros;

impl Filler for Zeros {
    const OP: OpSet = OpSet::ZEROPAGE;
    const MODES: FillMode = FillMode::DONTWAKE;
    const OVER_MARKERS: bool = false;

    #[inline]
    fn prepare(&mut self, _ops: &UffdOps, _size: u64, _offset: u64) -> Result<Filling, FillStop> {
        Ok(Filling::Zero)
    }
}

impl Uffd {
    /// Maps the shared zero page all over `range`, and wakes whoever waits there. A later store gets a page of its own
    /// without a message.
    ///
    /// The entries must be truly empty: a marker counts as [`Refusal::Exists`](super::Refusal::Exists).
    pub fn zeropage(&self, range: VirtRange, mode: FillMode) -> Outcome {
        self.fill(range, mode, &mut Zeros)
    }
}
