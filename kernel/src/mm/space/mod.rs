//! Address spaces: the areas of a task, its page tables, and which CPUs have them loaded.
//!
//! | file | what |
//! | --- | --- |
//! | `map`, `unmap`, `remap`, `protect`, `lock`, `advise` | operations on areas |
//! | `grow` | stacks that become longer when they are touched below |
//! | `discard`, `guard` | operations on the contents of areas that stay |
//! | `access` | the memory as the kernel reaches it on somebody's behalf |
//! | `fork`, `retire` | copying the space; its end |
//! | `fault`, `around` | one step of a page fault: look, then resolve or delegate; the pages that a load maps beside its own |
//! | `fill`, `put` | the loop behind COPY, ZEROPAGE, CONTINUE and POISON; what it puts into an entry |
//! | `move_pages` | pages that change their address, behind MOVE |
//! | `write_protect` | write protection on behalf of a userfault context |
//! | `scan`, `pagemap` | which pages are what; protecting again those that were written |
//! | `zap`, `view` | taking pages out of areas that stay; the space as a view of the objects that it maps |
//! | `secondary` | translations that others derive from these: a guest's stage 2 |
//! | `turns` | changing entries while others do |
//! | `tlb` | flushing the CPUs that have the space loaded |
//!
//! **Locks**, in this order: `vmas` (shared by faults and fills, exclusive for changes of the areas), then `table`. The
//! queue of a userfault context comes after both, so that "the entry is still empty" and "the fault is queued" are one
//! step: whoever fills the entry afterwards finds the waiter. Nodes of the table are freed only under exclusive `vmas`.
//! What changes under `table` with `vmas` shared is flushed after `table`: `turns` says how others know.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::addr::{PAGE_SIZE, Pfn, USER_TOP, VirtAddr};
use super::frame::OutOfFrames;
use super::pt::{PageTable, Prot};
use super::range::VirtRange;
use super::vma::{Vma, VmaSet};
use crate::arch::Stage1;
use crate::sync::{RwLock, SpinLock};

mod access;
mod advise;
mod around;
mod discard;
mod fault;
mod fill;
mod fork;
mod grow;
mod guard;
mod lock;
mod map;
mod move_pages;
mod pagemap;
mod protect;
mod put;
mod remap;
mod retire;
mod scan;
mod secondary;
#[cfg(test)]
mod tests;
mod tlb;
mod turns;
mod unmap;
mod view;
mod write_protect;
mod zap;

pub use advise::AdviseError;
pub use around::set_pages_around;
pub use discard::DiscardError;
pub use fill::{FillStop, Filler, Filling, Unready};
pub use fork::ForkError;
pub use guard::GuardError;
pub use lock::LockError;
pub use map::{MapError, MapOptions, MapRequest, Memory};
pub use move_pages::{Immovable, MoveStop};
pub use pagemap::{PageFacts, pagemap_word};
pub use protect::ProtectError;
pub use remap::{RemapError, RemapRequest, RemapTo};
pub use scan::{Category, PageRun, ScanError, ScanRequest, Scanned};
pub use secondary::{Pinned, Present, SecondaryView};
pub use unmap::UnmapError;
pub use write_protect::ProtectStop;

use secondary::SecondaryViews;

/// Lowest address that is mapped without being asked for (Linux's default `vm.mmap_min_addr`).
pub const MAP_BOTTOM: VirtAddr = VirtAddr::new(0x1_0000);

/// Bytes that a stack may come to have where nobody says otherwise (Linux's default `RLIMIT_STACK`).
pub const DEFAULT_STACK_LIMIT: u64 = 8 << 20;

/// Who runs in a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// Kernel tasks: pages are not for user mode, and supervisor-mode access prevention lets the tasks at them.
    Kernel,
    /// User processes.
    User,
}

/// An address space.
#[derive(Debug)]
pub struct Space {
    vmas: RwLock<VmaSet>,
    table: SpinLock<PageTable<Stage1>>,
    root: Pfn,
    privilege: Privilege,
    /// Bit n: CPU n has the space's root loaded.
    loaded_on: AtomicU32,
    /// Changes of entries that are not flushed yet (`turns`).
    unflushed: AtomicU32,
    secondary: SecondaryViews,
    faults: AtomicU64,
    /// Below it goes what is mapped without being asked for a place.
    ceiling: AtomicU64,
    /// Bytes that an area that grows may come to have.
    stack_limit: AtomicU64,
    /// Everything was given back, for good (`retire`).
    retired: AtomicBool,
    /// [`VmaFlags`](super::vma::VmaFlags) that what will be mapped is locked with.
    lock_of_future: AtomicU32,
}

impl Space {
    /// An empty space that shares the kernel's half of the address space.
    ///
    /// # Errors
    /// No frame for the root of its tables.
    pub fn new(privilege: Privilege) -> Result<Arc<Self>, OutOfFrames> {
        let table = super::kernel::get().new_task_table()?;
        Ok(Arc::new(Self {
            vmas: RwLock::new(VmaSet::new()),
            root: table.root(),
            table: SpinLock::new(table),
            privilege,
            loaded_on: AtomicU32::new(0),
            unflushed: AtomicU32::new(0),
            secondary: SecondaryViews::default(),
            faults: AtomicU64::new(0),
            ceiling: AtomicU64::new(USER_TOP.as_u64()),
            stack_limit: AtomicU64::new(DEFAULT_STACK_LIMIT),
            retired: AtomicBool::new(false),
            lock_of_future: AtomicU32::new(0),
        }))
    }

    /// Whose tasks run in it.
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// The root of its tables.
    pub fn root(&self) -> Pfn {
        self.root
    }

    /// Faults that were taken on this space so far.
    pub fn fault_count(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The area that holds `addr`, as it is now.
    pub fn query(&self, addr: VirtAddr) -> Option<Vma> {
        self.vmas.read().find(addr).cloned()
    }

    /// The area that holds `addr`, or else the next above, as it is now.
    pub fn first_from(&self, addr: VirtAddr) -> Option<Vma> {
        self.vmas.read().at_or_above(addr).cloned()
    }

    /// All areas as they are now.
    pub fn areas(&self) -> alloc::vec::Vec<Vma> {
        self.vmas.read().iter().cloned().collect()
    }

    /// The areas one after the other, each as it is when its turn comes: no memory for a list of them is needed.
    pub fn each_area(&self) -> impl Iterator<Item = Vma> {
        let first = self.first_from(VirtAddr::new(0));
        core::iter::successors(first, |area| self.first_from(area.range.end))
    }

    /// What the tables hold for the page at `addr`.
    pub fn entry(&self, addr: VirtAddr) -> (super::pt::Entry, super::pt::Level) {
        self.table.lock().lookup(addr)
    }

    /// The same without waiting for the tables' lock.
    pub(crate) fn entry_at_once(&self, addr: VirtAddr) -> Option<(super::pt::Entry, super::pt::Level)> {
        Some(self.table.try_lock()?.lookup(addr))
    }

    /// What is mapped without being asked for a place goes below this.
    pub fn ceiling(&self) -> VirtAddr {
        VirtAddr::new(self.ceiling.load(Ordering::Relaxed))
    }

    /// Has what is mapped without being asked for a place go below `ceiling`, as long as there is room (Linux: `mmap_base`).
    pub fn set_ceiling(&self, ceiling: VirtAddr) {
        self.ceiling.store(ceiling.as_u64(), Ordering::Relaxed);
    }

    /// How many bytes an area that grows may come to have.
    pub fn stack_limit(&self) -> u64 {
        self.stack_limit.load(Ordering::Relaxed)
    }

    /// Sets that (Linux: `RLIMIT_STACK`). Larger ones stay as they are.
    pub fn set_stack_limit(&self, bytes: u64) {
        self.stack_limit.store(bytes, Ordering::Relaxed);
    }

    /// What tasks may map.
    fn window() -> VirtRange {
        VirtRange::new(MAP_BOTTOM, USER_TOP)
    }

    /// Whether tasks may name `range` in an operation on what is mapped: not empty, page-aligned, and below the top.
    fn is_nameable(range: VirtRange) -> bool {
        !range.is_empty() && range.is_aligned(PAGE_SIZE) && range.end <= USER_TOP
    }

    /// Rights of a leaf in an area with rights `prot`.
    #[inline]
    fn leaf_prot(&self, prot: Prot) -> Prot {
        match self.privilege {
            Privilege::User if !prot.is_empty() => prot | Prot::USER,
            _ => prot,
        }
    }

    pub(crate) fn vmas(&self) -> &RwLock<VmaSet> {
        &self.vmas
    }
}

impl Drop for Space {
    /// Frees everything that is mapped. A CPU may still have the root loaded on behalf of a task that borrowed it.
    fn drop(&mut self) {
        self.unload_here();
        assert_eq!(
            self.loaded_on.load(Ordering::Acquire),
            0,
            "a space was dropped while another CPU had it loaded"
        );
    }
}

/// The least set of rights with `prot` in it that stage 1 can express: whatever may be written or executed may be read, as
/// on Linux for this architecture.
fn possible(prot: Prot) -> Prot {
    if prot.is_empty() { prot } else { prot | Prot::READ }
}
