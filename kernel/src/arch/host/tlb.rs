//! The translation cache of one CPU.
//!
//! It never forgets: an entry stays until the kernel flushes it, however long ago the page table changed. Whoever relies
//! on an entry being gone without having flushed it is found on the next use: every hit is compared with a fresh walk, and
//! a difference that hardware would have let through is a [`StaleUse`].
//!
//! | state of the cached entry | what a hit does |
//! | --- | --- |
//! | same frame, rights no wider than the table's | goes through |
//! | rights do not suffice | page fault and the entry is dropped; a *spurious* fault if the table allows the access |
//! | page gone, another frame, wider rights, or a store over a dirty bit that was cleared | goes through, as on hardware, and is recorded |
//!
//! Two more mistakes are found without a use of the stale entry: a frame that goes back to the allocator while an entry
//! leads to it, and a page that moved: a CPU reaches a frame with one owner at an address where it is, while an entry for
//! another address, where it no longer is, leads there too.
//!
//! Table pointers are cached too (the paging-structure caches of SDM 5.10.3), so that a table that is freed or replaced
//! without a flush is found as well. INVLPG drops all of those, whatever its address (SDM 5.10.4.1).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::arena::Arena;
use super::mmu::{self, Mapping, Rights, Step, Walk, WalkError};
use crate::mm::addr::{Pfn, PhysAddr, VirtAddr};
use crate::mm::fault::Access;

/// A flush that should have happened and did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissedFlush {
    /// An access went by way of a translation that the page tables no longer hold.
    Used(StaleUse),
    /// A frame went back to the allocator while a CPU could still reach it.
    Freed {
        /// The CPU.
        cpu: usize,
        /// The frame, or one of the block.
        frame: Pfn,
        /// By which cached translation.
        cached: Cached,
    },
    /// A page was reached at its new address while a CPU could still reach it at its old one.
    Moved {
        /// The CPU whose cache was stale.
        cpu: usize,
        /// The old address.
        from: VirtAddr,
        /// The new address.
        to: VirtAddr,
        /// What the cache held for the old address.
        cached: Mapping,
    },
}

/// An access by way of a translation that the page tables no longer hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaleUse {
    /// The CPU whose cache was stale.
    pub cpu: usize,
    /// The address that was touched.
    pub addr: VirtAddr,
    /// How it was touched.
    pub access: Access,
    /// What the cache held.
    pub cached: Cached,
    /// What the page tables say.
    pub current: Result<Mapping, WalkError>,
}

/// What a translation cache held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cached {
    /// A page.
    Page(Mapping),
    /// A pointer to a table.
    Table(Step),
}

/// Why the MMU refused an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmuFault {
    /// A page fault that the kernel is asked about.
    Page,
    /// The address is not canonical (a general-protection fault on hardware).
    NotCanonical,
    /// The tables hold what no kernel may write.
    Broken(WalkError),
}

/// Who touches memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Supervisor mode with EFLAGS.AC set, as `TaskMemory` on x86-64 runs: user pages are reachable too.
    Supervisor,
    /// User mode.
    User,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mapping: Mapping,
    /// A stale use that is excused if a flush follows: another CPU may be between its table change and its shoot-down.
    suspect: Option<StaleUse>,
}

/// The caches of one CPU.
#[derive(Debug, Default)]
pub struct TlbState {
    /// By level and page number of that level.
    pages: BTreeMap<(u8, u64), Entry>,
    /// By level of the entry that points to the table, and page number of that level.
    tables: BTreeMap<(u8, u64), Step>,
    /// Suspect uses of `tables`; every flush excuses them.
    suspect_tables: Vec<StaleUse>,
}

/// Where stale uses go.
pub struct Report<'a> {
    /// The CPU.
    pub cpu: usize,
    /// Whether other CPUs run too: then a stale use is excused by a flush that follows.
    pub concurrent: bool,
    /// Takes what is not excused.
    pub record: &'a mut dyn FnMut(StaleUse),
    /// What was cached for the access, if it was not before.
    pub filled: Option<Mapping>,
}

impl Report<'_> {
    /// Records a use of `cached` where the tables say `current`; gives it back instead where a flush may still excuse it.
    fn stale_use(
        &mut self,
        addr: VirtAddr,
        access: Access,
        cached: Cached,
        current: Result<Mapping, WalkError>,
    ) -> Option<StaleUse> {
        let stale = StaleUse {
            cpu: self.cpu,
            addr,
            access,
            cached,
            current,
        };
        if self.concurrent {
            return Some(stale);
        }
        (self.record)(stale);
        None
    }
}

fn allows(rights: Rights, access: Access, mode: Mode) -> bool {
    let by_kind = match access {
        Access::Read => true,
        Access::Write => rights.write,
        // SMEP: the supervisor does not run what users can write their code to.
        Access::Execute => rights.execute && (mode == Mode::User || !rights.user),
    };
    by_kind && (mode == Mode::Supervisor || rights.user)
}

fn page_key(level: u8, addr: VirtAddr) -> (u8, u64) {
    (level, addr.as_u64() >> mmu::span_shift(level))
}

impl TlbState {
    /// Translates `addr` as the CPU would for this access.
    pub fn translate(
        &mut self,
        arena: &Arena,
        root: Pfn,
        addr: VirtAddr,
        access: Access,
        mode: Mode,
        report: &mut Report<'_>,
    ) -> Result<PhysAddr, MmuFault> {
        if !mmu::is_canonical(addr) {
            return Err(MmuFault::NotCanonical);
        }
        let store = access == Access::Write;
        if let Some((key, entry)) = self.cached_page(addr) {
            if !allows(entry.mapping.rights, access, mode) {
                self.pages.remove(&key);
                return Err(MmuFault::Page);
            }
            if !store || entry.mapping.dirty {
                self.judge_hit(arena, root, addr, access, key, report);
                return Ok(physical(&entry.mapping, addr));
            }
            // The first store through a clean entry walks again to set the dirty bit.
            self.pages.remove(&key);
        }
        let mapping = self.fill(arena, root, addr, access, mode, report)?;
        report.filled = Some(mapping);
        self.pages.insert(
            page_key(mapping.level, addr),
            Entry {
                mapping,
                suspect: None,
            },
        );
        Ok(physical(&mapping, addr))
    }

    fn cached_page(&self, addr: VirtAddr) -> Option<((u8, u64), Entry)> {
        (1..=3)
            .map(|level| page_key(level, addr))
            .find_map(|key| Some((key, *self.pages.get(&key)?)))
    }

    /// Compares a hit with what the tables say now.
    fn judge_hit(
        &mut self,
        arena: &Arena,
        root: Pfn,
        addr: VirtAddr,
        access: Access,
        key: (u8, u64),
        report: &mut Report<'_>,
    ) {
        let Some(entry) = self.pages.get_mut(&key) else {
            return;
        };
        let cached = entry.mapping;
        let current = mmu::walk(arena, root.start(), addr).map(|walk| walk.mapping);
        let honest = current.is_ok_and(|now| {
            physical(&now, addr) == physical(&cached, addr)
                && cached.rights.within(now.rights)
                && (access != Access::Write || now.dirty)
        });
        if honest {
            return;
        }
        if let Some(suspect) = report.stale_use(addr, access, Cached::Page(cached), current) {
            entry.suspect.get_or_insert(suspect);
        }
    }

    /// Walks, from the lowest cached table on, and caches what was seen.
    fn fill(
        &mut self,
        arena: &Arena,
        root: Pfn,
        addr: VirtAddr,
        access: Access,
        mode: Mode,
        report: &mut Report<'_>,
    ) -> Result<Mapping, MmuFault> {
        loop {
            let mut walk = self.walk_cached(arena, root, addr, access, report)?;
            if !allows(walk.mapping.rights, access, mode) {
                return Err(MmuFault::Page);
            }
            if walk.mark_used(arena, access == Access::Write) {
                return Ok(walk.mapping);
            }
        }
    }

    fn walk_cached(
        &mut self,
        arena: &Arena,
        root: Pfn,
        addr: VirtAddr,
        access: Access,
        report: &mut Report<'_>,
    ) -> Result<Walk, MmuFault> {
        let top = Step {
            level: 4,
            table: root.start(),
            rights: Rights::ALL,
        };
        let lowest = (1..=3u8).find_map(|level| self.tables.get(&page_key(level + 1, addr)).copied());
        let tables = &mut self.tables;
        let mut path = [None; 3];
        let fresh = mmu::walk_from(arena, top, addr, |step| {
            path[3 - step.level as usize] = Some(step)
        });
        let walk = match lowest {
            Some(step) if path[3 - step.level as usize].is_none_or(|now| differs(step, now)) => {
                let current = fresh.map(|walk| walk.mapping);
                let suspect = report.stale_use(addr, access, Cached::Table(step), current);
                self.suspect_tables.extend(suspect);
                mmu::walk_from(arena, step, addr, |_| {})
            }
            _ => {
                for step in path.into_iter().flatten() {
                    tables.insert(page_key(step.level + 1, addr), step);
                }
                fresh
            }
        };
        walk.map_err(|error| match error {
            WalkError::NotPresent { .. } => MmuFault::Page,
            broken => MmuFault::Broken(broken),
        })
    }

    /// INVLPG: drops the page at `addr`, global or not, and every cached table pointer.
    pub fn flush_page(&mut self, addr: VirtAddr) {
        for level in 1..=3 {
            self.pages.remove(&page_key(level, addr));
        }
        self.forget_tables();
    }

    /// Drops what overlaps `[start, end)`, global or not, and every cached table pointer.
    pub fn flush_range(&mut self, start: VirtAddr, end: VirtAddr) {
        self.pages.retain(|(level, number), _| {
            let shift = mmu::span_shift(*level);
            // Sign bits that the shift dropped are the same on both sides.
            let (first, last) = (start.as_u64() >> shift, (end.as_u64() - 1) >> shift);
            !(first..=last).contains(number)
        });
        self.forget_tables();
    }

    /// A load of CR3: drops everything that is not global.
    pub fn flush_all(&mut self) {
        self.pages.retain(|_, entry| entry.mapping.global);
        self.forget_tables();
    }

    /// Stale uses that no flush has excused so far.
    pub fn suspects(&self) -> impl Iterator<Item = StaleUse> + '_ {
        self.pages
            .values()
            .filter_map(|entry| entry.suspect)
            .chain(self.suspect_tables.iter().copied())
    }

    fn forget_tables(&mut self) {
        self.tables.clear();
        self.suspect_tables.clear();
    }

    /// The address of an entry that leads to the page of `mapping` although the tables at `root` have something else there.
    pub fn stale_way_to(&self, arena: &Arena, root: Pfn, mapping: &Mapping) -> Option<(VirtAddr, Mapping)> {
        let same = |m: &Mapping| (m.level, m.base) == (mapping.level, mapping.base);
        let ways = self.pages.iter().filter(|(_, entry)| same(&entry.mapping));
        ways.map(|((level, number), entry)| {
            let addr = VirtAddr::new(number << mmu::span_shift(*level));
            (addr, entry.mapping)
        })
        .find(|(addr, _)| !leads_to(arena, root, *addr, mapping))
    }

    /// By what the caches lead to physical memory in `[start, end)`, if they do.
    pub fn reference_to(&self, start: PhysAddr, end: PhysAddr) -> Option<Cached> {
        let overlaps = |m: &Mapping| m.base < end && start < m.base + (1 << mmu::span_shift(m.level));
        let page = self
            .pages
            .values()
            .map(|entry| entry.mapping)
            .find(overlaps)
            .map(Cached::Page);
        let table = |s: &&Step| start <= s.table && s.table < end;
        page.or_else(|| self.tables.values().find(table).copied().map(Cached::Table))
    }
}

/// Whether the tables at `root` have the page of `mapping` at `addr`.
pub fn leads_to(arena: &Arena, root: Pfn, addr: VirtAddr, mapping: &Mapping) -> bool {
    mmu::walk(arena, root.start(), addr)
        .is_ok_and(|walk| (walk.mapping.level, walk.mapping.base) == (mapping.level, mapping.base))
}

fn differs(cached: Step, now: Step) -> bool {
    cached.table != now.table || !cached.rights.within(now.rights)
}

fn physical(mapping: &Mapping, addr: VirtAddr) -> PhysAddr {
    mapping.base + (addr.as_u64() & ((1 << mmu::span_shift(mapping.level)) - 1))
}
