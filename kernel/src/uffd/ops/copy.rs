//! COPY: fill absent pages with given bytes.

use super::{FillMode, Outcome, RangeError};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::phys;
use crate::mm::range::VirtRange;
use crate::mm::space::{FillStop, Filler, Filling};
use crate::uffd::Uffd;

/// Takes pages out of kernel memory.
struct FromKernel<'a> {
    src: &'a [u8],
    protect: bool,
}

impl Filler for FromKernel<'_> {
    const OP: OpSet = OpSet::COPY;
    const MODES: FillMode = FillMode::DONTWAKE.union(FillMode::WP);
    const OVER_MARKERS: bool = true;

    #[inline]
    fn protects(&self) -> bool {
        self.protect
    }

    #[inline]
    fn prepare(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, FillStop> {
        let mut frame = (ops.alloc)()?;
        let from = offset as usize;
        let src = self
            .src
            .get(from..from + size as usize)
            .ok_or(FillStop::BadSource)?;
        match src.first_chunk() {
            Some(page) if size == PAGE_SIZE => phys::fill_page(&mut frame, page),
            _ => phys::fill(&mut frame, src),
        }
        Ok(Filling::Folio(frame.into()))
    }
}

impl Uffd {
    /// Fills `len` bytes from `dst` on with the bytes of `src`, and wakes whoever waits for them.
    ///
    /// A source shorter than that is [`Refusal::BadSource`](super::Refusal::BadSource) at the first page it does not fill.
    /// The pages must be absent, and the range lie inside one registered area; neither the area's rights nor which
    /// context it is registered with matter (as on Linux). Markers are overwritten.
    ///
    /// With [`FillMode::WP`] the pages arrive write-protected: a task that waited to write then raises a second,
    /// write-protect fault.
    pub fn copy(&self, dst: VirtAddr, src: &[u8], len: u64, mode: FillMode) -> Outcome {
        let Some(range) = VirtRange::from_len(dst, len) else {
            return Outcome::Refused(RangeError::BeyondTop.into());
        };
        self.fill(
            range,
            mode,
            &mut FromKernel {
                src,
                protect: mode.contains(FillMode::WP),
            },
        )
    }
}
