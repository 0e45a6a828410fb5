//! One step of a page fault: look at the area and the entry, then resolve or delegate.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Space, write_protect};
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::mm::cache::{CacheError, Claim, Lookup, Presence};
use crate::mm::fault::{Access, FaultError, FaultInfo, Verdict};
use crate::mm::frame::{Anon, Folio, Frame};
use crate::mm::kernel;
use crate::mm::memtype::{AllocError, Granule, Modes, Privately};
use crate::mm::phys;
use crate::mm::pt::{
    Attr, AttrFlags, Cursor, Entry, Flush, Glance, InstallError, Leaf, Level, Marker, PageTable, Prot,
};
use crate::mm::range::VirtRange;
use crate::mm::vma::{Backing, Registration, Sharing, Vma, VmaSet};
use crate::sync::SpinGuard;
use crate::task::Task;
use crate::uffd::{Admission, CacheState, EntryState, Fault, TrapKind, classify};

impl Space {
    /// Looks at a fault once. All guards are dropped when this returns.
    #[inline(always)]
    pub fn step(&self, info: &FaultInfo, task: &Arc<Task>) -> Verdict {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let page = info.addr.align_down(PAGE_SIZE);
        let vmas = self.vmas.read();
        let Some(vma) = vmas.find(page) else {
            drop(vmas);
            return match self.grow_down_to(page) {
                true => Verdict::Retry,
                false => Verdict::Failed(FaultError::Unmapped),
            };
        };
        // Rights first: a forbidden access never reaches a monitor.
        if !vma.allows(info.access) && !vma.yields_to(info.access, info.origin) {
            return Verdict::Failed(FaultError::Forbidden);
        }
        if vma.may_begin_own_pages(info.access) {
            self.begin_own_pages(&vmas, vma, page);
        }
        let mut table = self.table.lock();
        let state = match table.glance(page) {
            Glance::Vacant if vma.backing.is_none() => EntryState::Empty,
            Glance::Vacant if !vma.ty.guest_only => return self.step_at_vacant(vma, info, task, table),
            Glance::Protected => EntryState::Present { uffd_wp: true },
            _ => return self.step_at_entry(vma, info, task, table),
        };
        match trapped(vma, state, CacheState::Absent, info, task) {
            None => {}
            Some(Verdict::Delegated) => {
                // Made anew when the guards are gone: it need not be kept while they go.
                drop(table);
                drop(vmas);
                return Verdict::Delegated;
            }
            Some(verdict) => return verdict,
        }
        if state != EntryState::Empty {
            return self.step_at_protected(vma, info, task, table);
        }
        let mut cursor = table.cursor_at(page);
        self.demand_zero(vma, info.access, AttrFlags::empty(), &mut cursor)
    }

    /// An access to a private area that has had no page of its own yet, which remembers that it gets one. Not where the page is
    /// protected, because that is asked about first, nor where every access fails.
    #[cold]
    #[inline(never)]
    pub(super) fn begin_own_pages(&self, vmas: &VmaSet, vma: &Vma, page: VirtAddr) {
        let asked_first = |leaf: &Leaf| {
            let asks = |uffd: &Registration| uffd.modes.contains(Modes::WP) && !uffd.ctx.tracks_stores();
            leaf.attr.flags.contains(AttrFlags::UFFD_WP) && vma.uffd.as_ref().is_some_and(asks)
        };
        match self.table.lock().lookup(page).0 {
            Entry::Absent(Marker::Poison | Marker::Guard) => {}
            Entry::Leaf(leaf) if asked_first(&leaf) => {}
            _ => vmas.give_own_pages(vma),
        }
    }

    /// [`Self::step`] for somebody who goes by the entries, has found the area, that it allows the access, and what a glance at
    /// the entry shows. Where a vacant entry is filled, the tables are still locked and come back; otherwise the verdict does,
    /// and they are not.
    #[inline]
    pub(super) fn step_to_entry<'a>(
        &self,
        vma: &Vma,
        info: &FaultInfo,
        task: &Arc<Task>,
        glance: Glance,
        mut table: SpinGuard<'a, PageTable<Stage1>>,
    ) -> Result<SpinGuard<'a, PageTable<Stage1>>, Verdict> {
        self.faults.fetch_add(1, Ordering::Relaxed);
        match glance {
            Glance::Vacant if !vma.ty.guest_only => {}
            Glance::Protected => {
                let state = EntryState::Present { uffd_wp: true };
                let trapped = trapped(vma, state, CacheState::Absent, info, task);
                return Err(trapped.unwrap_or_else(|| self.step_at_protected(vma, info, task, table)));
            }
            _ => return Err(self.step_at_entry(vma, info, task, table)),
        }
        let page = info.addr.align_down(PAGE_SIZE);
        if vma.is_mapped_around(info.access) && self.map_around(vma, page, &mut table) {
            return Ok(table);
        }
        let mut cursor = table.cursor_at(page);
        match self.step_at_absent(vma, EntryState::Empty, info, task, &mut cursor) {
            Verdict::Resolved => Ok(table),
            verdict => Err(verdict),
        }
    }

    /// The rest of [`Self::step`] at an entry for a page of an object: a base page, as only those have an entry that is seen
    /// to be vacant.
    #[inline(never)]
    fn step_at_vacant(
        &self,
        vma: &Vma,
        info: &FaultInfo,
        task: &Arc<Task>,
        mut table: SpinGuard<'_, PageTable<Stage1>>,
    ) -> Verdict {
        let page = info.addr.align_down(PAGE_SIZE);
        // Mostly the page is there, and somebody else maps it.
        if let Some(backing) = &vma.backing
            && traps_minor(vma)
        {
            let Some(cache) = presence(vma, backing, page) else {
                return Verdict::Failed(FaultError::BeyondEnd);
            };
            if let Some(verdict) = trapped(vma, EntryState::Empty, cache, info, task) {
                return verdict;
            }
        }
        if vma.is_mapped_around(info.access) && self.map_around(vma, page, &mut table) {
            return Verdict::Resolved;
        }
        let mut cursor = table.cursor_at(page);
        self.step_at_absent(vma, EntryState::Empty, info, task, &mut cursor)
    }

    /// The rest of [`Self::step`] at a protected page that nobody is asked about: a store that is only noted ends the protection.
    #[inline(never)]
    fn step_at_protected(
        &self,
        vma: &Vma,
        info: &FaultInfo,
        task: &Arc<Task>,
        mut table: SpinGuard<'_, PageTable<Stage1>>,
    ) -> Verdict {
        let page = info.addr.align_down(PAGE_SIZE);
        let notes = info.access == Access::Write && traps_writes(vma);
        if notes && table.allow_store(page, write_protect::writable(vma)) {
            return Verdict::Resolved;
        }
        self.step_at_entry(vma, info, task, table)
    }

    /// The rest of [`Self::step`] when something may be in the entry, or in the cache.
    #[inline(never)]
    fn step_at_entry(
        &self,
        vma: &Vma,
        info: &FaultInfo,
        task: &Arc<Task>,
        mut table: SpinGuard<'_, PageTable<Stage1>>,
    ) -> Verdict {
        if vma.ty.guest_only {
            return Verdict::Failed(FaultError::GuestOnly);
        }
        let granule = vma.ty.granule().size();
        let start = info.addr.align_down(granule);
        if vma.is_mapped_around(info.access) && self.map_around(vma, start, &mut table) {
            return Verdict::Resolved;
        }
        let mut cursor = table.cursor(VirtRange::new(start, start + granule));
        let (entry, level) = cursor.entry();
        let leaf = match entry {
            Entry::Absent(Marker::Poison) => return Verdict::Failed(FaultError::Poisoned),
            Entry::Absent(Marker::Guard) => return Verdict::Failed(FaultError::Guard),
            Entry::Absent(marker) => {
                let state = match marker {
                    // Left by a registration whose place another one has taken. Linux forgets it at the first touch, before it
                    // asks anybody for the page; a huge page's stays.
                    Marker::UffdWp if !traps_writes(vma) && vma.ty.granule() == Granule::Base => {
                        cursor.forget_marker();
                        EntryState::Empty
                    }
                    Marker::UffdWp => EntryState::WpMarker,
                    _ => EntryState::Empty,
                };
                return self.step_at_absent(vma, state, info, task, &mut cursor);
            }
            Entry::Table(_) => unreachable!("a node where the area's type has its leaves"),
            Entry::Leaf(leaf) => leaf,
        };
        let state = EntryState::Present {
            uffd_wp: leaf.attr.flags.contains(AttrFlags::UFFD_WP),
        };
        if let Some(verdict) = trapped(vma, state, CacheState::Absent, info, task) {
            return verdict;
        }
        let mut flush = Flush::new();
        let verdict = self.upgrade(vma, info.access, &mut cursor, leaf, level, &mut flush);
        drop(table);
        flush.spend(self);
        verdict
    }

    /// Nothing is mapped at the cursor: look into the cache, then delegate or populate.
    #[inline(always)]
    fn step_at_absent(
        &self,
        vma: &Vma,
        state: EntryState,
        info: &FaultInfo,
        task: &Arc<Task>,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Verdict {
        let mut cached = None;
        let cache = match &vma.backing {
            None => CacheState::Absent,
            // Somebody else is to map a page that is there: that it is there is all that is asked.
            Some(backing) if state == EntryState::Empty && traps_minor(vma) => {
                match presence(vma, backing, cursor.addr()) {
                    Some(cache) => cache,
                    None => return Verdict::Failed(FaultError::BeyondEnd),
                }
            }
            Some(backing) => match vma.ty.lookup(&backing.object, vma.offset_of(cursor.addr())) {
                Lookup::BeyondEnd => return Verdict::Failed(FaultError::BeyondEnd),
                Lookup::Absent => CacheState::Absent,
                Lookup::Present(folio) => {
                    cached = Some(folio);
                    CacheState::Present
                }
            },
        };
        // As on Linux the page is there, still protected, by the time somebody is asked about the store.
        let first = state == EntryState::WpMarker && stops_store(vma, cache, info);
        if !first && let Some(verdict) = trapped(vma, state, cache, info, task) {
            return verdict;
        }
        debug_assert_eq!(
            cache == CacheState::Present,
            cached.is_some(),
            "a minor fault that nobody is asked about"
        );
        // A load of a protected page that is not there: a page, still protected. A store that is only noted ends it.
        let load = info.access != Access::Write;
        let keep = if first || load && state == EntryState::WpMarker && traps_writes(vma) {
            AttrFlags::UFFD_WP
        } else {
            AttrFlags::empty()
        };
        let verdict = match &vma.backing {
            None => self.demand_zero(vma, info.access, keep, cursor),
            Some(backing) => match self.demand_object(vma, backing, cached, info.access, keep, cursor) {
                Ok(()) => Verdict::Resolved,
                Err(error) => Verdict::Failed(error),
            },
        };
        match verdict {
            Verdict::Resolved if first => Verdict::Retry,
            verdict => verdict,
        }
    }

    /// An empty entry of an object's mapping: the page of the cache, or a copy of it where a private mapping is written. A
    /// hole is filled with zeros first, where the type has that.
    #[inline(never)]
    fn demand_object(
        &self,
        vma: &Vma,
        backing: &Backing,
        cached: Option<Folio>,
        access: Access,
        keep: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Result<(), FaultError> {
        let private = backing.sharing == Sharing::Private;
        let folio = match cached {
            Some(folio) => folio,
            None => {
                let (mut frame, claim) = vma.alloc_at(cursor.addr())?;
                phys::zero(&mut frame);
                let page = frame.pfn();
                if private && vma.ty.privately == Privately::Itself {
                    self.map_folio(vma, cursor, frame.into(), access, keep, vma.prot)?;
                    note_used(claim, page);
                    return Ok(());
                }
                let folio = match self.fill_hole(vma, backing, cursor.addr(), frame.into())? {
                    Some(folio) => folio,
                    None => return Ok(()),
                };
                note_used(claim, page);
                folio
            }
        };
        if private && access == Access::Write {
            let (mut copy, claim) = vma.alloc_at(cursor.addr())?;
            phys::copy(&mut copy, &folio);
            let page = copy.pfn();
            self.map_folio(vma, cursor, copy.into(), access, keep, vma.prot)?;
            note_used(claim, page);
            return Ok(());
        }
        // A private mapping asks again before it writes.
        let prot = if private { vma.prot - Prot::WRITE } else { vma.prot };
        self.map_folio(vma, cursor, folio, access, keep, prot)
    }

    /// Puts a page into a hole of the object; `None` when the fault has to be looked at again from the start.
    fn fill_hole(
        &self,
        vma: &Vma,
        backing: &Backing,
        addr: VirtAddr,
        folio: Folio,
    ) -> Result<Option<Folio>, FaultError> {
        let (object, offset) = (&backing.object, vma.offset_of(addr));
        let Err(error) = (vma.ty.cache().insert)(object, offset, folio.clone()) else {
            return Ok(Some(folio));
        };
        match (vma.ty.lookup(object, offset), error) {
            // Another space was faster: the page is trapped or mapped like any that is there.
            (Lookup::Present(_), _) => Ok(None),
            // What was in the way is gone.
            (Lookup::Absent, CacheError::Exists(_) | CacheError::BeyondEnd(_)) => Ok(None),
            (Lookup::Absent, CacheError::OutOfMemory(_)) => Err(FaultError::OutOfMemory),
            (Lookup::Absent, CacheError::NoSpace(_)) => Err(FaultError::NoSpace),
            (Lookup::BeyondEnd, _) => Err(FaultError::BeyondEnd),
        }
    }

    fn map_folio(
        &self,
        vma: &Vma,
        cursor: &mut Cursor<'_, Stage1>,
        folio: Folio,
        access: Access,
        keep: AttrFlags,
        prot: Prot,
    ) -> Result<(), FaultError> {
        let prot = if keep.is_empty() { prot } else { prot - Prot::WRITE };
        let flags = match access {
            Access::Write => written().flags | keep,
            _ => keep,
        };
        let level = vma.ty.granule().level();
        match cursor.install(level, folio, self.leaf_prot(prot), Attr::flags(flags)) {
            Ok(_) | Err(InstallError::Occupied(_)) => Ok(()),
            Err(InstallError::OutOfFrames(_)) => Err(FaultError::OutOfMemory),
        }
    }

    /// An empty entry of anonymous memory: a load gets the shared zero page, a store a page of its own.
    fn demand_zero(
        &self,
        vma: &Vma,
        access: Access,
        keep: AttrFlags,
        cursor: &mut Cursor<'_, Stage1>,
    ) -> Verdict {
        if access != Access::Write {
            let prot = self.leaf_prot(vma.prot - Prot::WRITE);
            let zeros = kernel::get().zero_frame();
            return match cursor.install_borrowed(Level::PAGE, zeros, prot, Attr::flags(keep)) {
                Ok(_) => Verdict::Resolved,
                Err(_) => Verdict::Failed(FaultError::OutOfMemory),
            };
        }
        let Ok(frame) = Frame::<Anon>::alloc_zeroed() else {
            return Verdict::Failed(FaultError::OutOfMemory);
        };
        match self.map_folio(vma, cursor, frame.into(), access, keep, vma.prot) {
            Ok(()) => Verdict::Resolved,
            Err(error) => Verdict::Failed(error),
        }
    }

    /// A mapped page that faulted: either its leaf allows the access by now, or it is written while it may be shared.
    fn upgrade(
        &self,
        vma: &Vma,
        access: Access,
        cursor: &mut Cursor<'_, Stage1>,
        leaf: Leaf,
        level: Level,
        flush: &mut Flush<VirtAddr>,
    ) -> Verdict {
        if leaf.prot.contains(access.right()) {
            return Verdict::Retry;
        }
        if access != Access::Write {
            // The area was given more rights than the leaf has.
            let prot = (vma.prot - Prot::WRITE) | (leaf.prot & Prot::WRITE);
            cursor.rewrite(self.leaf_prot(prot), leaf.attr, flush);
            return Verdict::Resolved;
        }
        debug_assert_eq!(
            level,
            vma.ty.granule().level(),
            "a leaf of another size than its type's"
        );
        if vma.is_shared() {
            cursor.rewrite(self.leaf_prot(vma.prot), stored_to(vma, &leaf), flush);
            return Verdict::Resolved;
        }
        self.copy_on_write(vma, cursor, leaf, flush)
    }

    /// A store to a page that is mapped read-only in a writable area.
    fn copy_on_write(
        &self,
        vma: &Vma,
        cursor: &mut Cursor<'_, Stage1>,
        leaf: Leaf,
        flush: &mut Flush<VirtAddr>,
    ) -> Verdict {
        let prot = self.leaf_prot(vma.prot);
        match self.make_own(vma, cursor, prot, [stored_to(vma, &leaf), written()], flush) {
            Ok(()) => Verdict::Resolved,
            Err(error) => Verdict::Failed(error.into()),
        }
    }

    /// Gives a private mapping a page of its own at the cursor: the one that is there if nobody else has it, or a copy of it. The
    /// attributes are those of the former and the latter.
    pub(super) fn make_own(
        &self,
        vma: &Vma,
        cursor: &mut Cursor<'_, Stage1>,
        prot: Prot,
        [kept, copied]: [Attr; 2],
        flush: &mut Flush<VirtAddr>,
    ) -> Result<(), AllocError> {
        let shared = cursor.share();
        if shared.as_ref().is_some_and(is_nobody_elses) {
            cursor.rewrite(prot, kept, flush);
            return Ok(());
        }
        let (copy, claim) = private_copy(vma, cursor.addr(), shared.as_ref())?;
        let page = copy.pfn();
        cursor.replace(copy, prot, copied, self);
        note_used(claim, page);
        Ok(())
    }
}

/// Whether nobody has a page but the entry that it was just shared from. A page of a cache is never a mapping's own.
pub(super) fn is_nobody_elses(shared: &Folio) -> bool {
    // Two owners: the entry, and the handle just made.
    shared.owners() == 2 && !shared.is_cached()
}

/// Whether the cache has the page at `page`; `None`: it lies beyond the object's end.
#[inline]
fn presence(vma: &Vma, backing: &Backing, page: VirtAddr) -> Option<CacheState> {
    match (vma.ty.cache().presence)(&backing.object, vma.offset_of(page)) {
        Presence::BeyondEnd => None,
        Presence::Absent => Some(CacheState::Absent),
        Presence::Present => Some(CacheState::Present),
    }
}

/// Whether accesses to pages that only the cache has are trapped.
fn traps_minor(vma: &Vma) -> bool {
    vma.uffd
        .as_ref()
        .is_some_and(|registration| registration.modes.contains(Modes::MINOR))
}

/// Whether stores to protected pages of the area are trapped.
pub(super) fn traps_writes(vma: &Vma) -> bool {
    vma.uffd
        .as_ref()
        .is_some_and(|registration| registration.modes.contains(Modes::WP))
}

/// Whether a store to an entry that is protected and has no page is stopped because of the protection, and not noted only.
fn stops_store(vma: &Vma, cache: CacheState, info: &FaultInfo) -> bool {
    vma.uffd.as_ref().is_some_and(|registration| {
        let modes = registration.modes;
        let trap = classify(EntryState::WpMarker, cache, modes, info.access);
        trap.is_some_and(|trap| {
            trap.kind == TrapKind::WriteProtect
                && registration.ctx.admit(trap, info.origin) != Admission::Note
        })
    })
}

/// Queues the fault if the area's registration traps it.
#[inline(always)]
fn trapped(
    vma: &Vma,
    entry: EntryState,
    cache: CacheState,
    info: &FaultInfo,
    task: &Arc<Task>,
) -> Option<Verdict> {
    let registration = vma.uffd.as_ref()?;
    let trap = classify(entry, cache, registration.modes, info.access)?;
    let result = match registration.ctx.admit(trap, info.origin) {
        Admission::Message => {
            let fault = Fault {
                trap,
                addr: info.addr,
                granule: vma.ty.granule(),
            };
            registration.ctx.deliver(task, fault)
        }
        Admission::Note => return None,
        Admission::BusError(why) => Err(FaultError::BusError(why)),
    };
    Some(match result {
        Ok(()) => Verdict::Delegated,
        Err(error) => Verdict::Failed(error),
    })
}

/// A page was mapped, or put into the cache: if it was promised, it is not any more.
#[inline]
fn note_used(claim: Option<Claim>, page: Pfn) {
    if let Some(claim) = claim {
        claim.used(page);
    }
}

/// A page with the contents of `source`, or of zeros when the entry had borrowed the zero page. What a mapping was promised is
/// for its first page at an address, not for what it loses to a fork (as on Linux).
fn private_copy(
    vma: &Vma,
    addr: VirtAddr,
    source: Option<&Folio>,
) -> Result<(Folio, Option<Claim>), AllocError> {
    let (mut frame, claim) = match source {
        Some(source) if !source.is_cached() => (vma.ty.alloc()?, None),
        _ => vma.alloc_at(addr)?,
    };
    match source {
        None => phys::zero(&mut frame),
        Some(source) => phys::copy(&mut frame, source),
    }
    Ok((frame.into(), claim))
}

/// Attributes of a page that is about to be written: setting the bits now saves the CPU the trouble.
const fn written() -> Attr {
    Attr::flags(AttrFlags::ACCESSED.union(AttrFlags::DIRTY))
}

/// Attributes of a leaf that is about to be written. Protection goes with a store that is noted; where the registration has
/// none any more, what is left of it stays and stops nobody, as on Linux. The memory of a fork whose other side is gone goes:
/// the page is this space's alone again.
fn stored_to(vma: &Vma, leaf: &Leaf) -> Attr {
    let mut flags = (leaf.attr.flags | AttrFlags::DIRTY) - AttrFlags::FORKED;
    if traps_writes(vma) {
        flags -= AttrFlags::UFFD_WP;
    }
    Attr { flags, ..leaf.attr }
}
