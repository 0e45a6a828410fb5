//! CONTINUE: map what the cache has.

use super::{FillMode, Outcome};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::range::VirtRange;
use crate::mm::space::{Filler, Filling, Unready};
use crate::mm::vma::Vma;
use crate::uffd::Resolver;
use crate::uffd::api::Ioctls;

/// The pages of the cache.
struct FromCache {
    protect: bool,
}

impl Filler for FromCache {
    const OP: OpSet = OpSet::CONTINUE;
    const COMMAND: Ioctls = Ioctls::CONTINUE;
    const MODES: FillMode = FillMode::DONTWAKE.union(FillMode::WP);
    const FROM_CACHE: bool = true;

    fn goes_over_markers(_vma: &Vma) -> bool {
        true
    }

    #[inline]
    fn protects(&self) -> bool {
        self.protect
    }

    #[inline]
    fn prepare(&mut self, _ops: &UffdOps, _size: u64, _offset: u64) -> Result<Filling, Unready> {
        Ok(Filling::Cached)
    }
}

impl Resolver {
    /// Maps the pages that the object behind `range` has in its cache, and wakes whoever waits for them. Private mappings
    /// get them for reading; a later store copies, without a message.
    ///
    /// A page that is not in the cache is [`Refusal::NoPage`](super::Refusal::NoPage), one that is mapped already
    /// [`Refusal::Exists`](super::Refusal::Exists). Markers are overwritten. What the caller stored to the page before is
    /// visible to whoever sees the new mapping.
    ///
    /// With [`FillMode::WP`] the pages arrive write-protected.
    pub fn cont(&self, range: VirtRange, mode: FillMode) -> Outcome {
        let protect = mode.contains(FillMode::WP);
        self.fill(range, mode, &mut FromCache { protect })
    }
}
