//! Making an object shorter or longer, and punching holes into it.

use super::object::{MAX_SIZE, Object, ObjectRange};
use super::views::Taken;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::FolioBatch;
use crate::mm::phys;

/// Why the size did not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TruncateError {
    /// The object keeps the size that it was made with (Linux: EINVAL).
    FixedSize,
    /// The size is above [`MAX_SIZE`] (EFBIG).
    TooLarge,
    /// Sizes of the type are multiples of its huge pages (EINVAL).
    Unaligned,
}

/// Why no hole was punched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PunchError {
    /// The length is zero (Linux: EINVAL).
    Empty,
    /// The end would be past [`MAX_SIZE`] (EFBIG).
    TooLarge,
    /// Holes in objects of the type consist of whole pages (EINVAL).
    Unaligned,
}

impl Object {
    /// Makes it `size` bytes long. What lies past the new end is gone, also from private mappings; the rest of the last page
    /// becomes zeros. What a longer object has gained is a hole (and, in what was the last page, whatever mappings have stored
    /// past the end, as on Linux 6.18).
    ///
    /// No lock may be held.
    ///
    /// # Errors
    /// See [`TruncateError`].
    pub fn truncate(&self, size: u64) -> Result<(), TruncateError> {
        if self.ty().fixed_size {
            return Err(TruncateError::FixedSize);
        }
        if size > MAX_SIZE {
            return Err(TruncateError::TooLarge);
        }
        let granule = self.granule();
        if granule > PAGE_SIZE && !size.is_multiple_of(granule) {
            return Err(TruncateError::Unaligned);
        }
        let _changing = self.layout.lock();
        let old = core::mem::replace(&mut self.cache.lock().size, size);
        if size > old {
            return Ok(());
        }
        let kept = size.next_multiple_of(granule);
        self.zero(size, kept);
        if let Some(promise) = self.promised() {
            promise.release(kept / granule..u64::MAX);
        }
        // To the end of all offsets: pages may have been allocated past the old size.
        self.take_out(kept, MAX_SIZE + 1, Taken::Everything);
        Ok(())
    }

    /// Makes `[offset, offset + len)` read as zeros and gives its whole pages back. Private copies of them stay. Linux's
    /// `fallocate` with `PUNCH_HOLE | KEEP_SIZE`; through a mapping, [`Space::punch`](crate::mm::space::Space::punch).
    ///
    /// No lock may be held.
    ///
    /// # Errors
    /// See [`PunchError`].
    pub fn punch(&self, offset: u64, len: u64) -> Result<(), PunchError> {
        if len == 0 {
            return Err(PunchError::Empty);
        }
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= MAX_SIZE)
            .ok_or(PunchError::TooLarge)?;
        let granule = self.granule();
        if self.ty().fixed_size && !(offset | len).is_multiple_of(granule) {
            return Err(PunchError::Unaligned);
        }
        let _changing = self.layout.lock();
        let (first, last) = (offset.next_multiple_of(granule), end - end % granule);
        if first > last {
            self.zero(offset, end);
            return Ok(());
        }
        self.zero(offset, first);
        self.take_out(first, last, Taken::CachePages);
        self.zero(last, end);
        Ok(())
    }

    /// Stores zeros to `[start, end)`, which lies in one page, if that is there.
    fn zero(&self, start: u64, end: u64) {
        let granule = self.granule();
        let mut at = start;
        while at < end {
            // The cache is not kept longer than for a base page.
            let next = end.min(at - at % PAGE_SIZE + PAGE_SIZE);
            if let Some(folio) = self.cache.lock().pages.get(at / granule) {
                phys::poke_zeros(folio, at % granule, (next - at) as usize);
            }
            at = next;
        }
    }

    /// Takes the pages of `[start, end)` out of the cache and out of every view, a batch at a time.
    fn take_out(&self, start: u64, end: u64, what: Taken) {
        let granule = self.granule();
        let mut at = start;
        while at < end {
            let from = at;
            let mut batch = FolioBatch::new();
            let mut cache = self.cache.lock();
            while !batch.is_full() && at < end {
                let next = cache.pages.first_from(at / granule).map(|(page, _)| page);
                match next.filter(|page| page * granule < end) {
                    Some(page) => {
                        at = (page + 1) * granule;
                        if let Some(folio) = self.take(&mut cache, page) {
                            batch.push(folio);
                        }
                    }
                    None => at = end,
                }
            }
            drop(cache);
            // Also where the cache had nothing: there may be private copies, or pages that somebody else is taking out.
            let range = ObjectRange { start: from, end: at };
            self.views.take_away(self, range, what);
        }
    }
}
