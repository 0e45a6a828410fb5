//! The stage-2 tables of a virtual machine: what its CPUs walk, and how they are told of what is gone.
//!
//! **Locks.** The tables' lock comes after those of the address space whose memory is mapped here
//! ([`Space::show`](kernel::mm::space::Space::show)), and before that of a memory object's cache.
//!
//! **Flushing.** Whatever is taken away or narrowed raises a *generation*. A vCPU enters the guest through
//! [`Stage2::enter`], which says whether the generation has moved since the vCPU was there last: then what the CPU has
//! cached for these tables is dropped on the way in (INVEPT, or a fresh ASID). A flush is complete when no CPU is in the
//! guest with an older generation. On one CPU none is while anything else runs; others are waited for, and a kick belongs
//! where that is done.
//!
//! What is widened needs no flush: a CPU that has the narrower translation cached raises a violation, drops the translation
//! with it (SDM vol. 3C, 29.4.3.1; APM vol. 2, 15.25.6), and finds the access allowed.
//!
//! **Views.** There is one table, or there are two ([`View`]). The second has every leaf that the first has, made under the
//! same lock, and more. Whatever is taken away or narrowed is so in both, under one lock and with one generation, so a vCPU
//! that may switch among them has nothing of either when it enters after that.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::abi::guest::VIEW_CACHED;
use kernel::arch::{Cpu, Machine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::frame::{Folio, OutOfFrames};
use kernel::mm::pt::{Attr, AttrFlags, Entry, Glance, Invalidator, Level, Marker, PageTable, Prot, PtFormat};
use kernel::mm::range::GuestRange;
use kernel::sync::{SpinGuard, SpinLock};

use super::leaves::{self, Run};

/// A view of a guest's memory: one of its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Accesses of delegated pages are delegated: [`VIEW_DELEGATING`](kernel::abi::guest::VIEW_DELEGATING).
    Delegating,
    /// Delegated pages that are in the cache are there: [`VIEW_CACHED`].
    Cached,
}

impl View {
    /// The view at this place of the list that VMFUNC takes them from.
    #[inline]
    pub const fn at(place: u16) -> Self {
        if place as u64 == VIEW_CACHED {
            Self::Cached
        } else {
            Self::Delegating
        }
    }
}

/// The tables of one virtual machine.
#[derive(Debug)]
pub struct Stage2<F: PtFormat<Addr = GuestPhysAddr>> {
    views: SpinLock<Views<F>>,
    root: Pfn,
    generation: AtomicU64,
    /// Bit n: CPU n is in the guest.
    inside: AtomicU32,
}

/// A table for each view.
#[derive(Debug)]
struct Views<F: PtFormat<Addr = GuestPhysAddr>> {
    delegating: PageTable<F>,
    cached: Option<PageTable<F>>,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Views<F> {
    /// The table of a view; that of the first where there is no other.
    fn of(&mut self, view: View) -> &mut PageTable<F> {
        match (view, &mut self.cached) {
            (View::Cached, Some(table)) => table,
            _ => &mut self.delegating,
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut PageTable<F>> {
        core::iter::once(&mut self.delegating).chain(&mut self.cached)
    }
}

/// The right to be in the guest, with what it took to get there; dropped when the vCPU has left it. The holder does not
/// sleep and touches nothing that may flush these tables.
#[derive(Debug)]
pub struct Entered<'a, F: PtFormat<Addr = GuestPhysAddr>> {
    stage2: &'a Stage2<F>,
    /// Whether what the CPU has cached for the tables is to be dropped on the way in.
    pub flush: bool,
    /// It says which CPU.
    _not_send: core::marker::PhantomData<*const ()>,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Drop for Entered<'_, F> {
    fn drop(&mut self) {
        self.stage2
            .inside
            .fetch_and(!(1 << Machine::id()), Ordering::SeqCst);
        Machine::preempt_enable();
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Stage2<F> {
    /// Empty tables.
    ///
    /// # Errors
    /// No frame for the root.
    pub fn new() -> Result<Self, OutOfFrames> {
        let delegating = PageTable::new()?;
        Ok(Self {
            root: delegating.root(),
            views: SpinLock::new(Views {
                delegating,
                cached: None,
            }),
            // A vCPU that was never in the guest has seen generation 0.
            generation: AtomicU64::new(1),
            inside: AtomicU32::new(0),
        })
    }

    /// The root of [`View::Delegating`], for the CPU.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// The roots of both views, in the order in which VMFUNC counts them. The second is made if it is not there yet, and
    /// stays as long as the tables.
    ///
    /// # Errors
    /// No frame for the second; nothing changed.
    pub fn both_roots(&self) -> Result<[Pfn; 2], OutOfFrames> {
        let mut views = self.views.lock();
        if let Some(table) = &views.cached {
            return Ok([self.root, table.root()]);
        }
        let mut table = PageTable::new()?;
        leaves::copy(&mut views.delegating, &mut table)?;
        let roots = [self.root, table.root()];
        views.cached = Some(table);
        Ok(roots)
    }

    /// What the tables hold for the page at `addr`.
    pub fn entry(&self, addr: GuestPhysAddr) -> (Entry, Level) {
        self.entry_in(View::Delegating, addr)
    }

    /// What the table of `view` holds for the page at `addr`; that of the first where there is no second.
    pub fn entry_in(&self, view: View, addr: GuestPhysAddr) -> (Entry, Level) {
        self.views.lock().of(view).lookup(addr)
    }

    /// A vCPU that has last seen the generation `seen`, 0 at first, enters the guest on this CPU.
    #[inline]
    pub fn enter(&self, seen: &mut u64) -> Entered<'_, F> {
        Machine::preempt_disable();
        // Before the look at the generation: whoever raises it afterwards waits for this CPU.
        self.inside.fetch_or(1 << Machine::id(), Ordering::SeqCst);
        let now = self.generation.load(Ordering::SeqCst);
        Entered {
            stage2: self,
            flush: core::mem::replace(seen, now) != now,
            _not_send: core::marker::PhantomData,
        }
    }

    /// The tables, locked for changes.
    pub(crate) fn lock(&self) -> Tables<'_, F> {
        Tables {
            views: self.views.lock(),
            stage2: self,
        }
    }
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Invalidator<GuestPhysAddr> for Stage2<F> {
    fn invalidate(&self, _: GuestRange, _: u64) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let me = 1 << Machine::id();
        loop {
            let inside = self.inside.load(Ordering::SeqCst);
            assert_eq!(inside & me, 0, "tables flushed by a CPU that is in the guest");
            if inside == 0 {
                return;
            }
            Machine::relax();
        }
    }
}

/// The tables of a virtual machine, locked.
pub(crate) struct Tables<'a, F: PtFormat<Addr = GuestPhysAddr>> {
    views: SpinGuard<'a, Views<F>>,
    stage2: &'a Stage2<F>,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Tables<'_, F> {
    /// What is there for the page at `addr`.
    pub(crate) fn entry(&self, addr: GuestPhysAddr) -> (Entry, Level) {
        self.views.delegating.lookup(addr)
    }

    /// Whether accesses of the page at `addr` fail.
    #[inline]
    pub(crate) fn is_poisoned(&self, addr: GuestPhysAddr) -> bool {
        let table = &self.views.delegating;
        table.glance(addr.align_down(PAGE_SIZE)) != Glance::Vacant
            && table.lookup(addr).0 == Entry::Absent(Marker::Poison)
    }

    /// Whether there is a second view.
    pub(crate) fn has_cached_view(&self) -> bool {
        self.views.cached.is_some()
    }

    /// Maps the page at `addr` to `frame`, without owning it. A leaf that is there for the same frame keeps the rights that it
    /// has.
    ///
    /// # Errors
    /// No frame for a node; what was there before may be gone.
    #[inline(always)]
    pub(crate) fn map_page(
        &mut self,
        addr: GuestPhysAddr,
        frame: Pfn,
        prot: Prot,
    ) -> Result<(), OutOfFrames> {
        let page = addr.align_down(PAGE_SIZE);
        if let Some(table) = &mut self.views.cached {
            leaves::map_again(table, self.stage2, page, frame, prot)?;
        }
        leaves::map_page(&mut self.views.delegating, self.stage2, page, frame, prot)
    }

    /// Maps the page at `addr`, and as much of `run` around it as one leaf of at most `max` takes, without owning it; otherwise
    /// as [`Self::map_page`].
    ///
    /// # Errors
    /// No frame for a node; what was there before may be gone.
    pub(crate) fn map_run(
        &mut self,
        addr: GuestPhysAddr,
        run: &Run,
        max: Level,
        prot: Prot,
    ) -> Result<(), OutOfFrames> {
        let stage2 = self.stage2;
        self.views
            .all()
            .try_for_each(|table| leaves::map_run(table, stage2, addr, run, max, prot))
    }

    /// Maps the page at `addr` to `folio`, of which the leaf becomes an owner.
    ///
    /// # Errors
    /// No frame for a node; what was there before may be gone.
    pub(crate) fn map_owned(
        &mut self,
        addr: GuestPhysAddr,
        folio: Folio,
        prot: Prot,
    ) -> Result<(), OutOfFrames> {
        if let Some(table) = &mut self.views.cached {
            leaves::map_owned(table, self.stage2, addr, folio.clone(), prot)?;
        }
        leaves::map_owned(&mut self.views.delegating, self.stage2, addr, folio, prot)
    }

    /// The same in the second view alone. Nothing happens where there is none.
    ///
    /// # Errors
    /// No frame for a node; what was there before may be gone.
    pub(crate) fn map_in_cached_view(
        &mut self,
        addr: GuestPhysAddr,
        folio: Folio,
        prot: Prot,
    ) -> Result<(), OutOfFrames> {
        match &mut self.views.cached {
            Some(table) => leaves::map_owned(table, self.stage2, addr, folio, prot),
            None => Ok(()),
        }
    }

    /// Takes away every leaf that has a page in `range`, whole, and tells `taken` of each, with the flags that it had at the
    /// very end. `leave` says what its entry remembers; leaves above page level leave nothing.
    pub(crate) fn take_away(
        &mut self,
        range: GuestRange,
        leave: impl Fn(GuestPhysAddr) -> Marker,
        mut taken: impl FnMut(GuestRange, AttrFlags),
    ) {
        for table in self.views.all() {
            leaves::take_away(table, self.stage2, range, &leave, &mut taken);
        }
    }

    /// Takes away what only the second view has in `range`; nothing is remembered there.
    pub(crate) fn keep_common(&mut self, range: GuestRange, mut taken: impl FnMut(GuestRange, AttrFlags)) {
        let Views { delegating, cached } = &mut *self.views;
        let Some(cached) = cached else { return };
        leaves::each_leaf(cached, self.stage2, range, |cursor, _, level, flush| {
            let start = cursor.addr().align_down(level.size());
            if delegating.lookup(start).0.is_leaf() {
                return;
            }
            let flags = cursor.take(Marker::None, flush);
            taken(GuestRange::new(start, start + level.size()), flags);
        });
    }

    /// Takes the right to write, and the dirty bit, from every leaf in `range` that has one of them, and tells `seen` of
    /// those that were dirty. With `keep_write`, only the bit.
    pub(crate) fn clean(&mut self, range: GuestRange, keep_write: bool, mut seen: impl FnMut(GuestRange)) {
        for table in self.views.all() {
            leaves::each_leaf(table, self.stage2, range, |cursor, leaf, level, flush| {
                let prot = if keep_write {
                    leaf.prot
                } else {
                    leaf.prot - Prot::WRITE
                };
                let dirty = leaf.attr.flags.contains(AttrFlags::DIRTY);
                if prot == leaf.prot && !dirty {
                    return;
                }
                let flags = leaf.attr.flags - AttrFlags::DIRTY;
                cursor.rewrite(prot, Attr { flags, ..leaf.attr }, flush);
                if dirty {
                    let start = cursor.addr().align_down(level.size());
                    seen(GuestRange::new(start, start + level.size()));
                }
            });
        }
    }

    /// Has the absent page at `addr` remember `marker`. False when something is mapped there; in the second view, it is
    /// taken away then.
    ///
    /// # Errors
    /// No frame for a node; nothing is remembered in the first view.
    pub(crate) fn mark(&mut self, addr: GuestPhysAddr, marker: Marker) -> Result<bool, OutOfFrames> {
        let page = addr.align_down(PAGE_SIZE);
        if self.entry(page).0.is_leaf() {
            return Ok(false);
        }
        self.keep_common(GuestRange::page(page), |_, _| ());
        if let Some(table) = &mut self.views.cached {
            table.cursor_at(page).mark(Level::PAGE, marker)?;
        }
        let mut cursor = self.views.delegating.cursor_at(page);
        Ok(cursor.mark(Level::PAGE, marker)?.is_some())
    }

    /// Has the absent page at `addr` remember `marker` in each view in which it is absent and remembers nothing.
    ///
    /// # Errors
    /// No frame for a node.
    pub(crate) fn mark_vacant(&mut self, addr: GuestPhysAddr, marker: Marker) -> Result<(), OutOfFrames> {
        let page = addr.align_down(PAGE_SIZE);
        for table in self.views.all() {
            let mut cursor = table.cursor_at(page);
            if cursor.entry().0 == Entry::EMPTY {
                cursor.mark(Level::PAGE, marker)?;
            }
        }
        Ok(())
    }

    /// Makes the absent pages of `range` forget what they remember, or only `marker`.
    pub(crate) fn forget_markers(&mut self, range: GuestRange, marker: Option<Marker>) {
        for table in self.views.all() {
            let mut cursor = table.cursor(range);
            while !cursor.is_done() {
                let (entry, level) = cursor.entry();
                if let Entry::Absent(found) = entry
                    && found != Marker::None
                    && marker.is_none_or(|marker| marker == found)
                {
                    cursor.forget_marker();
                }
                cursor.advance(level);
            }
        }
    }
}
