//! Pages ahead of use: fallocate.

use super::object::{MAX_SIZE, NoPage, Object};
use super::promise::Claim;
use crate::mm::frame::FolioBatch;
use crate::mm::phys;

/// Why nothing was allocated; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocateError {
    /// The length is zero (Linux: EINVAL).
    Empty,
    /// The end would be past [`MAX_SIZE`] (EFBIG).
    TooLarge,
    /// Objects of the type are allocated in whole pages (EINVAL).
    Unaligned,
    /// The object has a fixed size: it cannot grow (EOPNOTSUPP), so its size must be kept.
    FixedSize,
    /// The object has a fixed size, and the range ends past it (EINVAL).
    BeyondEnd,
    /// There are not so many pages (ENOMEM or ENOSPC).
    NoPage(NoPage),
}

impl Object {
    /// Sees to it that every byte of `[offset, offset + len)` has a page; holes get pages of zeros. Unless `keep_size`, the
    /// object grows to the end of the range if it is shorter. Linux's `fallocate`, with or without `KEEP_SIZE`.
    ///
    /// Pages past the end are there when the object grows over them, and go when it is truncated.
    ///
    /// No lock may be held.
    ///
    /// # Errors
    /// See [`AllocateError`]. Pages of this call that somebody uses already stay nevertheless.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<(), AllocateError> {
        if len == 0 {
            return Err(AllocateError::Empty);
        }
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= MAX_SIZE)
            .ok_or(AllocateError::TooLarge)?;
        let short = |error| error == AllocateError::NoPage(NoPage::OutOfMemory);
        Self::relieved(short, || self.allocate_range(offset, end, keep_size))
    }

    fn allocate_range(&self, offset: u64, end: u64, keep_size: bool) -> Result<(), AllocateError> {
        let _changing = self.layout.lock();
        if self.ty().fixed_size {
            if !keep_size {
                return Err(AllocateError::FixedSize);
            }
            if !(offset | end).is_multiple_of(self.granule()) {
                return Err(AllocateError::Unaligned);
            }
            if end > self.size() {
                return Err(AllocateError::BeyondEnd);
            }
        }
        let (first, last) = (offset / self.granule(), end.div_ceil(self.granule()));
        for page in first..last {
            if let Err(error) = self.allocate_page(page) {
                self.take_unused(first, page);
                return Err(AllocateError::NoPage(error));
            }
        }
        let mut cache = self.cache.lock();
        if !keep_size && end > cache.size {
            cache.size = end;
        }
        Ok(())
    }

    fn allocate_page(&self, page: u64) -> Result<(), NoPage> {
        if let Some(folio) = self.cache.lock().pages.get(page) {
            // Allocated twice counts as used: not this call's to take back.
            folio.note_used();
            return Ok(());
        }
        let claim = self.promised().and_then(|promise| Claim::to(promise, page));
        let mut frame = match &claim {
            Some(claim) => claim.alloc()?,
            None => self.ty().alloc()?,
        };
        phys::zero(&mut frame);
        let pfn = frame.pfn();
        let mut cache = self.cache.lock();
        let put = self.put(&mut cache, page, frame.into(), true);
        // The page goes before the claim to it.
        let outcome = match put {
            // A fault was faster.
            Err(_) if cache.pages.get(page).is_some() => return Ok(()),
            outcome => outcome.map_err(|error| NoPage::because_of(&error)),
        };
        if let (Ok(()), Some(claim)) = (outcome, claim) {
            claim.used(pfn);
        }
        outcome
    }

    /// Takes the pages `first..last` out that nobody has used: nobody maps them, so no view is asked.
    fn take_unused(&self, first: u64, last: u64) {
        let mut at = first;
        while at < last {
            let mut batch = FolioBatch::new();
            let mut cache = self.cache.lock();
            while !batch.is_full() && at < last {
                let unused = match cache.pages.first_from(at) {
                    Some((page, folio)) if page < last => {
                        at = page + 1;
                        folio.is_unused().then_some(page)
                    }
                    _ => {
                        at = last;
                        None
                    }
                };
                if let Some(folio) = unused.and_then(|page| self.take(&mut cache, page)) {
                    batch.push(folio);
                }
            }
        }
    }
}
