//! Translations that others derive from the space's own: the stage-2 tables of guests whose memory lies here.
//!
//! ```text
//!   show ── entry allows the access, or is filled ──► the view writes its translation      areas shared, table locked
//!   entry restricted ──► Flush ──► Space::invalidate ──► every view's take_away            before a frame is let go of
//! ```
//!
//! A view's translation owns no reference to the page. It is made while the space's table is locked and the entry allows
//! it, and **every** change that takes a translation of the space away, narrows it or replaces its page spends a
//! [`Flush`](crate::mm::pt::Flush) on the space: the views are told there, before the flush lets go of the page. So no
//! sequence counter is needed, and a view that was told has nothing that the entries do not have.
//!
//! | what is done to the space | whose flush |
//! | --- | --- |
//! | copy-on-write by a fault | `Cursor::replace`, with the table locked |
//! | DONTNEED, FREE, guards, WRITEPROTECT, noted stores protected again | `Space::change` |
//! | truncate, holes punched: the space as a view of the object | `Space::zap`, by `Space::change` |
//! | MOVE, mremap | `Route::land`, with the table locked |
//! | munmap, a mapping over another | `Space::clear` |
//! | mprotect | `Space::protect`, by `Space::change` |
//! | fork, which write-protects the parent | `Space::copy_into` |
//! | a large leaf that is split | the flush of whoever splits it |
//!
//! The end of a space is not among them: whoever has a view holds the space.
//!
//! **Locks.** A view is told with the list of views locked, and possibly with the space's table locked. It may take the
//! locks of its own tables, which come after both, and must not come back to the space.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::mm::cache::NoRoomForView;
use crate::mm::fault::{Access, FaultError, FaultInfo, Verdict};
use crate::mm::frame::Folio;
use crate::mm::pt::{AttrFlags, Entry, Glance, Level, PageTable, Prot};
use crate::mm::range::VirtRange;
use crate::mm::reserve::reserve;
use crate::mm::vma::Vma;
use crate::sync::{SpinGuard, SpinLock};
use crate::task;

/// Who has translations that were derived from those of a space.
pub trait SecondaryView: Send + Sync {
    /// Takes away what was derived for `range`; returns when nobody can use it any more.
    fn take_away(&self, range: VirtRange);
}

/// The views of a space.
#[derive(Default)]
pub(super) struct SecondaryViews {
    /// How many there are: all that whoever flushes looks at while there are none.
    count: AtomicUsize,
    all: SpinLock<Vec<Arc<dyn SecondaryView>>>,
}

impl fmt::Debug for SecondaryViews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondaryViews")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl SecondaryViews {
    /// Has every view take away what it has for `range`.
    #[inline]
    pub(super) fn take_away(&self, range: VirtRange) {
        // Whoever derived something did so under the lock of the table, which whoever restricts has had since.
        if self.count.load(Ordering::Acquire) != 0 {
            self.tell(range);
        }
    }

    #[cold]
    fn tell(&self, range: VirtRange) {
        for view in self.all.lock().iter() {
            view.take_away(range);
        }
    }
}

/// A page of the space, as [`Space::show`] shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// First frame of the leaf.
    pub frame: Pfn,
    /// Where the leaf begins.
    pub start: VirtAddr,
    /// How large it is.
    pub level: Level,
    /// What may be derived: reading, and writing where that needs to be noted no more.
    pub prot: Prot,
}

/// A page that somebody writes to past all tables, a device or a CPU: its frame is not given to anybody else before this is
/// dropped.
#[derive(Debug)]
pub struct Pinned {
    folio: Folio,
    frame: Pfn,
}

impl Pinned {
    /// A page that is a folio of its own.
    pub fn whole(folio: Folio) -> Self {
        Self {
            frame: folio.pfn(),
            folio,
        }
    }

    /// The page itself.
    pub fn frame(&self) -> Pfn {
        self.frame
    }

    /// Owners of the block that the page is part of.
    pub fn owners(&self) -> u32 {
        self.folio.owners()
    }
}

impl Space {
    /// The page at `addr`, if its entry allows stores now. The space may get another page there meanwhile, by copy-on-write or
    /// DONTNEED for example: a pin keeps the frame, not the mapping.
    pub fn pin(&self, addr: VirtAddr) -> Option<Pinned> {
        let page = addr.align_down(PAGE_SIZE);
        let _vmas = self.vmas.read();
        let mut table = self.table.lock();
        let mut cursor = table.cursor_at(page);
        let (Entry::Leaf(leaf), level) = cursor.entry() else {
            return None;
        };
        if !leaf.prot.contains(Prot::WRITE) {
            return None;
        }
        let number = (page.as_u64() & (level.size() - 1)) / PAGE_SIZE;
        cursor.note(AttrFlags::ACCESSED | AttrFlags::DIRTY);
        Some(Pinned {
            folio: cursor.share()?,
            frame: leaf.frame.offset(number),
        })
    }

    /// Has `view` told of everything that is taken away from now on, until [`Self::detach_secondary`].
    ///
    /// # Errors
    /// No kernel memory.
    pub fn attach_secondary(&self, view: Arc<dyn SecondaryView>) -> Result<(), NoRoomForView> {
        let mut all = self.secondary.all.lock();
        reserve(&mut all, 1).map_err(|_| NoRoomForView)?;
        all.push(view);
        self.secondary.count.store(all.len(), Ordering::Release);
        Ok(())
    }

    /// The view, which has nothing any more and will derive nothing, is not told again.
    pub fn detach_secondary(&self, view: &Arc<dyn SecondaryView>) {
        let mut all = self.secondary.all.lock();
        let place = all.iter().position(|other| Arc::ptr_eq(other, view));
        let removed = place.map(|place| all.swap_remove(place));
        self.secondary.count.store(all.len(), Ordering::Release);
        drop(all);
        // The last owner may be this one: not under the lock.
        drop(removed);
    }

    /// Has whoever waits for a page in `range` look again: the one who touched it may have nothing to do with it any more.
    pub fn stir_waiters(&self, range: VirtRange) {
        let vmas = self.vmas.read();
        for registration in vmas.overlapping(range).filter_map(|vma| vma.uffd.as_ref()) {
            registration.ctx.stir(range);
        }
    }

    /// Shows the page at the address in `info` to `derive` if its entry allows the access, or once it does because a fault has
    /// filled it in the same look; otherwise comes to what became of the fault, to be [settled](crate::mm::fault::settle).
    /// What an area forbids is not shown, whatever the entry says. Guests execute what the host may read: their fetches are
    /// asked about as loads.
    ///
    /// The page counts as used. It may be written if the access is a store, and counts as written then; or if it counts as
    /// written already. So a protected, forked or read-only page is never shown as writable.
    ///
    /// The areas and the table are locked while `derive` runs, and no more when this returns.
    ///
    /// # Errors
    /// The verdict, when nothing was derived. [`Verdict::Resolved`] and [`Verdict::Retry`] say: look again.
    #[inline]
    pub fn show<R>(&self, info: &FaultInfo, derive: impl FnOnce(&Present) -> R) -> Result<R, Verdict> {
        let vmas = self.vmas.read();
        let Some(area) = vmas.find(info.addr) else {
            return Err(self.failed(FaultError::Unmapped));
        };
        if !area.allows(info.access) || area.ty.is_secret() {
            return Err(self.failed(FaultError::Forbidden));
        }
        if area.may_begin_own_pages(info.access) {
            self.begin_own_pages(&vmas, area, info.addr.align_down(PAGE_SIZE));
        }
        let table = self.table.lock();
        let (page, _table) = match plainly_present(area, &table, info) {
            Some(page) => (page, table),
            None => self.look_closer(area, info, table)?,
        };
        Ok(derive(&page))
    }

    /// The rest of [`Self::show`] when it is not seen at a glance that the entry allows the access.
    #[inline(never)]
    fn look_closer<'a>(
        &self,
        area: &Vma,
        info: &FaultInfo,
        mut table: Table<'a>,
    ) -> Result<(Present, Table<'a>), Verdict> {
        let glance = table.glance(info.addr.align_down(PAGE_SIZE));
        if glance != Glance::Vacant
            && let Some(page) = present(area, &mut table, info)
        {
            return Ok((page, table));
        }
        let mut table = self.step_to_entry(area, info, &task::current(), glance, table)?;
        let page = match plainly_present(area, &table, info) {
            Some(page) => page,
            None => present(area, &mut table, info).ok_or(Verdict::Resolved)?,
        };
        Ok((page, table))
    }

    /// A fault that ended before the entry was looked at.
    #[cold]
    fn failed(&self, why: FaultError) -> Verdict {
        self.faults.fetch_add(1, Ordering::Relaxed);
        Verdict::Failed(why)
    }
}

/// The table of a space, locked.
type Table<'a> = SpinGuard<'a, PageTable<Stage1>>;

/// What an entry has that need not be changed for any access: the rights, and what it has noted.
const OPEN: Prot = Prot::READ.union(Prot::WRITE);
const NOTED: AttrFlags = AttrFlags::ACCESSED.union(AttrFlags::DIRTY);

/// The page that was touched, if it is seen at a glance that any access is allowed, and would note nothing new.
#[inline(always)]
fn plainly_present(area: &Vma, table: &PageTable<Stage1>, info: &FaultInfo) -> Option<Present> {
    let start = info.addr.align_down(PAGE_SIZE);
    let frame = table.glance_at_frame(start, OPEN, NOTED)?;
    Some(Present {
        frame,
        start,
        level: Level::PAGE,
        prot: OPEN & area.prot,
    })
}

/// The page that was touched, if its entry allows the access, which it notes.
#[inline]
fn present(area: &Vma, table: &mut PageTable<Stage1>, info: &FaultInfo) -> Option<Present> {
    let store = info.access == Access::Write;
    let (right, noted) = if store {
        (OPEN, NOTED)
    } else {
        (Prot::READ, AttrFlags::ACCESSED)
    };
    let mut cursor = table.cursor_at(info.addr.align_down(PAGE_SIZE));
    let (Entry::Leaf(leaf), level) = cursor.entry() else {
        return None;
    };
    if !leaf.prot.contains(right) {
        return None;
    }
    if !leaf.attr.flags.contains(noted) {
        cursor.note(noted);
    }
    let mut prot = leaf.prot & area.prot & OPEN;
    if !store && !leaf.attr.flags.contains(AttrFlags::DIRTY) {
        prot -= Prot::WRITE;
    }
    Some(Present {
        frame: leaf.frame,
        start: info.addr.align_down(level.size()),
        level,
        prot,
    })
}
