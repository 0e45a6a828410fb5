//! Reading and writing an object, past any mapping.

use super::object::{Cache, MAX_SIZE, NoPage, Object};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::Folio;
use crate::mm::phys;

/// Why nothing, or no more, was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// Objects of the type are not written to (Linux: EINVAL).
    NotWritable,
    /// The end would be past [`MAX_SIZE`] (EFBIG).
    TooLarge,
    /// The object has a fixed size, and the bytes lie past it (EINVAL).
    BeyondEnd,
    /// There is no page to write to (ENOMEM or ENOSPC).
    NoPage(NoPage),
}

impl Object {
    /// Copies bytes from `offset` on to `out`; holes are zeros. Returns how many there were: less than `out` holds when the
    /// object ends before, 0 at the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = offset.saturating_add(done as u64);
            let rest = &mut out[done..];
            let cache = self.cache.lock();
            let left = cache.size.saturating_sub(at);
            let len = in_one_page(at, rest.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            if len == 0 {
                break;
            }
            let part = &mut rest[..len];
            match cache.pages.get(at / self.granule()) {
                Some(folio) => phys::peek(folio, at % self.granule(), part),
                None => part.fill(0),
            }
            done += len;
        }
        done
    }

    /// Writes `bytes` at `offset`. Holes get pages, and the object grows if it has to. Returns how many bytes were written,
    /// and why not all if that is so.
    ///
    /// Whoever maps the object sees them at once: mappings share its pages. A page that comes into the cache here is mapped
    /// by nobody, and nobody is told: a task that waits for it as missing waits on until it is woken, and then finds it (see
    /// [`guest_memfd`](crate::mm::memtype::guest_memfd)).
    ///
    /// No lock may be held.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> (u64, Result<(), WriteError>) {
        if !self.ty().takes_writes() {
            return (0, Err(WriteError::NotWritable));
        }
        let mut done = 0;
        let short = |error| error == WriteError::NoPage(NoPage::OutOfMemory);
        let outcome = Self::relieved(short, || self.write_more(offset, bytes, &mut done));
        (done as u64, outcome)
    }

    /// Writes what is left, and counts what is done.
    fn write_more(&self, offset: u64, bytes: &[u8], done: &mut usize) -> Result<(), WriteError> {
        let _changing = self.layout.lock();
        while *done < bytes.len() {
            let at = offset.saturating_add(*done as u64);
            let part = &bytes[*done..][..in_one_page(at, bytes.len() - *done)];
            self.write_part(at, part)?;
            *done += part.len();
        }
        Ok(())
    }

    /// Writes bytes that lie in one page: page, contents and size in one step.
    fn write_part(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= MAX_SIZE)
            .ok_or(WriteError::TooLarge)?;
        let mut cache = self.cache.lock();
        if self.ty().fixed_size && end > cache.size {
            return Err(WriteError::BeyondEnd);
        }
        if !self.store(&cache, offset, bytes) {
            drop(cache);
            let fresh = self.page_with(offset, bytes)?;
            cache = self.cache.lock();
            if let Err(error) = self.put(&mut cache, offset / self.granule(), fresh, false)
                // A fault may have been faster.
                && !self.store(&cache, offset, bytes)
            {
                return Err(WriteError::NoPage(NoPage::because_of(&error)));
            }
        }
        cache.size = cache.size.max(end);
        Ok(())
    }

    /// Stores bytes to the page that they belong to; false when there is none.
    fn store(&self, cache: &Cache, offset: u64, bytes: &[u8]) -> bool {
        let Some(folio) = cache.pages.get(offset / self.granule()) else {
            return false;
        };
        folio.note_used();
        phys::poke(folio, offset % self.granule(), bytes);
        true
    }

    /// A page of zeros but for these bytes.
    fn page_with(&self, offset: u64, bytes: &[u8]) -> Result<Folio, WriteError> {
        let mut frame = self
            .ty()
            .alloc()
            .map_err(|error| WriteError::NoPage(error.into()))?;
        if (bytes.len() as u64) < self.granule() {
            phys::zero(&mut frame);
        }
        let at = (offset % self.granule()) as usize;
        phys::bytes_mut(&mut frame)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(frame.into())
    }
}

/// How many of `len` bytes at `offset` lie in one base page.
fn in_one_page(offset: u64, len: usize) -> usize {
    len.min((PAGE_SIZE - offset % PAGE_SIZE) as usize)
}
