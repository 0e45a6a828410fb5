//! Mappings (`asm-generic/mman.h`, `asm-generic/mman-common.h`, `linux/mman.h`, x86-64's `asm/mman.h`).

use bitflags::bitflags;

bitflags! {
    /// Rights, as `mmap` and `mprotect` take them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Protection: u64 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
        /// Atomic operations; means nothing.
        const SEM = 8;
        /// From the beginning of an area that grows downwards on.
        const GROWSDOWN = 0x0100_0000;
        /// To the end of one that grows upwards; there are none.
        const GROWSUP = 0x0200_0000;
    }
}

/// The bits of `mmap`'s flags that say of which kind a mapping is.
pub const MAP_TYPE: u64 = 0xf;
/// Stores reach the object.
pub const MAP_SHARED: u64 = 1;
/// They do not.
pub const MAP_PRIVATE: u64 = 2;
/// As [`MAP_SHARED`], and unknown flags are refused.
pub const MAP_SHARED_VALIDATE: u64 = 3;
/// Private memory that may be dropped at any time.
pub const MAP_DROPPABLE: u64 = 8;

/// Where in the flags the size of huge pages is: its logarithm, or 0.
pub const MAP_HUGE_SHIFT: u32 = 26;
/// The logarithm's bits.
pub const MAP_HUGE_MASK: u64 = 0x3f;

bitflags! {
    /// The other flags of `mmap`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct MapFlags: u64 {
        /// At the address, whatever is mapped there.
        const FIXED = 0x10;
        /// Without a file.
        const ANONYMOUS = 0x20;
        /// Below 2 GiB.
        const BITS32 = 0x40;
        /// A stack, which grows downwards.
        const GROWSDOWN = 0x100;
        /// Locked.
        const LOCKED = 0x2000;
        /// Nothing is set aside for it.
        const NORESERVE = 0x4000;
        /// Its pages are there when the call returns.
        const POPULATE = 0x8000;
        /// Only those that take no waiting.
        const NONBLOCK = 0x1_0000;
        /// In huge pages.
        const HUGETLB = 0x4_0000;
        /// Stores to it are persistent.
        const SYNC = 0x8_0000;
        /// At the address, unless something is mapped there.
        const FIXED_NOREPLACE = 0x10_0000;
    }
}

/// Flags that [`MAP_SHARED_VALIDATE`] takes of a file that cannot do [`MapFlags::SYNC`] (Linux: `LEGACY_MAP_MASK`).
pub const LEGACY_MAP_MASK: u64 = MAP_TYPE & !MAP_DROPPABLE
    | 0x10 | 0x20 | 0x40 | 0x100 | 0x800 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000
    | 0x0400_0000 // MAP_UNINITIALIZED
    | MAP_HUGE_MASK << MAP_HUGE_SHIFT;

bitflags! {
    /// Flags of `mremap`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RemapFlags: u64 {
        /// It may move.
        const MAYMOVE = 1;
        /// To the address.
        const FIXED = 2;
        /// What was there stays mapped.
        const DONTUNMAP = 4;
    }
}

bitflags! {
    /// Flags of `msync`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SyncFlags: u64 {
        /// Some time.
        const ASYNC = 1;
        /// And what others have mapped is stale.
        const INVALIDATE = 2;
        /// Now.
        const SYNC = 4;
    }
}

bitflags! {
    /// Flags of `mlockall`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LockAllFlags: u64 {
        /// What is mapped.
        const CURRENT = 1;
        /// What will be.
        const FUTURE = 2;
        /// Pages are not populated beforehand.
        const ONFAULT = 4;
    }
}

/// `mlock2`: pages are not populated beforehand.
pub const MLOCK_ONFAULT: u64 = 1;

/// Advice, as `madvise` numbers it.
#[expect(missing_docs, reason = "named after Linux's")]
pub mod advice {
    pub const NORMAL: u64 = 0;
    pub const RANDOM: u64 = 1;
    pub const SEQUENTIAL: u64 = 2;
    pub const WILLNEED: u64 = 3;
    pub const DONTNEED: u64 = 4;
    pub const FREE: u64 = 8;
    pub const REMOVE: u64 = 9;
    pub const DONTFORK: u64 = 10;
    pub const DOFORK: u64 = 11;
    pub const MERGEABLE: u64 = 12;
    pub const UNMERGEABLE: u64 = 13;
    pub const HUGEPAGE: u64 = 14;
    pub const NOHUGEPAGE: u64 = 15;
    pub const DONTDUMP: u64 = 16;
    pub const DODUMP: u64 = 17;
    pub const WIPEONFORK: u64 = 18;
    pub const KEEPONFORK: u64 = 19;
    pub const COLD: u64 = 20;
    pub const PAGEOUT: u64 = 21;
    pub const POPULATE_READ: u64 = 22;
    pub const POPULATE_WRITE: u64 = 23;
    pub const DONTNEED_LOCKED: u64 = 24;
    pub const COLLAPSE: u64 = 25;
    pub const GUARD_INSTALL: u64 = 102;
    pub const GUARD_REMOVE: u64 = 103;
}
