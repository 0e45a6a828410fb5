//! What a context can be asked to do differently.

use bitflags::bitflags;

bitflags! {
    /// What a context does differently when asked. The values are Linux's `UFFD_FEATURE_*`.
    ///
    /// Those that say "probe" work whether or not they are requested; their bit only tells that they exist.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Features: u64 {
        /// Probe: write protection of anonymous memory.
        const PAGEFAULT_FLAG_WP = 1 << 0;
        /// The monitor is told when the space is forked.
        const EVENT_FORK = 1 << 1;
        /// The monitor is told when registered memory moves, which then stays registered.
        const EVENT_REMAP = 1 << 2;
        /// The monitor is told when contents of registered memory are dropped.
        const EVENT_REMOVE = 1 << 3;
        /// Probe: missing pages of huge-page memory.
        const MISSING_HUGETLBFS = 1 << 4;
        /// Probe: missing pages of shared memory.
        const MISSING_SHMEM = 1 << 5;
        /// The monitor is told when registered memory is unmapped.
        const EVENT_UNMAP = 1 << 6;
        /// Accesses fail with a bus error instead of becoming messages.
        const SIGBUS = 1 << 7;
        /// Messages name the task.
        const THREAD_ID = 1 << 8;
        /// Probe: minor faults of huge-page memory.
        const MINOR_HUGETLBFS = 1 << 9;
        /// Probe: minor faults of shared memory.
        const MINOR_SHMEM = 1 << 10;
        /// Messages carry the exact address instead of the page's.
        const EXACT_ADDRESS = 1 << 11;
        /// Probe: write protection of huge-page and shared memory.
        const WP_HUGETLBFS_SHMEM = 1 << 12;
        /// Write protection covers pages of anonymous memory that are not there yet.
        const WP_UNPOPULATED = 1 << 13;
        /// Probe: POISON.
        const POISON = 1 << 14;
        /// A store to a protected page ends its protection instead of becoming a message. Implies
        /// [`Self::WP_UNPOPULATED`].
        const WP_ASYNC = 1 << 15;
        /// Probe: MOVE.
        const MOVE = 1 << 16;
    }
}

bitflags! {
    /// What a context is made with, before it is asked for any feature. The values are Linux's `UFFD_*` flags.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Flags: u32 {
        /// Only the tasks' own accesses become messages; the kernel's on their behalf fail.
        const USER_MODE_ONLY = 1;
    }
}

impl Features {
    /// These, and what they imply.
    #[must_use]
    pub const fn with_implied(self) -> Self {
        if self.contains(Self::WP_ASYNC) {
            self.union(Self::WP_UNPOPULATED)
        } else {
            self
        }
    }
}
