//! The page walk of the software machine.
//!
//! Written from the manual (Intel SDM vol. 3A, sections 5.5 "4-Level Paging" and 5.6 "Access Rights", revision of June 2025),
//! by raw bits and without a look at the kernel's own page-table code, so that the two check each other. Four levels;
//! leaves of 4 KiB, 2 MiB and 1 GiB. CR0.WP and EFER.NXE are on.

use core::sync::atomic::Ordering;

use super::arena::Arena;
use crate::mm::addr::{PhysAddr, VirtAddr};

/// Physical-address width of the machine (CPUID 8000_0008 EAX\[7:0\]); higher address bits of an entry are reserved.
pub const PHYS_BITS: u32 = 46;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE_BIT: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What all entries on the way to a page allow together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// Stores (supervisor stores too: CR0.WP is on).
    pub write: bool,
    /// User-mode accesses.
    pub user: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// What the CPU starts with at the root.
    pub const ALL: Self = Self {
        write: true,
        user: true,
        execute: true,
    };

    fn restricted_by(self, entry: u64) -> Self {
        Self {
            write: self.write && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            execute: self.execute && entry & NO_EXECUTE == 0,
        }
    }

    /// Whether everything that `self` allows is allowed by `other` too.
    pub fn within(self, other: Self) -> bool {
        self.write <= other.write && self.user <= other.user && self.execute <= other.execute
    }
}

/// A page as the walk finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First byte of the page in physical memory.
    pub base: PhysAddr,
    /// Level of the leaf: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB.
    pub level: u8,
    /// Rights of the whole path.
    pub rights: Rights,
    /// Survives a new root.
    pub global: bool,
    /// The leaf's dirty bit.
    pub dirty: bool,
}

/// A table on the way down: where the walk stands before it reads the entry of `level`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Level of the table's entries, 4 at the root.
    pub level: u8,
    /// The table.
    pub table: PhysAddr,
    /// Rights of the entries above.
    pub rights: Rights,
}

/// Why a walk finds no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// The entry of this level is not present.
    NotPresent {
        /// Its level.
        level: u8,
    },
    /// The entry has a reserved bit set: the kernel wrote nonsense.
    Reserved {
        /// Its level.
        level: u8,
        /// Its bits.
        entry: u64,
    },
    /// A table lies outside of RAM: the kernel wrote nonsense.
    NoSuchTable {
        /// Level of the entries that were looked for.
        level: u8,
        /// Where the table would be.
        table: PhysAddr,
    },
}

/// A successful walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The page.
    pub mapping: Mapping,
    /// Entries read, from the root's on: their addresses and what they held.
    path: [(PhysAddr, u64); 4],
    /// How many of `path` count.
    depth: usize,
}

/// log2 of what one entry of `level` spans.
pub const fn span_shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

/// Whether bits 63:47 of `addr` are all equal.
pub fn is_canonical(addr: VirtAddr) -> bool {
    let top = addr.as_u64() >> 47;
    top == 0 || top == 0x1_ffff
}

/// Reserved bits of an entry (SDM tables 5-15 to 5-20).
fn reserved_bits(entry: u64, level: u8) -> u64 {
    let above_width = ADDRESS & !((1 << PHYS_BITS) - 1);
    let by_level = match level {
        4 => PAGE_SIZE_BIT,
        // Bit 12 of a large leaf is PAT.
        2 | 3 if entry & PAGE_SIZE_BIT != 0 => ((1 << span_shift(level)) - 1) & ADDRESS & !(1 << 12),
        _ => 0,
    };
    entry & (above_width | by_level)
}

/// Walks from `from` down to the page at `addr` and calls `visit` with every table below the first. Changes nothing.
pub fn walk_from(
    arena: &Arena,
    from: Step,
    addr: VirtAddr,
    mut visit: impl FnMut(Step),
) -> Result<Walk, WalkError> {
    let mut step = from;
    let mut path = [(PhysAddr::new(0), 0); 4];
    let mut depth = 0;
    loop {
        let Step { level, table, rights } = step;
        let index = (addr.as_u64() >> span_shift(level)) & 511;
        let place = table + index * 8;
        let entry = arena
            .word(place)
            .ok_or(WalkError::NoSuchTable { level, table })?
            .load(Ordering::Acquire);
        if entry & PRESENT == 0 {
            return Err(WalkError::NotPresent { level });
        }
        if reserved_bits(entry, level) != 0 {
            return Err(WalkError::Reserved { level, entry });
        }
        path[depth] = (place, entry);
        depth += 1;
        let rights = rights.restricted_by(entry);
        if level == 1 || (level < 4 && entry & PAGE_SIZE_BIT != 0) {
            let base = PhysAddr::new(entry & ADDRESS).align_down(1 << span_shift(level));
            let (global, dirty) = (entry & GLOBAL != 0, entry & DIRTY != 0);
            return Ok(Walk {
                mapping: Mapping {
                    base,
                    level,
                    rights,
                    global,
                    dirty,
                },
                path,
                depth,
            });
        }
        step = Step {
            level: level - 1,
            table: PhysAddr::new(entry & ADDRESS),
            rights,
        };
        visit(step);
    }
}

/// Walks from the root.
pub fn walk(arena: &Arena, root: PhysAddr, addr: VirtAddr) -> Result<Walk, WalkError> {
    walk_from(
        arena,
        Step {
            level: 4,
            table: root,
            rights: Rights::ALL,
        },
        addr,
        |_| {},
    )
}

impl Walk {
    /// Sets the accessed bits on the way and, for a store, the leaf's dirty bit (SDM 5.8). `false` when an entry changed
    /// since it was read; the caller walks again, as a CPU's locked update would make it.
    pub fn mark_used(&mut self, arena: &Arena, store: bool) -> bool {
        for (i, (place, seen)) in self.path[..self.depth].iter().enumerate() {
            let is_leaf = i + 1 == self.depth;
            let want = seen | ACCESSED | if is_leaf && store { DIRTY } else { 0 };
            let Some(word) = arena.word(*place) else {
                return false;
            };
            if want != *seen
                && word
                    .compare_exchange(*seen, want, Ordering::AcqRel, Ordering::Acquire)
                    .is_err()
            {
                return false;
            }
        }
        self.mapping.dirty |= store;
        true
    }
}
