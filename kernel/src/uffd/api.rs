//! The handshake: what a context can be asked to do differently, and what it offers.
//!
//! ```text
//!   Uffd::open ──► fresh: everything is refused ──► Uffd::api ──► ready     (a monitor that negotiates, as on Linux)
//!   Uffd::new  ───────────────────────────────────────────────►  ready     (a monitor in the kernel, which knows)
//! ```
//!
//! A handshake that fails leaves the context fresh. Features stay as they were agreed on for the context's life.

use bitflags::bitflags;

use super::ctx::{Ctx, Resolver, Uffd};
use super::linux::FdInfo;
use super::release::Release;
use crate::mm::memtype::OpSet;

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

bitflags! {
    /// Commands of a context, by the numbers of Linux's ioctls.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Ioctls: u64 {
        /// Register a range.
        const REGISTER = 1 << 0;
        /// Unregister a range.
        const UNREGISTER = 1 << 1;
        /// Wake the waiters of a range.
        const WAKE = 1 << 2;
        /// Fill with a copy.
        const COPY = 1 << 3;
        /// Fill with zeros.
        const ZEROPAGE = 1 << 4;
        /// Move pages from elsewhere in the space.
        const MOVE = 1 << 5;
        /// Protect against writing, or stop protecting.
        const WRITEPROTECT = 1 << 6;
        /// Map what the cache has.
        const CONTINUE = 1 << 7;
        /// Make accesses fail.
        const POISON = 1 << 8;
        /// The handshake.
        const API = 1 << 63;
    }
}

impl Ioctls {
    /// Those that set a context up.
    pub const SETUP: Self = Self::REGISTER.union(Self::UNREGISTER);
    /// Those that a handshake says there are; the others are said range by range.
    pub const OF_HANDSHAKE: Self = Self::SETUP.union(Self::API);
}

impl From<OpSet> for Ioctls {
    #[inline]
    fn from(ops: OpSet) -> Self {
        let all = [
            (OpSet::COPY, Self::COPY),
            (OpSet::ZEROPAGE, Self::ZEROPAGE),
            (OpSet::CONTINUE, Self::CONTINUE),
            (OpSet::WRITEPROTECT, Self::WRITEPROTECT),
            (OpSet::POISON, Self::POISON),
            (OpSet::MOVE, Self::MOVE),
        ];
        all.into_iter()
            .filter(|(op, _)| ops.contains(*op))
            .map(|(_, ioctl)| ioctl)
            .collect()
    }
}

/// The only version of the interface.
pub const API_VERSION: u64 = 0xaa;

/// What a monitor asks of a fresh context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The version of the interface that it speaks: [`API_VERSION`].
    pub api: u64,
    /// What it wants, which may have bits that mean nothing.
    pub features: Features,
    /// Whether it may trace other processes (Linux: `CAP_SYS_PTRACE`).
    pub may_trace: bool,
}

/// What a handshake comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// In force: what was asked for, and what that implies.
    pub features: Features,
    /// Everything that could have been asked for.
    pub offered: Features,
    /// The commands of the context as a whole.
    pub ioctls: Ioctls,
}

/// Why a handshake failed; the context is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiError {
    /// Another version of the interface (Linux: EINVAL).
    UnknownVersion,
    /// A feature takes a privilege (EPERM).
    NotPermitted,
    /// A feature does not exist (EINVAL).
    UnknownFeature,
    /// The context is ready already (EINVAL).
    NotFresh,
}

/// Why a context does not do something at all (Linux: EINVAL to both).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// The handshake has not been made.
    Fresh,
    /// The release that the context looks like did not have it.
    NotOffered,
}

impl Release {
    /// What a handshake with a fresh context would come to.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn negotiate(&self, wanted: Handshake) -> Result<Agreement, ApiError> {
        if wanted.api != API_VERSION {
            return Err(ApiError::UnknownVersion);
        }
        let privileged = self.fork_is_privileged && wanted.features.contains(Features::EVENT_FORK);
        if privileged && !wanted.may_trace {
            return Err(ApiError::NotPermitted);
        }
        let features = wanted.features.with_implied();
        if !self.features.contains(features) {
            return Err(ApiError::UnknownFeature);
        }
        Ok(Agreement {
            features,
            offered: self.features,
            ioctls: Ioctls::OF_HANDSHAKE,
        })
    }
}

impl Uffd {
    /// The handshake.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn api(&self, wanted: Handshake) -> Result<Agreement, ApiError> {
        let agreement = self.ctx.release().negotiate(wanted)?;
        self.conclude(&agreement)?;
        Ok(agreement)
    }

    /// The second half of [`Self::api`], for those who tell the other side what [`Release::negotiate`] came to before it
    /// is in force.
    ///
    /// # Errors
    /// [`ApiError::NotFresh`].
    pub fn conclude(&self, agreement: &Agreement) -> Result<(), ApiError> {
        if self.ctx.make_ready(agreement.features) {
            Ok(())
        } else {
            Err(ApiError::NotFresh)
        }
    }
}

impl Resolver {
    /// What the descriptor's file in `/proc/pid/fdinfo` shows.
    pub fn fd_info(&self) -> FdInfo {
        let (pending, total) = self.ctx.counts();
        FdInfo {
            pending,
            total,
            features: self.ctx.is_ready().then(|| self.ctx.features()),
            release: self.ctx.release(),
        }
    }
}

impl Ctx {
    /// Whether the context has `command` at all.
    ///
    /// # Errors
    /// It does not, and why.
    #[inline]
    pub(super) fn gate(&self, command: Ioctls) -> Result<(), Unavailable> {
        if self.commands().contains(command) {
            Ok(())
        } else {
            Err(self.unavailable())
        }
    }

    #[cold]
    fn unavailable(&self) -> Unavailable {
        if self.is_ready() {
            Unavailable::NotOffered
        } else {
            Unavailable::Fresh
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uffd::release::RELEASES;

    const WANTED: Handshake = Handshake {
        api: API_VERSION,
        features: Features::empty(),
        may_trace: false,
    };

    fn want(features: Features) -> Handshake {
        Handshake { features, ..WANTED }
    }

    #[test]
    fn feature_bits_are_linuxs() {
        let all = [
            Features::PAGEFAULT_FLAG_WP,
            Features::EVENT_FORK,
            Features::EVENT_REMAP,
            Features::EVENT_REMOVE,
            Features::MISSING_HUGETLBFS,
            Features::MISSING_SHMEM,
            Features::EVENT_UNMAP,
            Features::SIGBUS,
            Features::THREAD_ID,
            Features::MINOR_HUGETLBFS,
            Features::MINOR_SHMEM,
            Features::EXACT_ADDRESS,
            Features::WP_HUGETLBFS_SHMEM,
            Features::WP_UNPOPULATED,
            Features::POISON,
            Features::WP_ASYNC,
            Features::MOVE,
        ];
        for (bit, feature) in all.into_iter().enumerate() {
            assert_eq!(feature.bits(), 1 << bit);
        }
        assert_eq!(Features::all().bits(), 0x1_ffff);
    }

    #[test]
    fn everything_on_offer_is_answered_whatever_was_asked_for() {
        for features in [Features::empty(), Features::THREAD_ID, Features::MOVE] {
            let agreement = Release::V6_18.negotiate(want(features)).expect("it is on offer");
            assert_eq!(agreement.features, features);
            assert_eq!(agreement.offered.bits(), 0x1_ffff);
            assert_eq!(agreement.ioctls.bits(), 0x8000_0000_0000_0003);
        }
    }

    #[test]
    fn another_version_of_the_interface_is_refused_before_anything_else() {
        for api in [0, 0xa9, 0xab, API_VERSION << 8] {
            let wanted = Handshake {
                api,
                ..want(Features::EVENT_FORK | Features::from_bits_retain(1 << 40))
            };
            assert_eq!(Release::ALL.negotiate(wanted), Err(ApiError::UnknownVersion));
        }
    }

    #[test]
    fn a_fork_event_takes_a_privilege_and_lacking_it_comes_before_unknown_bits() {
        let odd = Features::from_bits_retain(1 << 17);
        for release in RELEASES {
            let alone = release.negotiate(want(Features::EVENT_FORK)).map(|_| ());
            let with_odd = release.negotiate(want(Features::EVENT_FORK | odd));
            if release.name == "4.11" {
                assert_eq!(alone, Ok(()));
                assert_eq!(with_odd, Err(ApiError::UnknownFeature));
                continue;
            }
            assert_eq!(alone, Err(ApiError::NotPermitted), "{}", release.name);
            assert_eq!(with_odd, Err(ApiError::NotPermitted));
            let privileged = Handshake {
                may_trace: true,
                ..want(Features::EVENT_FORK)
            };
            assert!(release.negotiate(privileged).is_ok());
        }
    }

    #[test]
    fn every_bit_that_a_release_did_not_have_is_refused_and_every_other_taken() {
        for release in RELEASES {
            for bit in 0..64 {
                let wanted = Handshake {
                    may_trace: true,
                    ..want(Features::from_bits_retain(1 << bit))
                };
                let expected = release.features.bits() >> bit & 1 != 0;
                assert_eq!(
                    release.negotiate(wanted).is_ok(),
                    expected,
                    "bit {bit} in {}",
                    release.name
                );
            }
        }
    }

    #[test]
    fn noting_stores_implies_covering_unpopulated_pages() {
        let agreement = Release::ALL
            .negotiate(want(Features::WP_ASYNC))
            .expect("it is on offer");
        assert_eq!(agreement.features, Features::WP_ASYNC | Features::WP_UNPOPULATED);
    }

    #[test]
    fn operations_have_the_numbers_of_their_ioctls() {
        let numbers = [
            (OpSet::COPY, 3),
            (OpSet::ZEROPAGE, 4),
            (OpSet::MOVE, 5),
            (OpSet::WRITEPROTECT, 6),
            (OpSet::CONTINUE, 7),
            (OpSet::POISON, 8),
        ];
        for (op, number) in numbers {
            assert_eq!(Ioctls::from(op).bits(), 1 << number);
        }
        assert_eq!(Ioctls::from(OpSet::all()).bits(), 0x1f8);
    }
}
