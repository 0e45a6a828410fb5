//! Which delegated pages are the guest's own business, and the view in which some of them are there already.
//!
//! A *convertible* page (the SDM's word, vol. 3C, 26.5.7.1) raises #VE in a guest whose violations are diverted, instead of
//! an exit. Pages are convertible by range ([`GuestMemory::set_convertible`]); what the tables say of one follows from that, from
//! its bit in the userfault bitmap, and from the object:
//!
//! | the page | [`View::Delegating`](crate::stage2::View) | [`View::Cached`](crate::stage2::View) |
//! | --- | --- | --- |
//! | mapped, whatever its bit says | there | there |
//! | bit clear | exits: mapped | exits: mapped in both |
//! | bit set, convertible, not in the cache | #VE | #VE |
//! | bit set, convertible, in the cache | #VE | there |
//! | bit set, not convertible | exits: the owner's | exits: the owner's |
//!
//! **When the tables follow.** Whatever takes a page away or delegates it leaves the right entry. What makes a page
//! resolvable without touching the tables leaves an old one, and one access too many goes to the guest: it is answered there.
//!
//! | what | the entry until then | who brings it up to date |
//! | --- | --- | --- |
//! | the owner clears the bit | #VE | any call that fills the page, also where it answers that the page exists; [`Call::Resolve`] |
//! | a page comes into the cache | #VE in both | [`GuestMemory::reveal`], or a call that continues the page |
//! | the owner sets the bit by itself | exits | [`GuestMemory::delegate`] sets it with the entry |
//!
//! [`Call::Resolve`]: kernel::abi::guest::Call::Resolve

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::cache::Lookup;
use kernel::mm::frame::OutOfFrames;
use kernel::mm::pt::{AttrFlags, Entry, Marker, Prot, PtFormat};
use kernel::mm::range::GuestRange;

use crate::bitmap::Bitmap;
use crate::memory::GuestMemory;
use crate::memslot::{Backing, Slot, SlotError};
use crate::stage2::{DELEGATED, Tables};

/// Pages that are looked at with the tables locked once.
const BATCH: u64 = 512;

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestMemory<F> {
    /// Lets the CPU tell the guest itself of accesses to the pages of `range` that are absent and delegated, by #VE, if the
    /// vCPU takes violations that way ([`Vendor::divert_violations`](crate::vendor::Vendor::divert_violations)); or not any
    /// more. Slots without a userfault bitmap, and slots that are added later, have no such pages.
    ///
    /// # Errors
    /// [`SlotError::OutOfMemory`]: no page of the range is convertible.
    pub fn set_convertible(&self, range: GuestRange, on: bool) -> Result<(), SlotError> {
        for slot in self.overlapping(range) {
            let Some(part) = slot.range.intersect(&range) else {
                continue;
            };
            if !on {
                slot.end_conversion(part);
            } else if slot.make_convertible(part, self.logs_by_dirty_bit()).is_err() {
                self.forget_convertible(range);
                return Err(SlotError::OutOfMemory);
            }
        }
        Ok(())
    }

    /// [`Self::set_convertible`] with `false`, which needs nothing.
    pub(crate) fn forget_convertible(&self, range: GuestRange) {
        for slot in self.overlapping(range) {
            if let Some(part) = slot.range.intersect(&range) {
                slot.end_conversion(part);
            }
        }
    }

    /// Has the second view, if there is one, show the convertible pages of `range` that have come into the cache since
    /// they were delegated. Those that were there before it shows already.
    ///
    /// # Errors
    /// No frame for a node; some may be shown.
    pub fn reveal(&self, range: GuestRange) -> Result<(), OutOfFrames> {
        for slot in self.overlapping(range) {
            if let Some(part) = slot.range.intersect(&range) {
                slot.settle(part, self.logs_by_dirty_bit())?;
            }
        }
        Ok(())
    }

    /// Makes the second view, if it is not there yet; from now on it shows what it has to. The roots of both, by number.
    ///
    /// # Errors
    /// No frame for it.
    pub fn open_views(&self) -> Result<[Pfn; 2], OutOfFrames> {
        let roots = self.stage2().both_roots()?;
        for slot in self.slots_now() {
            slot.settle(slot.range, self.logs_by_dirty_bit())?;
        }
        Ok(roots)
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Slot<F> {
    /// Whether the page at `addr` is convertible while it is delegated.
    pub(crate) fn is_convertible(&self, addr: GuestPhysAddr) -> bool {
        let convertible = self.convertible.lock();
        convertible
            .as_ref()
            .is_some_and(|pages| pages.is_set(self.page(addr)))
    }

    /// What the entry of an absent page is to remember.
    pub(crate) fn marker(&self, page: GuestPhysAddr) -> Marker {
        if self.delegates(page) && self.is_convertible(page) {
            DELEGATED
        } else {
            Marker::None
        }
    }

    fn make_convertible(&self, part: GuestRange, by_dirty_bit: bool) -> Result<(), OutOfFrames> {
        if self.userfaults().is_none() {
            return Ok(());
        }
        let mut fresh = Some(Bitmap::new(self.range.pages()).map_err(|_| OutOfFrames)?);
        let tables = self.stage2().lock();
        let mut convertible = self.convertible.lock();
        if convertible.is_none() {
            *convertible = fresh.take();
        }
        if let Some(pages) = &*convertible {
            let first = self.page(part.start);
            (first..first + part.pages()).for_each(|page| pages.set(page));
        }
        drop((convertible, tables));
        drop(fresh);
        self.settle(part, by_dirty_bit)
    }

    /// The pages of `part` are not convertible any more.
    fn end_conversion(&self, part: GuestRange) {
        let mut tables = self.stage2().lock();
        if let Some(pages) = &*self.convertible.lock() {
            let first = self.page(part.start);
            (first..first + part.pages()).for_each(|page| _ = pages.clear(page));
        } else {
            return;
        }
        tables.forget_markers(part, Some(DELEGATED));
        let note = |pages, flags: AttrFlags| {
            if flags.contains(AttrFlags::DIRTY) {
                self.note_stores(pages);
            }
        };
        tables.keep_common(part, note);
    }

    /// Brings what the tables say of the absent pages of `part` up to date.
    ///
    /// # Errors
    /// No frame for a node: the rest stays as it was.
    pub(crate) fn settle(&self, part: GuestRange, by_dirty_bit: bool) -> Result<(), OutOfFrames> {
        let mut at = part.start;
        while at < part.end && self.has_convertible_pages() {
            let mut tables = self.stage2().lock();
            let end = part.end.min(at + BATCH * PAGE_SIZE);
            while at < end {
                self.settle_page(&mut tables, at, by_dirty_bit)?;
                at = at + PAGE_SIZE;
            }
        }
        Ok(())
    }

    fn settle_page(
        &self,
        tables: &mut Tables<'_, F>,
        page: GuestPhysAddr,
        by_dirty_bit: bool,
    ) -> Result<(), OutOfFrames> {
        let entry = tables.entry(page).0;
        if entry == Entry::Absent(Marker::Poison) || !self.is_live() {
            return Ok(());
        }
        if self.marker(page) != DELEGATED {
            if entry == Entry::Absent(DELEGATED) {
                tables.forget_markers(GuestRange::page(page), Some(DELEGATED));
            }
            return Ok(());
        }
        if tables.has_cached_view()
            && let Backing::Object { object, offset, .. } = &self.backing
            && let Lookup::Present(folio) = object.lookup(offset + self.offset(page))
        {
            let prot = self.allowed(Prot::READ | Prot::WRITE, false, by_dirty_bit);
            tables.map_in_cached_view(page, folio, prot)?;
        }
        tables.mark_vacant(page, DELEGATED)
    }

    fn has_convertible_pages(&self) -> bool {
        self.convertible.lock().is_some()
    }
}
