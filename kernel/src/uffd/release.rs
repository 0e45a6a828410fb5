//! What a context offers: everything, or what some release of Linux had.
//!
//! A program that probes what it can use takes other paths on an older kernel. A context that is opened with a
//! [`Release`] has the features, commands, modes and memory types of that Linux and refuses the rest as it did (EINVAL to
//! all of it). How an operation behaves that it had is 6.18's.
//!
//! | | 4.11 | 5.7 | 5.13 | 6.6 | 6.8, 6.18 |
//! | --- | --- | --- | --- | --- | --- |
//! | events of fork, mremap, madvise, munmap | yes | | | | |
//! | bus errors, thread numbers | | yes (4.14) | | | |
//! | exact addresses | | | | yes (5.18) | |
//! | unpopulated pages write-protected | | | | yes (6.4) | |
//! | stores noted | | | | | yes (6.7) |
//! | user-mode faults only | | | yes (5.11) | | |
//! | MISSING | all | | | | |
//! | WP | | anonymous | | all (5.19) | |
//! | MINOR | | | huge | shared (5.14) | |
//! | COPY | all | | | | |
//! | ZEROPAGE | anonymous | shared (4.14) | | | |
//! | WRITEPROTECT | | yes | | | |
//! | CONTINUE | | | yes | | |
//! | POISON | | | | yes | |
//! | MOVE | | | | | yes |
//! | COPY of protected pages | | yes | | | |
//! | CONTINUE of protected pages | | | | yes (6.4) | |
//! | fork events without privilege | yes | to 5.4: no longer | | | |
//!
//! A cell says what was added since the column before, and where that was a release in between, which. Where nothing
//! is said about huge and shared memory the operation works on whatever the modes can be registered on.
//!
//! Sources: `ioctl_userfaultfd(2)` and `userfaultfd(2)` of the Linux manual pages for the features up to 5.14, the modes and
//! the ioctls; `include/uapi/linux/userfaultfd.h` of each release for the sets of features and ioctls; and the commits
//! "userfaultfd: shmem: wire up shmem_mfill_zeropage_pte" (4.14), "userfaultfd: require CAP_SYS_PTRACE for
//! UFFD_FEATURE_EVENT_FORK" (5.5), "userfaultfd: provide unmasked address on page-fault" (5.18), "mm/uffd: PTE_MARKER_UFFD_WP" (5.19),
//! "mm/uffd: UFFD_FEATURE_WP_UNPOPULATED" and "mm: userfaultfd: add UFFDIO_CONTINUE_MODE_WP to install WP PTEs" (6.4),
//! "mm: userfaultfd: add new UFFDIO_POISON ioctl" (6.6), "userfaultfd: UFFD_FEATURE_WP_ASYNC" (6.7), "userfaultfd:
//! UFFDIO_MOVE uABI" (6.8).

use super::api::{Features, Flags, Ioctls};
use super::ops::FillMode;
use crate::mm::memtype::{Class, MemType, Modes, OpSet, UffdOps};

/// What can be done with one kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Faults that may be registered.
    pub modes: Modes,
    /// Operations that work.
    pub ops: OpSet,
}

/// What a context offers.
#[derive(PartialEq, Eq, Debug)]
pub struct Release {
    /// For messages, and to choose it by.
    pub name: &'static str,
    /// Flags that it can be opened with.
    pub flags: Flags,
    /// Features that it can be asked for.
    pub features: Features,
    /// Commands, apart from the handshake itself.
    pub ioctls: Ioctls,
    /// Those that REGISTER said it had for huge pages and whatever else had no ZEROPAGE.
    pub basic: Ioctls,
    /// Operations that can write-protect what they fill.
    pub protecting: OpSet,
    /// Whether [`Features::EVENT_FORK`] takes a privilege.
    pub fork_is_privileged: bool,
    /// What it can do with each kind of memory that Linux has; `None` for whatever a memory type says of itself.
    kinds: Option<Kinds>,
}

/// Anonymous, shared and huge memory.
#[derive(PartialEq, Eq, Debug)]
struct Kinds {
    anonymous: Offer,
    shmem: Offer,
    hugetlb: Offer,
}

const fn offer(modes: Modes, ops: OpSet) -> Offer {
    Offer { modes, ops }
}

const EVENTS: Features = Features::EVENT_FORK
    .union(Features::EVENT_REMAP)
    .union(Features::EVENT_REMOVE)
    .union(Features::EVENT_UNMAP);
const F4_11: Features = EVENTS
    .union(Features::MISSING_HUGETLBFS)
    .union(Features::MISSING_SHMEM);
const F5_7: Features = F4_11
    .union(Features::PAGEFAULT_FLAG_WP)
    .union(Features::SIGBUS)
    .union(Features::THREAD_ID);
const F5_13: Features = F5_7.union(Features::MINOR_HUGETLBFS);
const F6_6: Features = F5_13
    .union(Features::MINOR_SHMEM)
    .union(Features::EXACT_ADDRESS)
    .union(Features::WP_HUGETLBFS_SHMEM)
    .union(Features::WP_UNPOPULATED)
    .union(Features::POISON);

const I4_11: Ioctls = Ioctls::SETUP
    .union(Ioctls::WAKE)
    .union(Ioctls::COPY)
    .union(Ioctls::ZEROPAGE);
const I5_7: Ioctls = I4_11.union(Ioctls::WRITEPROTECT);
const I5_13: Ioctls = I5_7.union(Ioctls::CONTINUE);
const I6_6: Ioctls = I5_13.union(Ioctls::POISON);
const I6_8: Ioctls = I6_6.union(Ioctls::MOVE);

const B4_11: Ioctls = Ioctls::WAKE.union(Ioctls::COPY);
const B5_13: Ioctls = B4_11.union(Ioctls::CONTINUE);
const B6_6: Ioctls = B5_13.union(Ioctls::WRITEPROTECT).union(Ioctls::POISON);

const MISSING_WP: Modes = Modes::MISSING.union(Modes::WP);
const FILL: OpSet = OpSet::COPY.union(OpSet::ZEROPAGE);
const FILL_WP: OpSet = FILL.union(OpSet::WRITEPROTECT);
const ANON_6_6: OpSet = FILL_WP.union(OpSet::POISON);
const SHMEM_6_6: OpSet = ANON_6_6.union(OpSet::CONTINUE);
const HUGE_6_6: OpSet = SHMEM_6_6.difference(OpSet::ZEROPAGE);
const PROTECTING: OpSet = OpSet::COPY.union(OpSet::CONTINUE);

impl Release {
    /// Everything that there is, on every memory type.
    pub const ALL: Self = Self {
        name: "all",
        flags: Flags::all(),
        features: Features::all(),
        ioctls: I6_8,
        basic: B6_6,
        protecting: PROTECTING,
        fork_is_privileged: true,
        kinds: None,
    };

    /// Linux 4.11: the first with events, huge and shared memory.
    pub const V4_11: Self = Self {
        name: "4.11",
        flags: Flags::empty(),
        features: F4_11,
        ioctls: I4_11,
        basic: B4_11,
        protecting: OpSet::empty(),
        fork_is_privileged: false,
        kinds: Some(Kinds {
            anonymous: offer(Modes::MISSING, FILL),
            shmem: offer(Modes::MISSING, OpSet::COPY),
            hugetlb: offer(Modes::MISSING, OpSet::COPY),
        }),
    };

    /// Linux 5.7: the first with write protection.
    pub const V5_7: Self = Self {
        name: "5.7",
        flags: Flags::empty(),
        features: F5_7,
        ioctls: I5_7,
        basic: B4_11,
        protecting: OpSet::COPY,
        fork_is_privileged: true,
        kinds: Some(Kinds {
            anonymous: offer(MISSING_WP, FILL_WP),
            shmem: offer(Modes::MISSING, FILL),
            hugetlb: offer(Modes::MISSING, OpSet::COPY),
        }),
    };

    /// Linux 5.13: the first with minor faults.
    pub const V5_13: Self = Self {
        name: "5.13",
        flags: Flags::USER_MODE_ONLY,
        features: F5_13,
        ioctls: I5_13,
        basic: B5_13,
        protecting: OpSet::COPY,
        fork_is_privileged: true,
        kinds: Some(Kinds {
            anonymous: offer(MISSING_WP, FILL_WP),
            shmem: offer(Modes::MISSING, FILL),
            hugetlb: offer(
                Modes::MISSING.union(Modes::MINOR),
                OpSet::COPY.union(OpSet::CONTINUE),
            ),
        }),
    };

    /// Linux 6.6: the first with poison.
    pub const V6_6: Self = Self {
        name: "6.6",
        flags: Flags::USER_MODE_ONLY,
        features: F6_6,
        ioctls: I6_6,
        basic: B6_6,
        protecting: PROTECTING,
        fork_is_privileged: true,
        kinds: Some(Kinds {
            anonymous: offer(MISSING_WP, ANON_6_6),
            shmem: offer(Modes::all(), SHMEM_6_6),
            hugetlb: offer(Modes::all(), HUGE_6_6),
        }),
    };

    /// Linux 6.8: the first with MOVE.
    pub const V6_8: Self = Self {
        name: "6.8",
        features: Features::all(),
        ioctls: I6_8,
        kinds: Some(Kinds {
            anonymous: offer(MISSING_WP, ANON_6_6.union(OpSet::MOVE)),
            shmem: offer(Modes::all(), SHMEM_6_6),
            hugetlb: offer(Modes::all(), HUGE_6_6),
        }),
        ..Self::V6_6
    };

    /// Linux 6.18: what this kernel was checked against.
    pub const V6_18: Self = Self {
        name: "6.18",
        ..Self::V6_8
    };

    /// The release with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        RELEASES.iter().copied().find(|release| release.name == name)
    }

    /// Modes that some memory can be registered with; any other bit means nothing.
    pub fn modes(&self) -> Modes {
        match &self.kinds {
            None => Modes::all(),
            Some(kinds) => kinds.anonymous.modes | kinds.shmem.modes | kinds.hugetlb.modes,
        }
    }

    /// What it can do with memory of type `ty`; nothing with what Linux had no table for.
    pub fn offer(&self, ty: &MemType) -> Option<Offer> {
        let UffdOps { modes, ops, .. } = ty.uffd?;
        let Some(kinds) = &self.kinds else {
            return Some(Offer { modes, ops });
        };
        let offer = match ty.class {
            Class::Anonymous => kinds.anonymous,
            Class::Shmem => kinds.shmem,
            Class::Hugetlb => kinds.hugetlb,
            Class::File | Class::Special => return None,
        };
        Some(Offer {
            modes: offer.modes & modes,
            ops: offer.ops & ops,
        })
    }

    /// Whether `op` works on memory of type `ty`. A command that the release does not have is another matter.
    #[inline]
    pub(crate) fn has(&self, op: OpSet, ty: &MemType) -> bool {
        self.kinds.is_none() || self.offer(ty).is_some_and(|offer| offer.ops.contains(op))
    }

    /// Modes of `op` that it knows, of those that exist.
    pub(super) fn fill_modes(&self, op: OpSet, modes: FillMode) -> FillMode {
        if self.protecting.contains(op) {
            modes
        } else {
            modes - FillMode::WP
        }
    }

    /// Whether REGISTER answered with the basic set of ioctls for memory of this kind: for huge pages, and at first also for
    /// shared memory.
    pub fn is_basic(&self, class: Class) -> bool {
        match (&self.kinds, class) {
            (_, Class::Hugetlb) => true,
            (Some(kinds), Class::Shmem) => !kinds.shmem.ops.contains(OpSet::ZEROPAGE),
            _ => false,
        }
    }
}

/// All of them, oldest first; the last has everything.
pub static RELEASES: [&Release; 7] = [
    &Release::V4_11,
    &Release::V5_7,
    &Release::V5_13,
    &Release::V6_6,
    &Release::V6_8,
    &Release::V6_18,
    &Release::ALL,
];
