//! The stage-2 tables of a virtual machine: what its CPUs walk, and how they are told of what is gone.
//!
//! **Locks.** The tables' lock comes after those of the address space whose memory is mapped here
//! ([`Space::with_present`](kernel::mm::space::Space::with_present)), and before that of a memory object's cache.
//!
//! **Flushing.** Whatever is taken away or narrowed raises a *generation*. A vCPU enters the guest through
//! [`Stage2::enter`], which says whether the generation has moved since the vCPU was there last: then what the CPU has
//! cached for these tables is dropped on the way in (INVEPT, or a fresh ASID). A flush is complete when no CPU is in the
//! guest with an older generation. On one CPU none is while anything else runs; others are waited for, and a kick belongs
//! where that is done.
//!
//! What is widened needs no flush: a CPU that has the narrower translation cached raises a violation, drops the translation
//! with it (SDM vol. 3C, 29.4.3.1; APM vol. 2, 15.25.6), and finds the access allowed.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::arch::{Cpu, Machine};
use kernel::mm::addr::{GuestPhysAddr, PAGE_SIZE, Pfn};
use kernel::mm::frame::{Folio, OutOfFrames};
use kernel::mm::pt::{
    Attr, AttrFlags, Cursor, Entry, Flush, InstallError, Invalidator, Leaf, Level, Marker, PageTable, Prot,
    PtFormat,
};
use kernel::mm::range::GuestRange;
use kernel::sync::{SpinGuard, SpinLock};

/// Entries that one pass takes away before it flushes.
const BATCH: u64 = 512;

/// The tables of one virtual machine.
#[derive(Debug)]
pub struct Stage2<F: PtFormat<Addr = GuestPhysAddr>> {
    table: SpinLock<PageTable<F>>,
    root: Pfn,
    generation: AtomicU64,
    /// Bit n: CPU n is in the guest.
    inside: AtomicU32,
}

/// Memory that lies in one piece both for the guest and in the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where the guest has it.
    pub range: GuestRange,
    /// Its first frame.
    pub frame: Pfn,
}

impl Run {
    /// The level of the largest leaf around `addr` that stays in the run, and where it begins.
    fn leaf_around(&self, addr: GuestPhysAddr, max: Level) -> (Level, GuestPhysAddr) {
        let fits = |level: &Level| {
            let leaf = GuestRange::from_len(addr.align_down(level.size()), level.size());
            *level <= max
                && leaf.is_some_and(|leaf| self.range.covers(&leaf))
                && self.frame_at(addr.align_down(level.size())).as_u64() & (level.frames() - 1) == 0
        };
        let level = [Level::UPPER, Level::MID]
            .into_iter()
            .find(fits)
            .unwrap_or(Level::PAGE);
        (level, addr.align_down(level.size()))
    }

    /// The frame of the page at `addr`.
    fn frame_at(&self, addr: GuestPhysAddr) -> Pfn {
        self.frame.offset((addr - self.range.start) / PAGE_SIZE)
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
        let table = PageTable::new()?;
        Ok(Self {
            root: table.root(),
            table: SpinLock::new(table),
            // A vCPU that was never in the guest has seen generation 0.
            generation: AtomicU64::new(1),
            inside: AtomicU32::new(0),
        })
    }

    /// The root, for the CPU.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// What the tables hold for the page at `addr`.
    pub fn entry(&self, addr: GuestPhysAddr) -> (Entry, Level) {
        self.table.lock().lookup(addr)
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
            table: self.table.lock(),
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

/// The flush of what was widened: none.
struct Widened;

impl Invalidator<GuestPhysAddr> for Widened {
    fn invalidate(&self, _: GuestRange, _: u64) {}
}

/// The tables of a virtual machine, locked.
pub(crate) struct Tables<'a, F: PtFormat<Addr = GuestPhysAddr>> {
    table: SpinGuard<'a, PageTable<F>>,
    stage2: &'a Stage2<F>,
}

impl<F: PtFormat<Addr = GuestPhysAddr>> Tables<'_, F> {
    /// What is there for the page at `addr`.
    pub(crate) fn entry(&self, addr: GuestPhysAddr) -> (Entry, Level) {
        self.table.lookup(addr)
    }

    /// Maps the page at `addr`, and as much of `run` around it as one leaf of at most `max` takes, without owning it. A leaf
    /// that is there for the same page keeps the rights that it has.
    ///
    /// # Errors
    /// No frame for a node; what was there before may be gone.
    pub(crate) fn map_borrowed(
        &mut self,
        addr: GuestPhysAddr,
        run: &Run,
        max: Level,
        prot: Prot,
    ) -> Result<(), OutOfFrames> {
        let page = addr.align_down(PAGE_SIZE);
        if self.widen(page, run.frame_at(page), prot) {
            return Ok(());
        }
        let (mut level, mut at) = run.leaf_around(page, max.min(F::max_leaf()));
        loop {
            let leaf = GuestRange::new(at, at + level.size());
            let frame = run.frame_at(at);
            let mut cursor = self.table.cursor(leaf);
            let attr = Attr::flags(AttrFlags::empty());
            if cursor.install_borrowed(level, frame, prot, attr)?.is_some() || level == Level::PAGE {
                return Ok(());
            }
            // Smaller leaves, or markers, are there already.
            (level, at) = (Level::PAGE, page);
        }
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
        let page = addr.align_down(PAGE_SIZE);
        if self.widen(page, folio.pfn(), prot) {
            return Ok(());
        }
        let attr = Attr::flags(AttrFlags::empty());
        match self.table.cursor_at(page).install(Level::PAGE, folio, prot, attr) {
            Ok(_) | Err(InstallError::Occupied(_)) => Ok(()),
            Err(InstallError::OutOfFrames(_)) => Err(OutOfFrames),
        }
    }

    /// Adds rights to the leaf that maps `page` to `frame`. False when there is none: one that maps it elsewhere is taken
    /// away, whose own end is on its way already.
    fn widen(&mut self, page: GuestPhysAddr, frame: Pfn, prot: Prot) -> bool {
        let mut flush = Flush::new();
        let mut cursor = self.table.cursor_at(page);
        let (Entry::Leaf(leaf), level) = cursor.entry() else {
            return false;
        };
        let offset = (page.as_u64() & (level.size() - 1)) / PAGE_SIZE;
        if leaf.frame.offset(offset) != frame {
            cursor.take(Marker::None, &mut flush);
            flush.spend(self.stage2);
            return false;
        }
        cursor.rewrite(leaf.prot | prot, leaf.attr, &mut flush);
        flush.spend(&Widened);
        true
    }

    /// Takes away every leaf that has a page in `range`, whole, and tells `taken` of each, with the flags that it had at the
    /// very end. `leave` says what its entry remembers; leaves above page level leave nothing.
    pub(crate) fn take_away(
        &mut self,
        range: GuestRange,
        leave: impl Fn(GuestPhysAddr) -> Marker,
        mut taken: impl FnMut(GuestRange, AttrFlags),
    ) {
        self.each_leaf(range, |cursor, _, level, flush| {
            let start = cursor.addr().align_down(level.size());
            let marker = match level {
                Level::PAGE => leave(start),
                _ => Marker::None,
            };
            let flags = cursor.take(marker, flush);
            taken(GuestRange::new(start, start + level.size()), flags);
        });
    }

    /// Takes the right to write, and the dirty bit, from every leaf in `range` that has one of them, and tells `seen` of
    /// those that were dirty. With `keep_write`, only the bit.
    pub(crate) fn clean(&mut self, range: GuestRange, keep_write: bool, mut seen: impl FnMut(GuestRange)) {
        self.each_leaf(range, |cursor, leaf, level, flush| {
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

    /// Calls `f` at every leaf that has a page in `range`, and flushes what it restricts.
    fn each_leaf(
        &mut self,
        range: GuestRange,
        mut f: impl FnMut(&mut Cursor<'_, F>, Leaf, Level, &mut Flush<GuestPhysAddr>),
    ) {
        let mut flush = Flush::new();
        let mut cursor = self.table.cursor(range);
        while !cursor.is_done() {
            if flush.is_full() || flush.pages() >= BATCH {
                flush.spend(self.stage2);
            }
            let (entry, level) = cursor.entry();
            if let Entry::Leaf(leaf) = entry {
                f(&mut cursor, leaf, level, &mut flush);
            }
            cursor.advance(level);
        }
        flush.spend(self.stage2);
    }

    /// Has the absent page at `addr` remember `marker`. False when something is mapped there.
    ///
    /// # Errors
    /// No frame for a node.
    pub(crate) fn mark(&mut self, addr: GuestPhysAddr, marker: Marker) -> Result<bool, OutOfFrames> {
        let mut cursor = self.table.cursor_at(addr.align_down(PAGE_SIZE));
        Ok(cursor.mark(Level::PAGE, marker)?.is_some())
    }

    /// Makes the absent pages of `range` forget what they remember.
    pub(crate) fn forget_markers(&mut self, range: GuestRange) {
        let mut cursor = self.table.cursor(range);
        while !cursor.is_done() {
            let (entry, level) = cursor.entry();
            if entry != Entry::EMPTY && matches!(entry, Entry::Absent(_)) {
                cursor.forget_marker();
            }
            cursor.advance(level);
        }
    }
}
