//! COPY: fill absent pages with given bytes.

use super::{FillMode, Outcome, RangeError};
use crate::mm::addr::{PAGE_SIZE, USER_TOP, VirtAddr};
use crate::mm::frame::{Anon, Frame};
use crate::mm::memtype::{OpSet, UffdOps};
use crate::mm::phys;
use crate::mm::range::VirtRange;
use crate::mm::space::{FillStop, Filler, Filling, Unready};
use crate::mm::uaccess;
use crate::mm::vma::Vma;
use crate::uffd::Resolver;
use crate::uffd::api::Ioctls;

/// Takes pages out of kernel memory.
struct FromKernel<'a> {
    src: &'a [u8],
    protect: bool,
}

impl FromKernel<'_> {
    /// Fills a page of `size` bytes with what is at `offset`.
    #[inline]
    fn fill(&self, frame: &mut Frame<Anon>, size: u64, offset: u64) -> Result<(), FillStop> {
        let from = offset as usize;
        let src = self
            .src
            .get(from..from + size as usize)
            .ok_or(FillStop::BadSource)?;
        match src.first_chunk() {
            Some(page) if size == PAGE_SIZE => phys::fill_page(frame, page),
            _ => phys::fill(frame, src),
        }
        Ok(())
    }
}

impl Filler for FromKernel<'_> {
    const OP: OpSet = OpSet::COPY;
    const COMMAND: Ioctls = Ioctls::COPY;
    const MODES: FillMode = FillMode::DONTWAKE.union(FillMode::WP);
    const NEW_PAGES: bool = true;

    fn goes_over_markers(_vma: &Vma) -> bool {
        true
    }

    #[inline]
    fn protects(&self) -> bool {
        self.protect
    }

    #[inline]
    fn prepare(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, Unready> {
        let mut frame = ops.alloc.take()?;
        self.fill(&mut frame, size, offset)?;
        Ok(Filling::Folio(frame.into()))
    }

    #[inline]
    fn fill_new(&mut self, page: &mut Frame<Anon>, offset: u64) -> Result<(), Unready> {
        Ok(self.fill(page, PAGE_SIZE, offset)?)
    }
}

/// Takes pages out of the memory of the calling task.
struct FromTask {
    src: VirtAddr,
    protect: bool,
}

impl Filler for FromTask {
    const OP: OpSet = OpSet::COPY;
    const COMMAND: Ioctls = Ioctls::COPY;
    const MODES: FillMode = FromKernel::MODES;
    const NEW_PAGES: bool = true;

    fn goes_over_markers(vma: &Vma) -> bool {
        FromKernel::goes_over_markers(vma)
    }

    fn protects(&self) -> bool {
        self.protect
    }

    /// The source may be missing itself, which is found out by trying. Huge pages are not tried: nobody else comes to run
    /// on this CPU meanwhile.
    #[inline]
    fn prepare(&mut self, ops: &UffdOps, size: u64, offset: u64) -> Result<Filling, Unready> {
        if size != PAGE_SIZE {
            return Err(Unready::MustWait);
        }
        let mut frame = ops.alloc.take()?;
        self.fill_new(&mut frame, offset)?;
        Ok(Filling::Folio(frame.into()))
    }

    #[inline]
    fn fill_new(&mut self, page: &mut Frame<Anon>, offset: u64) -> Result<(), Unready> {
        match uaccess::read_at_once(self.src + offset, phys::page_mut(page)) {
            true => Ok(()),
            false => Err(Unready::MustWait),
        }
    }

    fn prepare_waiting(&mut self, ops: &UffdOps, _size: u64, offset: u64) -> Result<Filling, FillStop> {
        let mut frame = ops.alloc.take()?;
        match uaccess::on_behalf(|| uaccess::read(self.src + offset, phys::bytes_mut(&mut frame))) {
            Ok(()) => Ok(Filling::Folio(frame.into())),
            Err(_) => Err(FillStop::BadSource),
        }
    }
}

impl Resolver {
    /// [`Self::copy`] out of the memory of the calling task, from any byte on. A source that is missing itself is waited
    /// for, like any touch of the task's.
    pub fn copy_from_task(&self, dst: VirtAddr, src: VirtAddr, len: u64, mode: FillMode) -> Outcome {
        let source = VirtRange::from_len(src, len);
        let (Some(range), true) = (
            VirtRange::from_len(dst, len),
            source.is_some_and(|source| source.end <= USER_TOP),
        ) else {
            return self.refuse(Ioctls::COPY, RangeError::BeyondTop);
        };
        let protect = mode.contains(FillMode::WP);
        self.fill(range, mode, &mut FromTask { src, protect })
    }

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
            return self.refuse(Ioctls::COPY, RangeError::BeyondTop);
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
