//! Filling delegated pages by guest-physical address: what COPY, CONTINUE and ZEROPAGE are at stage 2.
//!
//! | operation | the object has the page | it has not |
//! | --- | --- | --- |
//! | copy, zeropage | [`FillError::Exists`] | filled, delegated no more, mapped |
//! | continue | delegated no more, mapped; [`FillError::Exists`] if it was not delegated | [`FillError::Absent`] |
//!
//! As on the channel, a page that somebody else has filled meanwhile is no harm: whoever waits for it touches it again. The
//! cache is filled before the bit is cleared, so nobody finds the bit clear and the page missing.

use alloc::sync::Arc;

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::{CacheError, Lookup, Object};
use kernel::mm::fault::Access;
use kernel::mm::frame::{Anon, Folio, Frame};
use kernel::mm::phys;
use kernel::mm::pressure;
use kernel::mm::pt::PtFormat;
use kernel::mm::range::GuestRange;

use crate::memory::GuestMemory;
use crate::memslot::Backing;

/// Frames that are asked back when there is none for a page.
const RELIEF: u64 = 16;

/// What pages are filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Other memory of the guest, from here on.
    Copy {
        /// Where it begins.
        from: GuestPhysAddr,
    },
    /// Zeros.
    Zeropage,
    /// What the object has already.
    Continue,
}

/// How far it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Filled {
    /// Bytes that are done, from the start of the range on.
    pub bytes: u64,
    /// Why no more.
    pub stop: Option<FillError>,
}

/// Why a page was not filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillError {
    /// There is a page already.
    Exists,
    /// The object has no such page to continue with.
    Absent,
    /// No frame, or no kernel memory.
    OutOfMemory,
    /// The page, or its contents, lie in no slot where that can be done.
    Unbacked,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestMemory<F> {
    /// Fills the pages of `range` one after the other, ends their delegation and maps them; may sleep for the contents. The
    /// range consists of whole pages.
    pub fn fill(&self, range: GuestRange, how: Fill) -> Filled {
        let mut at = range.start;
        while at < range.end {
            if let Err(error) = self.fill_page(at, at - range.start, how) {
                return Filled {
                    bytes: at - range.start,
                    stop: Some(error),
                };
            }
            at = at + PAGE_SIZE;
        }
        Filled {
            bytes: range.len(),
            stop: None,
        }
    }

    /// Whether every byte of `range` lies in a slot.
    pub fn is_backed(&self, range: GuestRange) -> bool {
        let mut at = range.start;
        while at < range.end {
            match self.find(at) {
                Some(slot) => at = slot.range.end,
                None => return false,
            }
        }
        true
    }

    fn fill_page(&self, addr: GuestPhysAddr, done: u64, how: Fill) -> Result<(), FillError> {
        let slot = self.find(addr).ok_or(FillError::Unbacked)?;
        let Backing::Object { object, offset, .. } = &slot.backing else {
            return Err(FillError::Unbacked);
        };
        let offset = offset + slot.offset(addr);
        match how {
            Fill::Copy { from } => self.insert(object, offset, Some(from + done))?,
            Fill::Zeropage => self.insert(object, offset, None)?,
            Fill::Continue => {
                let Lookup::Present(_) = object.lookup(offset) else {
                    return Err(FillError::Absent);
                };
            }
        }
        let delegated = slot
            .userfaults()
            .is_some_and(|userfaults| userfaults.bitmap.clear(slot.page(addr)));
        if how == Fill::Continue && !delegated {
            return Err(FillError::Exists);
        }
        // The toucher would do it otherwise, with one more exit. Who could not be mapped here faults again.
        let _ = self.touch(addr, Access::Read);
        Ok(())
    }

    fn insert(
        &self,
        object: &Arc<Object>,
        offset: u64,
        from: Option<GuestPhysAddr>,
    ) -> Result<(), FillError> {
        if let Lookup::Present(_) = object.lookup(offset) {
            return Err(FillError::Exists);
        }
        let mut frame: Frame<Anon> = loop {
            match object.ty().alloc() {
                Ok(frame) => break frame,
                Err(_) if pressure::relieve(RELIEF) => {}
                Err(_) => return Err(FillError::OutOfMemory),
            }
        };
        match from {
            None => phys::zero(&mut frame),
            Some(from) => {
                let contents = phys::bytes_mut(&mut frame);
                self.read(from, contents).map_err(|_| FillError::Unbacked)?;
            }
        }
        match object.insert(offset, Folio::from(frame)) {
            Ok(()) => Ok(()),
            Err(CacheError::Exists(_)) => Err(FillError::Exists),
            Err(CacheError::BeyondEnd(_)) => Err(FillError::Unbacked),
            Err(CacheError::OutOfMemory(_) | CacheError::NoSpace(_)) => Err(FillError::OutOfMemory),
        }
    }
}
