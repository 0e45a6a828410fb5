//! Memslots: which memory backs which guest-physical addresses.
//!
//! | backing | the guest's leaf | who takes it away |
//! | --- | --- | --- |
//! | [`Backing::Space`]: a range of an address space of the host | borrowed: made from the space's own entry | the space's flushes ([`SecondaryView`]) |
//! | [`Backing::Object`]: part of a memory object, a guest_memfd | owns the page, like the object's cache | the object ([`View`]) |
//!
//! A slot of the first kind shows the guest what the host's tasks see there, faults of the space included. A slot of the
//! second kind shows it the object, whatever the host maps of it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, USER_TOP, VirtAddr};
use kernel::mm::cache::{NoRoomForView, Object, ObjectRange, Taken, View};
use kernel::mm::memtype::Granule;
use kernel::mm::pt::{AttrFlags, Marker, PtFormat};
use kernel::mm::range::{GuestRange, VirtRange};
use kernel::mm::space::{Present, SecondaryView, Space};
use kernel::sync::SpinLock;

use crate::bitmap::Bitmap;
use crate::stage2::{Run, Stage2};
use crate::userfault::Userfaults;

/// Number of a slot; a virtual machine never uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(pub(crate) u32);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a slot shows to the guest.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Memory of an address space. Faults go through its areas, and hence through any userfault registration on them.
    Space {
        /// The space.
        space: Arc<Space>,
        /// Where it begins there.
        addr: VirtAddr,
    },
    /// Part of a memory object.
    Object {
        /// The object.
        object: Arc<Object>,
        /// Which of its bytes it begins with.
        offset: u64,
        /// Which accesses are delegated, and to whom; `None`: none is, and holes are zeros.
        userfaults: Option<Userfaults>,
    },
}

/// A slot that is asked for.
#[derive(Clone, Debug)]
pub struct SlotRequest {
    /// Where the guest sees it.
    pub at: GuestPhysAddr,
    /// Bytes.
    pub len: u64,
    /// What it sees.
    pub backing: Backing,
    /// Whether the guest's stores are refused.
    pub read_only: bool,
    /// Whether the pages that the guest stores to are noted.
    pub log_dirty: bool,
}

/// Why there is no such slot; nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// It has no bytes.
    Empty,
    /// An address, an offset or the length is no multiple of the page size.
    Misaligned,
    /// It ends past the last address there is.
    Wraps,
    /// It ends past what the CPU's stage 2 translates.
    TooWide {
        /// Bits of a guest-physical address.
        bits: u8,
    },
    /// It shares an address with this slot.
    Overlaps(SlotId),
    /// The backing range is not one of tasks.
    BadBacking,
    /// Nothing is mapped in the space at this address of the range.
    NotMapped(VirtAddr),
    /// The object ends before the slot does.
    BeyondObject,
    /// Objects in huge pages back a slot through a mapping, not by themselves.
    HugeObject,
    /// A userfault bitmap has too few bits for the slot.
    ShortBitmap,
    /// There is no slot with this number.
    NoSuchSlot,
    /// The memory of the virtual machine is closed.
    Closed,
    /// No kernel memory.
    OutOfMemory,
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the slot is empty"),
            Self::Misaligned => f.write_str("the slot does not begin and end between pages"),
            Self::Wraps => f.write_str("the slot ends past the last address"),
            Self::TooWide { bits } => {
                write!(f, "the slot ends past the guest's {bits}-bit physical addresses")
            }
            Self::Overlaps(slot) => write!(f, "the slot overlaps slot {slot}"),
            Self::BadBacking => f.write_str("the memory behind the slot is not the tasks'"),
            Self::NotMapped(addr) => write!(f, "nothing is mapped at {addr}, behind the slot"),
            Self::BeyondObject => f.write_str("the object behind the slot is too short"),
            Self::HugeObject => f.write_str("an object in huge pages backs a slot only through a mapping"),
            Self::ShortBitmap => f.write_str("the userfault bitmap is shorter than the slot"),
            Self::NoSuchSlot => f.write_str("there is no such slot"),
            Self::Closed => f.write_str("the guest's memory is closed"),
            Self::OutOfMemory => f.write_str("no kernel memory is left"),
        }
    }
}

impl From<NoRoomForView> for SlotError {
    fn from(_: NoRoomForView) -> Self {
        Self::OutOfMemory
    }
}

impl SlotRequest {
    /// What `space` has in `range`, seen at `at`; the guest may store to it, and that is not noted.
    pub fn of_space(at: GuestPhysAddr, space: &Arc<Space>, range: VirtRange) -> Self {
        Self {
            at,
            len: range.len(),
            backing: Backing::Space {
                space: Arc::clone(space),
                addr: range.start,
            },
            read_only: false,
            log_dirty: false,
        }
    }

    /// All of `object`, seen at `at`; the guest may store to it, and that is not noted.
    pub fn of_object(at: GuestPhysAddr, object: &Arc<Object>, userfaults: Option<Userfaults>) -> Self {
        Self {
            at,
            len: object.size(),
            backing: Backing::Object {
                object: Arc::clone(object),
                offset: 0,
                userfaults,
            },
            read_only: false,
            log_dirty: false,
        }
    }

    /// The range for the guest, if the request makes sense in itself.
    pub(crate) fn checked(&self, bits: u8) -> Result<GuestRange, SlotError> {
        let start = match &self.backing {
            Backing::Space { addr, .. } => addr.as_u64(),
            Backing::Object { offset, .. } => *offset,
        };
        if self.len == 0 {
            return Err(SlotError::Empty);
        }
        if !(self.at.as_u64() | self.len | start).is_multiple_of(PAGE_SIZE) {
            return Err(SlotError::Misaligned);
        }
        let range = GuestRange::from_len(self.at, self.len).ok_or(SlotError::Wraps)?;
        let end = start.checked_add(self.len).ok_or(SlotError::Wraps)?;
        if range.end.as_u64() > 1 << bits {
            return Err(SlotError::TooWide { bits });
        }
        match &self.backing {
            Backing::Space { space, addr } => {
                let range = VirtRange::new(*addr, VirtAddr::new(end));
                if range.end > USER_TOP {
                    return Err(SlotError::BadBacking);
                }
                first_hole(space, range).map_or(Ok(()), |addr| Err(SlotError::NotMapped(addr)))?;
            }
            Backing::Object {
                object, userfaults, ..
            } => {
                if object.ty().granule() != Granule::Base {
                    return Err(SlotError::HugeObject);
                }
                if end > object.size() {
                    return Err(SlotError::BeyondObject);
                }
                let pages = self.len / PAGE_SIZE;
                if userfaults.as_ref().is_some_and(|some| some.bitmap.len() < pages) {
                    return Err(SlotError::ShortBitmap);
                }
            }
        }
        Ok(range)
    }
}

/// The first address of `range` at which the space has nothing.
fn first_hole(space: &Space, range: VirtRange) -> Option<VirtAddr> {
    let mut at = range.start;
    while at < range.end {
        match space.query(at) {
            Some(vma) => at = vma.range.end,
            None => return Some(at),
        }
    }
    None
}

/// A slot. What may change about it changes with the tables locked.
pub(crate) struct Slot<F: PtFormat<Addr = GuestPhysAddr>> {
    pub(crate) id: SlotId,
    pub(crate) range: GuestRange,
    pub(crate) backing: Backing,
    stage2: Arc<Stage2<F>>,
    /// Whether leaves may be made: not before the backing knows of the slot, and not after it was removed.
    live: AtomicBool,
    read_only: AtomicBool,
    /// Pages whose violations are the guest's own business while they are delegated; none before somebody asks for it.
    pub(crate) convertible: SpinLock<Option<Bitmap>>,
    log: SpinLock<Option<Bitmap>>,
    /// Whether there is a log: what a fault looks at while there is none.
    logging: AtomicBool,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> fmt::Debug for Slot<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Slot<F> {
    /// The slot that was asked for, at a range that was checked. Nothing is made of it yet.
    ///
    /// # Errors
    /// [`SlotError::OutOfMemory`].
    pub(crate) fn new(
        id: SlotId,
        range: GuestRange,
        request: SlotRequest,
        stage2: &Arc<Stage2<F>>,
    ) -> Result<Arc<Self>, SlotError> {
        let log = request.log_dirty.then(|| Bitmap::new(range.pages())).transpose();
        Ok(Arc::new(Self {
            id,
            range,
            backing: request.backing,
            stage2: Arc::clone(stage2),
            live: AtomicBool::new(false),
            read_only: AtomicBool::new(request.read_only),
            convertible: SpinLock::new(None),
            logging: AtomicBool::new(request.log_dirty),
            log: SpinLock::new(log.map_err(|_| SlotError::OutOfMemory)?),
        }))
    }

    /// Has the backing tell of what it takes away; leaves may be made from now on.
    ///
    /// # Errors
    /// [`SlotError::OutOfMemory`]; nothing changed.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), SlotError> {
        // First, or the object would be told that nothing is mapped.
        self.live.store(true, Ordering::Release);
        match &self.backing {
            Backing::Space { space, .. } => space.attach_secondary(Arc::clone(self) as _)?,
            Backing::Object { object, .. } => {
                let view = Arc::downgrade(self);
                object.attach(view as _)?;
            }
        }
        Ok(())
    }

    /// Takes all leaves away; none is made any more, and the backing forgets the slot.
    pub(crate) fn stop(self: &Arc<Self>) {
        let mut tables = self.stage2.lock();
        self.live.store(false, Ordering::Release);
        tables.take_away(self.range, |_| Marker::None, |_, _| ());
        tables.forget_markers(self.range, None);
        drop(tables);
        self.detach();
    }

    /// The same for a slot that nobody has found: what the tables have in its range is another's.
    pub(crate) fn give_up(self: &Arc<Self>) {
        self.live.store(false, Ordering::Release);
        self.detach();
    }

    /// A space forgets the slot; an object does so when it asks it next.
    fn detach(self: &Arc<Self>) {
        if let Backing::Space { space, .. } = &self.backing {
            space.detach_secondary(&(Arc::clone(self) as _));
        }
    }

    /// The tables that it is mapped in.
    pub(crate) fn stage2(&self) -> &Stage2<F> {
        &self.stage2
    }

    /// Whether leaves may be made. Stays so while the tables are locked.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether the guest's stores are refused. Stays so while the tables are locked.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// Lets the guest store, or refuses it from now on.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let mut tables = self.stage2.lock();
        self.read_only.store(read_only, Ordering::Release);
        if read_only {
            tables.clean(self.range, false, |pages| self.note_stores(pages));
        }
    }

    /// How many bytes into the slot `addr` is, which lies in it.
    pub(crate) fn offset(&self, addr: GuestPhysAddr) -> u64 {
        addr - self.range.start
    }

    /// What a leaf of the slot's space, in which `addr` is at `host`, has for the guest: the part of it that lies in the
    /// slot.
    pub(crate) fn run_of(&self, present: &Present, host: VirtAddr, addr: GuestPhysAddr) -> Run {
        let before = (host - present.start).min(self.offset(addr));
        let start = addr - before;
        let behind = (present.start + present.level.size()) - host;
        let end = addr + behind.min(self.range.end - addr);
        let frames = (host - before - present.start) / PAGE_SIZE;
        Run {
            range: GuestRange::new(start, end),
            frame: present.frame.offset(frames),
        }
    }

    /// The number of the page at `addr` in the slot's bitmaps.
    pub(crate) fn page(&self, addr: GuestPhysAddr) -> u64 {
        self.offset(addr) / PAGE_SIZE
    }

    /// Who is asked about accesses of the slot's delegated pages.
    pub(crate) fn userfaults(&self) -> Option<&Userfaults> {
        match &self.backing {
            Backing::Object { userfaults, .. } => userfaults.as_ref(),
            Backing::Space { .. } => None,
        }
    }

    /// Whether accesses of the page at `addr` are delegated.
    pub(crate) fn delegates(&self, addr: GuestPhysAddr) -> bool {
        self.userfaults()
            .is_some_and(|userfaults| userfaults.bitmap.is_set(self.page(addr)))
    }

    /// Whether stores are noted. Stays so while the tables are locked.
    #[inline]
    pub(crate) fn is_logging(&self) -> bool {
        self.logging.load(Ordering::Acquire)
    }

    /// Notes stores to the part of `pages` that lies in the slot, if they are to be noted.
    #[inline]
    pub(crate) fn note_stores(&self, pages: GuestRange) {
        if self.is_logging() {
            self.note_in_log(pages);
        }
    }

    #[cold]
    fn note_in_log(&self, pages: GuestRange) {
        if let Some(log) = &*self.log.lock()
            && let Some(part) = pages.intersect(&self.range)
        {
            let first = self.page(part.start);
            (first..first + part.pages()).for_each(|page| log.set(page));
        }
    }

    /// Notes stores from now on, or not any more.
    ///
    /// # Errors
    /// [`SlotError::OutOfMemory`]; nothing changed.
    pub(crate) fn set_logging(&self, on: bool) -> Result<(), SlotError> {
        let fresh = on.then(|| Bitmap::new(self.range.pages())).transpose();
        let fresh = fresh.map_err(|_| SlotError::OutOfMemory)?;
        let mut tables = self.stage2.lock();
        let mut log = self.log.lock();
        if log.is_some() == on {
            return Ok(());
        }
        let old = core::mem::replace(&mut *log, fresh);
        self.logging.store(on, Ordering::Release);
        drop(log);
        if on {
            // Pages are noted one by one: what is mapped in larger leaves, or may be stored to, comes back by faults.
            tables.take_away(self.range, |page| self.marker(page), |_, _| ());
        }
        drop(tables);
        drop(old);
        Ok(())
    }

    /// The pages that were stored to since this was asked last, a bit each; they are watched again. `None` when stores are
    /// not noted.
    ///
    /// # Errors
    /// [`SlotError::OutOfMemory`]; nothing changed.
    pub(crate) fn take_dirty(&self, by_dirty_bit: bool) -> Result<Option<Vec<u64>>, SlotError> {
        let mut words = Vec::new();
        words
            .try_reserve_exact(self.range.pages().div_ceil(64) as usize)
            .map_err(|_| SlotError::OutOfMemory)?;
        let mut tables = self.stage2.lock();
        if !self.is_logging() {
            return Ok(None);
        }
        tables.clean(self.range, by_dirty_bit, |pages| self.note_stores(pages));
        if let Some(log) = &*self.log.lock() {
            log.take(&mut words);
        }
        Ok(Some(words))
    }

    /// Delegates the pages of `part`, which lies in the slot, if it has a userfault bitmap.
    pub(crate) fn delegate(&self, part: GuestRange) {
        let Some(userfaults) = self.userfaults() else {
            return;
        };
        // First: who maps a page afterwards has seen its bit.
        let first = self.page(part.start);
        (first..first + part.pages()).for_each(|page| userfaults.bitmap.set(page));
        self.lose(self.offset(part.start), self.offset(part.end));
    }

    /// Takes the leaves away that have a page in `[from, to)` of the backing, counted from where the slot begins.
    fn lose(&self, from: u64, to: u64) {
        let len = self.range.len();
        let (from, to) = (from.min(len), to.min(len));
        let part = GuestRange::new(self.range.start + from, self.range.start + to);
        if part.is_empty() {
            return;
        }
        let note = |pages, flags: AttrFlags| {
            if flags.contains(AttrFlags::DIRTY) {
                self.note_stores(pages);
            }
        };
        self.stage2.lock().take_away(part, |page| self.marker(page), note);
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> SecondaryView for Slot<F> {
    fn take_away(&self, range: VirtRange) {
        if let Backing::Space { addr, .. } = &self.backing {
            let from_start = |at: VirtAddr| at.as_u64().saturating_sub(addr.as_u64());
            self.lose(from_start(range.start), from_start(range.end));
        }
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> View for Slot<F> {
    fn take_away(&self, object: &Object, range: ObjectRange, _: Taken) -> bool {
        let Backing::Object {
            object: own, offset, ..
        } = &self.backing
        else {
            return false;
        };
        if !self.is_live() || !core::ptr::eq(&raw const **own, object) {
            return false;
        }
        let from_start = |at: u64| at.saturating_sub(*offset);
        self.lose(from_start(range.start), from_start(range.end));
        true
    }
}
