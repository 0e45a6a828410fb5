//! Filling delegated pages by guest-physical address: what COPY, CONTINUE, ZEROPAGE and POISON are at stage 2, for
//! hypercalls and for the channel ([`GuestBacking`]).
//!
//! | operation | the object has the page | it has not |
//! | --- | --- | --- |
//! | copy, zeropage | [`FillError::Exists`]; mapped if it is not delegated | filled, delegated no more, mapped |
//! | continue | delegated no more, mapped; [`FillError::Exists`] if it was not delegated | [`FillError::Absent`] |
//! | poison | as if it had not; [`FillError::Exists`] if it is mapped | delegated no more, and accesses fail |
//!
//! Poison goes with whatever is filled or continued over it, as at stage 1.
//!
//! **Host and guest at once.** The object may be mapped and registered on the host too. Who touches a page first on either
//! side sends a message of its own side, and each is answered by itself: whichever COPY comes first fills the object, the
//! other is refused with EEXIST, and what that monitor wants then is CONTINUE, which maps the page that won on its side.
//! Filling on one side never ends the delegation on the other: no guest gets at a page because the host has touched it.
//!
//! As on the channel, a page that somebody else has filled meanwhile is no harm: whoever waits for it touches it again. The
//! cache is filled before the bit is cleared, so nobody finds the bit clear and the page missing.

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE};
use kernel::mm::cache::{CacheError, Lookup, Object};
use kernel::mm::fault::Access;
use kernel::mm::frame::{Anon, Folio, Frame};
use kernel::mm::phys;
use kernel::mm::pressure;
use kernel::mm::pt::{Marker, PtFormat};
use kernel::mm::range::GuestRange;
use kernel::uffd::{GuestBacking, Refusal};

use crate::memory::GuestMemory;
use crate::memslot::{Backing, Slot};

/// Frames that are asked back when there is none for a page.
const RELIEF: u64 = 16;

/// What pages are filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill<'a> {
    /// These bytes, a page of them for each page of the range.
    Bytes(&'a [u8]),
    /// Other memory of the guest, from here on.
    Copy {
        /// Where it begins.
        from: GuestPhysAddr,
    },
    /// Zeros.
    Zeropage,
    /// What the object has already.
    Continue,
    /// Nothing: accesses fail.
    Poison,
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
    pub fn fill(&self, range: GuestRange, how: Fill<'_>) -> Filled {
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

    fn fill_page(&self, addr: GuestPhysAddr, done: u64, how: Fill<'_>) -> Result<(), FillError> {
        let slot = self.find(addr).ok_or(FillError::Unbacked)?;
        if how == Fill::Poison {
            return slot.poison(addr);
        }
        let filled = self.bring(&slot, addr, done, how).and_then(|()| {
            let delegated = slot.end_delegation(addr);
            match how {
                Fill::Continue if !delegated => Err(FillError::Exists),
                _ => Ok(()),
            }
        });
        // The toucher would do it otherwise, with one more exit. Who could not be mapped here faults again. Where the page
        // exists because the owner has cleared its bit, the entry may still say that it is the guest's business, and the
        // guest would fault again and again.
        if filled.is_ok() || (filled == Err(FillError::Exists) && !slot.delegates(addr)) {
            let _ = self.touch(addr, Access::Read);
        }
        filled
    }

    /// Gives the object its page, or makes sure that it has one.
    fn bring(&self, slot: &Slot<F>, addr: GuestPhysAddr, done: u64, how: Fill<'_>) -> Result<(), FillError> {
        let Backing::Object { object, offset, .. } = &slot.backing else {
            return Err(FillError::Unbacked);
        };
        let offset = offset + slot.offset(addr);
        match how {
            Fill::Bytes(bytes) => {
                let page = bytes
                    .get(done as usize..)
                    .and_then(|rest| rest.get(..PAGE_SIZE as usize));
                let page = page.ok_or(FillError::Unbacked)?;
                insert(object, offset, |contents| {
                    contents.copy_from_slice(page);
                    Ok(())
                })
            }
            Fill::Copy { from } => insert(object, offset, |contents| {
                self.read(from + done, contents).map_err(|_| FillError::Unbacked)
            }),
            Fill::Zeropage => insert(object, offset, |contents| {
                contents.fill(0);
                Ok(())
            }),
            Fill::Continue | Fill::Poison => match object.lookup(offset) {
                Lookup::Present(_) => Ok(()),
                Lookup::Absent | Lookup::BeyondEnd => Err(FillError::Absent),
            },
        }
    }
}

/// Puts a page into a hole of the object, with the contents that `write` gives it.
fn insert(
    object: &Object,
    offset: u64,
    write: impl FnOnce(&mut [u8]) -> Result<(), FillError>,
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
    write(phys::bytes_mut(&mut frame))?;
    match object.insert(offset, Folio::from(frame)) {
        Ok(()) => Ok(()),
        Err(CacheError::Exists(_)) => Err(FillError::Exists),
        Err(CacheError::BeyondEnd(_)) => Err(FillError::Unbacked),
        Err(CacheError::OutOfMemory(_) | CacheError::NoSpace(_)) => Err(FillError::OutOfMemory),
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Slot<F> {
    /// Ends the delegation of the page at `addr`, and its poison. Returns whether it was delegated.
    fn end_delegation(&self, addr: GuestPhysAddr) -> bool {
        let page = GuestRange::page(addr.align_down(PAGE_SIZE));
        self.stage2().lock().forget_markers(page, None);
        self.userfaults()
            .is_some_and(|userfaults| userfaults.bitmap.clear(self.page(addr)))
    }

    /// Has accesses of the page at `addr` fail instead of being delegated.
    fn poison(&self, addr: GuestPhysAddr) -> Result<(), FillError> {
        let Backing::Object { .. } = &self.backing else {
            return Err(FillError::Unbacked);
        };
        let mut tables = self.stage2().lock();
        if !self.is_live() {
            return Err(FillError::Unbacked);
        }
        let marked = tables.mark(addr, Marker::Poison);
        if !marked.map_err(|_| FillError::OutOfMemory)? {
            return Err(FillError::Exists);
        }
        if let Some(userfaults) = self.userfaults() {
            userfaults.bitmap.clear(self.page(addr));
        }
        Ok(())
    }
}

impl Filled {
    /// As the channel has it.
    fn answer(self) -> (u64, Result<(), Refusal>) {
        (self.bytes, self.stop.map_or(Ok(()), |why| Err(why.into())))
    }
}

impl From<FillError> for Refusal {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Exists => Self::Exists,
            FillError::Absent => Self::NoPage,
            FillError::OutOfMemory => Self::OutOfMemory,
            FillError::Unbacked => Self::NotRegistered,
        }
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestBacking for GuestMemory<F> {
    fn delegates(&self, addr: GuestPhysAddr) -> bool {
        self.find(addr).is_some_and(|slot| slot.delegates(addr))
    }

    fn copy(&self, to: GuestPhysAddr, source: &[u8]) -> (u64, Result<(), Refusal>) {
        match GuestRange::from_len(to, source.len() as u64) {
            Some(range) => self.fill(range, Fill::Bytes(source)).answer(),
            None => (0, Err(Refusal::NotRegistered)),
        }
    }

    fn zeropage(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range, Fill::Zeropage).answer()
    }

    fn cont(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range, Fill::Continue).answer()
    }

    fn poison(&self, range: GuestRange) -> (u64, Result<(), Refusal>) {
        self.fill(range, Fill::Poison).answer()
    }
}
