//! A stage-2 fault: from a violation to an answer.
//!
//! ```text
//!   violation ─► slot ─┬─ none ──────────────────────────────────────────────► Unbacked: a device, or a mistake
//!                      ├─ read-only, and a store ────────────────────────────► ReadOnly
//!                      ├─ of a space ─► entry allows it: leaf ───────────────► Retry
//!                      │      ▲               │ else
//!                      │      └── the space's own fault: messages, sleep ────► Failed
//!                      └─ of an object ─► bit set ─► delegated to the owner ─► Delegated
//!                                  └─ clear: the page, or zeros ─► leaf ─────► Retry
//! ```
//!
//! On a slot of a space, the guest's access is an access of the kernel's on the host's behalf: rights, userfault
//! registrations and policies are those of the area, and the vCPU's task sleeps as any other would.
//!
//! On a slot of an object, a set bit of the slot's *userfault bitmap* delegates the access, whatever the object has; what
//! was mapped before the bit was set stays mapped ([`GuestMemory::delegate`](crate::memory::GuestMemory::delegate) takes it
//! away). The owner fills the object, by `write()` for example, and then clears the bit with an atomic store: whoever finds
//! it cleared finds the page. The host's own mappings of the same object have faults of their own, and know nothing of
//! the bits.
//!
//! Nothing resumes in the middle: whoever slept looks again, and for another slot if that one has gone.

use alloc::sync::Arc;
use core::fmt;

use bitflags::bitflags;
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, VirtAddr};
use kernel::mm::cache::{CacheError, Lookup, Object, Presence};
use kernel::mm::fault::{self, Access, FaultError, FaultInfo, Origin};
use kernel::mm::frame::{Folio, OutOfFrames};
use kernel::mm::phys;
use kernel::mm::pressure;
use kernel::mm::pt::{Level, Prot, PtFormat};
use kernel::mm::range::GuestRange;
use kernel::mm::space::{Present, Space};
use kernel::task;
use kernel::uffd::{CacheState, Ctx, GuestFault, TrapKind};

use crate::bitmap::Bitmap;
use crate::exit::Violation;
use crate::memory::GuestMemory;
use crate::memslot::{Backing, Slot, SlotId};
use crate::stage2::View;

/// Frames that are asked back when a fault found none: a page, and its tables.
const RELIEF: u64 = 16;

bitflags! {
    /// Why an access of the guest goes to the owner. The value is that of `KVM_MEMORY_EXIT_FLAG_USERFAULT`, as proposed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MemoryFaultFlags: u64 {
        /// The page is delegated.
        const USERFAULT = 1 << 4;
    }
}

/// An access of the guest that its owner is to resolve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryFault {
    /// The page.
    pub addr: GuestPhysAddr,
    /// Bytes that wait: a page.
    pub size: u64,
    /// How it was touched.
    pub access: Access,
    /// Why this is not resolved here.
    pub flags: MemoryFaultFlags,
    /// Missing, or in the object's cache already.
    pub kind: TrapKind,
    /// In which slot.
    pub slot: SlotId,
    /// Which byte of the object the page begins with.
    pub offset: u64,
}

/// How a violation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The guest executes the access again.
    Retry,
    /// No slot has the address.
    Unbacked,
    /// A store to a slot that is read-only.
    ReadOnly,
    /// The owner resolves it, and has the guest execute the access again.
    Delegated(MemoryFault),
    /// The access cannot go on.
    Failed(FaultError),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry => f.write_str("the access can be executed again"),
            Self::Unbacked => f.write_str("no slot is there"),
            Self::ReadOnly => f.write_str("the slot is read-only"),
            Self::Delegated(fault) => write!(f, "slot {} delegates the page", fault.slot),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Who is told about delegated accesses of a slot.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The owner of the vCPU, by [`Outcome::Delegated`].
    Exit,
    /// Whoever reads this context ([`Uffd::for_guest`](kernel::uffd::Uffd::for_guest)); the vCPU's task sleeps meanwhile.
    Message(Arc<Ctx>),
}

/// What of a slot is delegated, and how.
#[derive(Clone, Debug)]
pub struct Userfaults {
    /// A bit for each page of the slot; set: accesses are delegated. The owner clears it.
    pub bitmap: Arc<Bitmap>,
    /// Who is told.
    pub delivery: Delivery,
}

/// Why a page is not mapped, or not yet.
enum Stop {
    /// Look again from the start.
    Again,
    Outcome(Outcome),
}

impl From<FaultError> for Stop {
    fn from(error: FaultError) -> Self {
        Self::Outcome(Outcome::Failed(error))
    }
}

/// Why there is no leaf, found with the tables locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// The slot is not part of the set any more.
    Gone,
    /// It is a store, and the slot is read-only.
    ReadOnly,
    /// No frame for the tables.
    OutOfFrames,
}

impl From<OutOfFrames> for Refused {
    fn from(_: OutOfFrames) -> Self {
        Self::OutOfFrames
    }
}

impl From<Refused> for Stop {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Gone => Self::Again,
            Refused::ReadOnly => Self::Outcome(Outcome::ReadOnly),
            Refused::OutOfFrames => FaultError::OutOfMemory.into(),
        }
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> GuestMemory<F> {
    /// Resolves a violation, as far as it can be; may sleep. No lock is held.
    #[inline]
    pub fn resolve(&self, violation: &Violation) -> Outcome {
        self.touch_in(View::at(violation.root), violation.addr, violation.access)
    }

    /// Resolves an access of the guest to `addr`, as [`Self::resolve`], in the view in which delegated pages are absent.
    pub fn touch(&self, addr: GuestPhysAddr, access: Access) -> Outcome {
        self.touch_in(View::Delegating, addr, access)
    }

    #[inline]
    fn touch_in(&self, view: View, addr: GuestPhysAddr, access: Access) -> Outcome {
        match self.step(view, addr, access) {
            Ok(()) => Outcome::Retry,
            Err(stop) => self.go_on(view, addr, access, stop),
        }
    }

    /// Goes on after a look that did not map the page: looks again, unless that is the end of it.
    #[inline(never)]
    fn go_on(&self, view: View, addr: GuestPhysAddr, access: Access, mut stop: Stop) -> Outcome {
        loop {
            match stop {
                Stop::Again => {}
                // Nobody else's fault: look again once somebody has given memory back.
                Stop::Outcome(Outcome::Failed(FaultError::OutOfMemory)) if pressure::relieve(RELIEF) => {}
                Stop::Outcome(outcome) => return outcome,
            }
            match self.step(view, addr, access) {
                Ok(()) => return Outcome::Retry,
                Err(next) => stop = next,
            }
        }
    }

    /// Looks at the slot once; may sleep.
    #[inline(never)]
    fn step(&self, view: View, addr: GuestPhysAddr, access: Access) -> Result<(), Stop> {
        let slot = self.find(addr).ok_or(Stop::Outcome(Outcome::Unbacked))?;
        match &slot.backing {
            Backing::Space { space, addr: first } => {
                let host = *first + slot.offset(addr);
                self.step_in_space(&slot, space, host, addr, access)
            }
            Backing::Object { object, offset, .. } => {
                self.step_in_object(&slot, object, offset + slot.offset(addr), view, addr, access)
            }
        }
    }

    /// Looks at the space, and maps what its entry allows. What it does not allow is a fault of the space's, which may sleep;
    /// then the space is looked at again, unless the slot has gone meanwhile.
    #[inline]
    fn step_in_space(
        &self,
        slot: &Slot<F>,
        space: &Space,
        host: VirtAddr,
        addr: GuestPhysAddr,
        access: Access,
    ) -> Result<(), Stop> {
        let store = access == Access::Write;
        if store && slot.is_read_only() {
            return Err(Stop::Outcome(Outcome::ReadOnly));
        }
        let info = FaultInfo {
            addr: host,
            // What the guest executes, the host reads.
            access: if store { Access::Write } else { Access::Read },
            origin: Origin::Kernel,
        };
        loop {
            match space.show(&info, |present| {
                self.map_present(slot, present, host, addr, store)
            }) {
                Ok(mapped) => return Ok(mapped?),
                Err(verdict) => fault::settle(verdict, &info)?,
            }
            if !slot.is_live() {
                return Err(Stop::Again);
            }
        }
    }

    /// Maps a page of the slot's space, which is locked.
    #[inline]
    fn map_present(
        &self,
        slot: &Slot<F>,
        present: &Present,
        host: VirtAddr,
        addr: GuestPhysAddr,
        store: bool,
    ) -> Result<(), Refused> {
        let mut tables = slot.stage2().lock();
        let prot = slot.rights(present.prot, store, self.logs_by_dirty_bit())?;
        if present.level == Level::PAGE {
            tables.map_page(addr, present.frame, prot)?;
        } else {
            let max = if slot.is_logging() {
                Level::PAGE
            } else {
                Level::UPPER
            };
            tables.map_run(addr, &slot.run_of(present, host, addr), max, prot)?;
        }
        slot.note_store_to(addr, store);
        Ok(())
    }

    /// Looks at the object once: delegates, or maps what it has.
    #[inline(never)]
    fn step_in_object(
        &self,
        slot: &Slot<F>,
        object: &Object,
        offset: u64,
        view: View,
        addr: GuestPhysAddr,
        access: Access,
    ) -> Result<(), Stop> {
        let store = access == Access::Write;
        let offset = offset - offset % PAGE_SIZE;
        let mut tables = slot.stage2().lock();
        let prot = slot.rights(Prot::READ | Prot::WRITE, store, self.logs_by_dirty_bit())?;
        if tables.is_poisoned(addr) {
            return Err(FaultError::Poisoned.into());
        }
        // The bit before the cache: whoever clears it has filled the cache by then.
        let delegated = slot
            .userfaults()
            .filter(|userfaults| userfaults.bitmap.is_set(slot.page(addr)));
        if let Some(userfaults) = delegated {
            if view == View::Cached
                && slot.is_convertible(addr)
                && let Lookup::Present(folio) = object.lookup(offset)
            {
                tables
                    .map_in_cached_view(addr, folio, prot)
                    .map_err(Refused::from)?;
                slot.note_store_to(addr, store);
                return Ok(());
            }
            let cache = match object.presence(offset) {
                Presence::BeyondEnd => return Err(FaultError::BeyondEnd.into()),
                Presence::Absent => CacheState::Absent,
                Presence::Present => CacheState::Present,
            };
            drop(tables);
            return self.delegate_access(slot, userfaults, cache, offset, addr, access);
        }
        let folio = match object.lookup(offset) {
            Lookup::Present(folio) => folio,
            Lookup::Absent => {
                drop(tables);
                fill_hole(object, offset)?;
                return Err(Stop::Again);
            }
            Lookup::BeyondEnd => return Err(FaultError::BeyondEnd.into()),
        };
        tables.map_owned(addr, folio, prot).map_err(Refused::from)?;
        slot.note_store_to(addr, store);
        Ok(())
    }

    /// Tells whoever serves the slot.
    fn delegate_access(
        &self,
        slot: &Slot<F>,
        userfaults: &Userfaults,
        cache: CacheState,
        offset: u64,
        addr: GuestPhysAddr,
        access: Access,
    ) -> Result<(), Stop> {
        let kind = match cache {
            CacheState::Absent => TrapKind::Missing,
            CacheState::Present => TrapKind::Minor,
        };
        match &userfaults.delivery {
            Delivery::Message(ctx) => {
                let fault = GuestFault {
                    addr,
                    access,
                    cache,
                    origin: Origin::Kernel,
                };
                let still = || slot.is_live() && slot.delegates(addr);
                ctx.guest_fault(&fault, &task::current(), still)?;
                Err(Stop::Again)
            }
            Delivery::Exit => Err(Stop::Outcome(Outcome::Delegated(MemoryFault {
                addr: addr.align_down(PAGE_SIZE),
                size: PAGE_SIZE,
                access,
                flags: MemoryFaultFlags::USERFAULT,
                kind,
                slot: slot.id,
                offset,
            }))),
        }
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Slot<F> {
    /// What a leaf may allow whose page may be used as `backed` says, for an access that is a store or none. The tables are
    /// locked.
    #[inline]
    fn rights(&self, backed: Prot, store: bool, by_dirty_bit: bool) -> Result<Prot, Refused> {
        if !self.is_live() {
            return Err(Refused::Gone);
        }
        if store && self.is_read_only() {
            return Err(Refused::ReadOnly);
        }
        Ok(self.allowed(backed, store, by_dirty_bit))
    }

    /// The same for a slot that allows the access. The tables are locked.
    pub(crate) fn allowed(&self, backed: Prot, store: bool, by_dirty_bit: bool) -> Prot {
        let mut prot = backed | Prot::EXEC;
        // A store that is to be noted without the CPU's help has to come here.
        let unnoted = !store && !by_dirty_bit && self.is_logging();
        if self.is_read_only() || unnoted {
            prot -= Prot::WRITE;
        }
        prot
    }

    /// Notes the store that the page at `addr` was mapped for, if it was one. The tables are locked.
    fn note_store_to(&self, addr: GuestPhysAddr, store: bool) {
        if store {
            self.note_stores(GuestRange::page(addr.align_down(PAGE_SIZE)));
        }
    }
}

/// Puts a page of zeros into a hole of the object. When this returns without an error, something has changed there.
fn fill_hole(object: &Object, offset: u64) -> Result<(), FaultError> {
    let mut frame = object.ty().alloc()?;
    phys::zero(&mut frame);
    match object.insert(offset, Folio::from(frame)) {
        Ok(()) | Err(CacheError::Exists(_)) => Ok(()),
        Err(CacheError::BeyondEnd(_)) => Err(FaultError::BeyondEnd),
        Err(CacheError::OutOfMemory(_)) => Err(FaultError::OutOfMemory),
        Err(CacheError::NoSpace(_)) => Err(FaultError::NoSpace),
    }
}
