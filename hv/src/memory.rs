//! The memory of a virtual machine: its slots, the tables that show them to the guest, and how the host reaches them.
//!
//! ```text
//!   vCPU ── violation ──► GuestMemory::resolve ──► slot ──► Space or Object
//!     └──── enter ──────► Stage2 (what the CPU walks) ◄─── taken away by the backing
//!   owner ── add, remove, take_dirty, delegate, read, write
//! ```
//!
//! Shared by the vCPUs and the owner through `Arc`. Slots are looked for without waiting for anything but changes of the
//! set; what is found is used under the tables' lock, and only as long as the slot is part of the set.
//!
//! **Locks**, in this order: the set of slots; a space's areas and table; the stage-2 tables; a slot's log. Nothing is held
//! while a fault sleeps.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::cache::Lookup;
use kernel::mm::fault::{Access, Origin};
use kernel::mm::frame::OutOfFrames;
use kernel::mm::phys;
use kernel::mm::pt::PtFormat;
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::sync::RwLock;

use crate::memslot::{Backing, Slot, SlotError, SlotId, SlotRequest};
use crate::stage2::{Entered, Stage2};
use crate::userfault::{Delivery, Outcome, Userfaults};
use crate::vendor::Features;

/// Bits of a guest-physical address that four levels translate.
const MAX_BITS: u8 = 48;

/// The memory of a virtual machine, with stage-2 tables of format `F`.
#[derive(Debug)]
pub struct GuestMemory<F: PtFormat<Addr = GuestPhysAddr>> {
    stage2: Arc<Stage2<F>>,
    slots: RwLock<Slots<F>>,
    features: Features,
}

/// The slots, by address. A fault mostly asks for the slot that the last one was in: that is remembered.
#[derive(Debug)]
struct Slots<F: PtFormat<Addr = GuestPhysAddr>> {
    all: Vec<Arc<Slot<F>>>,
    /// Index of the slot that was found last; a guess, since slots move.
    last_found: AtomicUsize,
    next: u32,
    closed: bool,
}

/// Why the host's access to guest memory stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError {
    /// The first byte that was not reached.
    pub addr: GuestPhysAddr,
    /// Why; never [`Outcome::Retry`].
    pub why: Outcome,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's memory at {}: {}", self.addr, self.why)
    }
}

/// What a slot is at the moment.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Its number.
    pub id: SlotId,
    /// Where the guest has it.
    pub range: GuestRange,
    /// What backs it.
    pub backing: Backing,
    /// Whether the guest's stores are refused.
    pub read_only: bool,
    /// Whether the guest's stores are noted.
    pub log_dirty: bool,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestMemory<F> {
    /// No memory yet, for guests on a CPU with these features.
    ///
    /// # Errors
    /// No frame for the root of the tables.
    pub fn new(features: &Features) -> Result<Arc<Self>, OutOfFrames> {
        Ok(Arc::new(Self {
            stage2: Arc::new(Stage2::new()?),
            slots: RwLock::new(Slots {
                all: Vec::new(),
                last_found: AtomicUsize::new(0),
                next: 0,
                closed: false,
            }),
            features: *features,
        }))
    }

    /// The root of the stage-2 tables, for [`Vendor::create`](crate::vendor::Vendor::create).
    pub fn root(&self) -> Pfn {
        self.stage2.root()
    }

    /// The stage-2 tables.
    pub fn stage2(&self) -> &Stage2<F> {
        &self.stage2
    }

    /// A vCPU that has last seen the generation `seen`, 0 at first, enters the guest: see [`Stage2::enter`].
    #[inline]
    pub fn enter(&self, seen: &mut u64) -> Entered<'_, F> {
        self.stage2.enter(seen)
    }

    /// What the CPU can do that runs the guest.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Whether the CPU notes stores in dirty bits.
    pub(crate) fn logs_by_dirty_bit(&self) -> bool {
        self.features.accessed_dirty
    }

    /// Shows the guest a slot.
    ///
    /// # Errors
    /// See [`SlotError`]; nothing changed.
    pub fn add(&self, request: SlotRequest) -> Result<SlotId, SlotError> {
        let range = request.checked(self.features.physical_bits.min(MAX_BITS))?;
        let id = {
            let mut slots = self.slots.write();
            slots.next += 1;
            SlotId(slots.next - 1)
        };
        // Whatever allocates, before the set is locked.
        let slot = Slot::new(id, range, request, &self.stage2)?;
        slot.start()?;
        let inserted = self.slots.write().insert(&slot);
        if inserted.is_err() {
            slot.give_up();
        }
        inserted.map(|()| id)
    }

    /// Takes a slot away. Whoever waits for one of its pages looks again, and finds no slot.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`].
    pub fn remove(&self, id: SlotId) -> Result<(), SlotError> {
        let slot = self.slots.write().take(id).ok_or(SlotError::NoSuchSlot)?;
        self.end(&slot);
        Ok(())
    }

    /// Takes all slots away, for good: no other can be added.
    pub fn close(&self) {
        let slots = {
            let mut slots = self.slots.write();
            slots.closed = true;
            core::mem::take(&mut slots.all)
        };
        slots.iter().for_each(|slot| self.end(slot));
    }

    /// A slot is part of the set no more.
    fn end(&self, slot: &Arc<Slot<F>>) {
        slot.stop();
        if let Backing::Space { space, addr } = &slot.backing {
            let end = *addr + slot.range.len();
            space.stir_waiters(VirtRange::new(*addr, end));
        }
        if let Some(Userfaults {
            delivery: Delivery::Message(ctx),
            ..
        }) = slot.userfaults()
        {
            ctx.stir_guest(slot.range);
        }
    }

    /// Lets the guest store to a slot, or refuses it from now on.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`].
    pub fn set_read_only(&self, id: SlotId, read_only: bool) -> Result<(), SlotError> {
        self.slot(id)?.set_read_only(read_only);
        Ok(())
    }

    /// Notes from now on which pages of a slot the guest stores to, or not any more.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`], [`SlotError::OutOfMemory`].
    pub fn set_logging(&self, id: SlotId, on: bool) -> Result<(), SlotError> {
        self.slot(id)?.set_logging(on)
    }

    /// The pages of a slot that the guest, or the host through [`Self::write`], has stored to since this was asked last: bit
    /// n % 64 of word n / 64 for page n. `None` when that is not noted. They are watched again: a store that is not in this
    /// answer is in the next, and whoever copies the pages after this has it in one or the other.
    ///
    /// # Errors
    /// [`SlotError::NoSuchSlot`], [`SlotError::OutOfMemory`].
    pub fn take_dirty(&self, id: SlotId) -> Result<Option<Vec<u64>>, SlotError> {
        self.slot(id)?.take_dirty(self.logs_by_dirty_bit())
    }

    /// Delegates the pages of `range` that lie in slots with a userfault bitmap: sets their bits, and takes away what the
    /// guest has of them.
    pub fn delegate(&self, range: GuestRange) {
        for slot in self.overlapping(range) {
            if let Some(part) = slot.range.intersect(&range) {
                slot.delegate(part);
                // Without a frame for the tables, violations exit: to the owner instead of the guest.
                let _ = slot.settle(part, self.logs_by_dirty_bit());
            }
        }
    }

    /// Where slots are, by address.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let info = |slot: &Arc<Slot<F>>| SlotInfo {
            id: slot.id,
            range: slot.range,
            backing: slot.backing.clone(),
            read_only: slot.is_read_only(),
            log_dirty: slot.is_logging(),
        };
        self.slots.read().all.iter().map(info).collect()
    }

    /// Copies out of the guest's memory, as an access of the guest would find it; may sleep. No lock may be held.
    ///
    /// # Errors
    /// A byte could not be read; those before it are in `out`.
    pub fn read(&self, addr: GuestPhysAddr, out: &mut [u8]) -> Result<(), AccessError> {
        let mut done = 0;
        while done < out.len() {
            let (at, len) = chunk(addr, done, out.len())?;
            let part = &mut out[done..done + len];
            self.read_in_page(at, part)
                .map_err(|why| AccessError { addr: at, why })?;
            done += len;
        }
        Ok(())
    }

    /// Copies into the guest's memory, as an access of the guest would; may sleep. No lock may be held.
    ///
    /// # Errors
    /// A byte could not be written; those before it are.
    pub fn write(&self, addr: GuestPhysAddr, bytes: &[u8]) -> Result<(), AccessError> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, len) = chunk(addr, done, bytes.len())?;
            let part = &bytes[done..done + len];
            self.write_in_page(at, part)
                .map_err(|why| AccessError { addr: at, why })?;
            done += len;
        }
        Ok(())
    }

    fn read_in_page(&self, addr: GuestPhysAddr, out: &mut [u8]) -> Result<(), Outcome> {
        loop {
            let slot = self.find(addr).ok_or(Outcome::Unbacked)?;
            let at = slot.offset(addr);
            match &slot.backing {
                Backing::Space { space, addr } => {
                    let read = space.read_bytes(*addr + at, out, Origin::Kernel);
                    return read.map_err(|error| Outcome::Failed(error.why));
                }
                Backing::Object { object, offset, .. } => {
                    self.reach(addr, Access::Read)?;
                    let offset = offset + at;
                    if let Lookup::Present(folio) = object.lookup(offset - offset % PAGE_SIZE) {
                        phys::peek(&folio, offset % PAGE_SIZE, out);
                        return Ok(());
                    }
                }
            }
        }
    }

    fn write_in_page(&self, addr: GuestPhysAddr, bytes: &[u8]) -> Result<(), Outcome> {
        loop {
            let slot = self.find(addr).ok_or(Outcome::Unbacked)?;
            if slot.is_read_only() {
                return Err(Outcome::ReadOnly);
            }
            let at = slot.offset(addr);
            match &slot.backing {
                Backing::Space { space, addr: first } => {
                    let written = space.write_bytes(*first + at, bytes, Origin::Kernel);
                    written.map_err(|error| Outcome::Failed(error.why))?;
                }
                Backing::Object { object, offset, .. } => {
                    self.reach(addr, Access::Write)?;
                    let offset = offset + at;
                    let Lookup::Present(folio) = object.lookup(offset - offset % PAGE_SIZE) else {
                        continue;
                    };
                    phys::poke(&folio, offset % PAGE_SIZE, bytes);
                }
            }
            slot.note_stores(GuestRange::page(addr.align_down(PAGE_SIZE)));
            return Ok(());
        }
    }

    /// Resolves an access of the host's on the guest's account.
    fn reach(&self, addr: GuestPhysAddr, access: Access) -> Result<(), Outcome> {
        match self.touch(addr, access) {
            Outcome::Retry => Ok(()),
            outcome => Err(outcome),
        }
    }

    /// The slot that has `addr`.
    #[inline]
    pub(crate) fn find(&self, addr: GuestPhysAddr) -> Option<Arc<Slot<F>>> {
        self.slots.read().find(addr).map(Arc::clone)
    }

    /// The slots that share an address with `range`.
    pub(crate) fn overlapping(&self, range: GuestRange) -> Vec<Arc<Slot<F>>> {
        let slots = self.slots.read();
        let overlaps = |slot: &&Arc<Slot<F>>| slot.range.overlaps(&range);
        slots.all.iter().filter(overlaps).cloned().collect()
    }

    /// All slots.
    pub(crate) fn slots_now(&self) -> Vec<Arc<Slot<F>>> {
        self.slots.read().all.clone()
    }

    fn slot(&self, id: SlotId) -> Result<Arc<Slot<F>>, SlotError> {
        let slots = self.slots.read();
        let slot = slots.all.iter().find(|slot| slot.id == id);
        slot.cloned().ok_or(SlotError::NoSuchSlot)
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Drop for GuestMemory<F> {
    fn drop(&mut self) {
        // The spaces behind the slots know them.
        self.close();
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Slots<F> {
    #[inline]
    fn find(&self, addr: GuestPhysAddr) -> Option<&Arc<Slot<F>>> {
        match self.all.get(self.last_found.load(Ordering::Relaxed)) {
            Some(slot) if slot.range.contains(addr) => Some(slot),
            _ => self.search(addr),
        }
    }

    #[cold]
    fn search(&self, addr: GuestPhysAddr) -> Option<&Arc<Slot<F>>> {
        let next = self.all.partition_point(|slot| slot.range.start <= addr);
        let index = next.checked_sub(1)?;
        let slot = self.all.get(index).filter(|slot| slot.range.contains(addr))?;
        self.last_found.store(index, Ordering::Relaxed);
        Some(slot)
    }

    fn insert(&mut self, slot: &Arc<Slot<F>>) -> Result<(), SlotError> {
        if self.closed {
            return Err(SlotError::Closed);
        }
        if let Some(other) = self.all.iter().find(|other| other.range.overlaps(&slot.range)) {
            return Err(SlotError::Overlaps(other.id));
        }
        self.all.try_reserve(1).map_err(|_| SlotError::OutOfMemory)?;
        let place = self
            .all
            .partition_point(|other| other.range.start < slot.range.start);
        self.all.insert(place, Arc::clone(slot));
        Ok(())
    }

    fn take(&mut self, id: SlotId) -> Option<Arc<Slot<F>>> {
        let place = self.all.iter().position(|slot| slot.id == id)?;
        Some(self.all.remove(place))
    }
}

/// Where the bytes after the first `done` of `len` lie, and how many of them on one page.
fn chunk(addr: GuestPhysAddr, done: usize, len: usize) -> Result<(GuestPhysAddr, usize), AccessError> {
    let beyond = AccessError {
        addr: GuestPhysAddr::new(u64::MAX),
        why: Outcome::Unbacked,
    };
    let at = addr.checked_add(done as u64).ok_or(beyond)?;
    Ok((at, (len - done).min((PAGE_SIZE - at.page_offset()) as usize)))
}
