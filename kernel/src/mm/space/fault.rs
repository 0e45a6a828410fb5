//! One step of a page fault: look at the area and the entry, then resolve or delegate.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::Space;
use crate::arch::Stage1;
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::{Access, FaultError, FaultInfo, Verdict};
use crate::mm::frame::{Anon, Folio, Frame};
use crate::mm::kernel;
use crate::mm::memtype::Modes;
use crate::mm::phys;
use crate::mm::pt::{
    Attr, AttrFlags, Cursor, Entry, Flush, InstallError, Leaf, Level, Marker, PageTable, Prot,
};
use crate::mm::vma::Vma;
use crate::sync::SpinGuard;
use crate::task::Task;
use crate::uffd::{CacheState, EntryState, classify};

impl Space {
    /// Looks at a fault once. All guards are dropped when this returns.
    #[inline]
    pub fn step(&self, info: &FaultInfo, task: &Arc<Task>) -> Verdict {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let page = info.addr.align_down(PAGE_SIZE);
        let vmas = self.vmas.read();
        let Some(vma) = vmas.find(page) else {
            return Verdict::Failed(FaultError::Unmapped);
        };
        // Rights first: a forbidden access never reaches a monitor.
        if !vma.allows(info.access) {
            return Verdict::Failed(FaultError::Forbidden);
        }
        let mut table = self.table.lock();
        let mut cursor = table.cursor_at(page);
        if !cursor.is_vacant() {
            return self.step_at_entry(vma, info, task, table, page);
        }
        match trapped(vma, EntryState::Empty, info, task) {
            Some(verdict) => verdict,
            None => self.demand_zero(vma, info.access, AttrFlags::empty(), &mut cursor),
        }
    }

    /// The rest of [`Self::step`] when something may be in the entry.
    #[inline(never)]
    fn step_at_entry(
        &self,
        vma: &Vma,
        info: &FaultInfo,
        task: &Arc<Task>,
        mut table: SpinGuard<'_, PageTable<Stage1>>,
        page: VirtAddr,
    ) -> Verdict {
        let mut cursor = table.cursor_at(page);
        let (entry, level) = cursor.entry();
        let state = match entry {
            Entry::Absent(Marker::Poison) => return Verdict::Failed(FaultError::Poisoned),
            Entry::Absent(Marker::Guard) => return Verdict::Failed(FaultError::Guard),
            Entry::Absent(Marker::UffdWp) => EntryState::WpMarker,
            Entry::Absent(Marker::None) | Entry::Table(_) => EntryState::Empty,
            Entry::Leaf(leaf) => EntryState::Present {
                uffd_wp: leaf.attr.flags.contains(AttrFlags::UFFD_WP),
            },
        };
        if let Some(verdict) = trapped(vma, state, info, task) {
            return verdict;
        }
        let Entry::Leaf(leaf) = entry else {
            // A load of a protected page that is not there: the page of zeros, still protected.
            let protected = state == EntryState::WpMarker && traps_writes(vma);
            let keep = if protected {
                AttrFlags::UFFD_WP
            } else {
                AttrFlags::empty()
            };
            return self.demand_zero(vma, info.access, keep, &mut cursor);
        };
        let mut flush = Flush::new();
        let verdict = self.upgrade(vma, info.access, &mut cursor, leaf, level, &mut flush);
        drop(table);
        flush.spend(self);
        verdict
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
        match cursor.install(Level::PAGE, frame.into(), self.leaf_prot(vma.prot), written()) {
            Ok(_) | Err(InstallError::Occupied(_)) => Verdict::Resolved,
            Err(InstallError::OutOfFrames(_)) => Verdict::Failed(FaultError::OutOfMemory),
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
        let wanted = match access {
            Access::Read => Prot::READ,
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        };
        if leaf.prot.contains(wanted) {
            return Verdict::Retry;
        }
        if access != Access::Write {
            // The area was given more rights than the leaf has.
            let prot = (vma.prot - Prot::WRITE) | (leaf.prot & Prot::WRITE);
            cursor.rewrite(self.leaf_prot(prot), leaf.attr, flush);
            return Verdict::Resolved;
        }
        debug_assert_eq!(level, Level::PAGE, "anonymous memory is mapped in base pages");
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
        let shared = cursor.share();
        // Two owners: the entry, and the handle just made.
        if shared.as_ref().is_some_and(|folio| folio.owners() == 2) {
            let attr = Attr {
                // Protection that nobody is told about any more goes with the first store, and so does the memory of a
                // fork whose other side is gone: the page is this space's alone again.
                flags: (leaf.attr.flags | AttrFlags::DIRTY) - AttrFlags::UFFD_WP - AttrFlags::FORKED,
                ..leaf.attr
            };
            cursor.rewrite(prot, attr, flush);
            return Verdict::Resolved;
        }
        let Some(copy) = private_copy(shared.as_ref()) else {
            return Verdict::Failed(FaultError::OutOfMemory);
        };
        cursor.replace(copy, prot, written(), flush);
        Verdict::Resolved
    }
}

/// Whether stores to protected pages of the area are trapped.
fn traps_writes(vma: &Vma) -> bool {
    vma.uffd
        .as_ref()
        .is_some_and(|registration| registration.modes.contains(Modes::WP))
}

/// Queues the fault if the area's registration traps it.
#[inline(always)]
fn trapped(vma: &Vma, state: EntryState, info: &FaultInfo, task: &Arc<Task>) -> Option<Verdict> {
    let registration = vma.uffd.as_ref()?;
    // Anonymous memory has no cache beside the page tables.
    let trap = classify(state, CacheState::Absent, registration.modes, info.access)?;
    Some(match registration.ctx.enqueue(task, trap, info.addr) {
        Ok(()) => Verdict::Delegated,
        Err(error) => Verdict::Failed(error),
    })
}

/// A page with the contents of `source`, or of zeros when the entry had borrowed the zero page.
fn private_copy(source: Option<&Folio>) -> Option<Folio> {
    let frame = match source {
        None => Frame::<Anon>::alloc_zeroed().ok()?,
        Some(source) => {
            let mut frame = Frame::<Anon>::alloc().ok()?;
            phys::copy_page(&mut frame, source);
            frame
        }
    };
    Some(frame.into())
}

/// Attributes of a page that is about to be written: setting the bits now saves the CPU the trouble.
const fn written() -> Attr {
    Attr::flags(AttrFlags::ACCESSED.union(AttrFlags::DIRTY))
}
