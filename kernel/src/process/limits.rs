//! Resource limits (`asm-generic/resource.h`).

use crate::abi::errno::Errno;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// What is limited, by Linux's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[expect(missing_docs, reason = "the names of getrlimit(2)")]
pub enum Resource {
    Cpu,
    FileSize,
    Data,
    Stack,
    Core,
    ResidentSet,
    Processes,
    OpenFiles,
    LockedMemory,
    AddressSpace,
    Locks,
    PendingSignals,
    MessageQueues,
    Nice,
    RealTimePriority,
    RealTimeTime,
}

/// How many resources are limited.
pub const RESOURCES: usize = 16;

impl Resource {
    const ALL: [Self; RESOURCES] = [
        Self::Cpu,
        Self::FileSize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::ResidentSet,
        Self::Processes,
        Self::OpenFiles,
        Self::LockedMemory,
        Self::AddressSpace,
        Self::Locks,
        Self::PendingSignals,
        Self::MessageQueues,
        Self::Nice,
        Self::RealTimePriority,
        Self::RealTimeTime,
    ];

    /// From Linux's number.
    ///
    /// # Errors
    /// EINVAL.
    pub fn from_number(number: u64) -> Result<Self, Errno> {
        let at = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        Self::ALL.get(at).copied().ok_or(Errno::EINVAL)
    }
}

/// A limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// How far that may be raised.
    pub hard: u64,
}

impl Limit {
    const NONE: Self = Self::both(INFINITY);

    const fn both(limit: u64) -> Self {
        Self {
            soft: limit,
            hard: limit,
        }
    }
}

/// The limits of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([Limit; RESOURCES]);

/// Most threads of one user, and most signals that wait for one process.
const MANY: u64 = 4096;

impl Limits {
    /// What programs begin with.
    pub const DEFAULT: Self = {
        let mut limits = [Limit::NONE; RESOURCES];
        limits[Resource::Stack as usize].soft = 8 << 20;
        limits[Resource::Core as usize].soft = 0;
        limits[Resource::Processes as usize] = Limit::both(MANY);
        limits[Resource::OpenFiles as usize] = Limit {
            soft: 1024,
            hard: 1 << 20,
        };
        limits[Resource::LockedMemory as usize] = Limit::both(8 << 20);
        limits[Resource::PendingSignals as usize] = Limit::both(MANY);
        limits[Resource::MessageQueues as usize] = Limit::both(819_200);
        limits[Resource::Nice as usize] = Limit::both(0);
        limits[Resource::RealTimePriority as usize] = Limit::both(0);
        Self(limits)
    };

    /// One of them.
    pub const fn get(&self, resource: Resource) -> Limit {
        self.0[resource as usize]
    }

    /// Sets one. Only the `privileged` raise the hard limit.
    ///
    /// # Errors
    /// EINVAL: the soft limit is above the hard one. EPERM.
    pub fn set(&mut self, resource: Resource, limit: Limit, privileged: bool) -> Result<(), Errno> {
        /// `fs.nr_open`.
        const MOST_FILES: u64 = 1 << 20;
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if resource == Resource::OpenFiles && limit.hard > MOST_FILES {
            return Err(Errno::EPERM);
        }
        if limit.hard > self.get(resource).hard && !privileged {
            return Err(Errno::EPERM);
        }
        self.0[resource as usize] = limit;
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lowered_by_anybody_and_raised_by_some() {
        let mut limits = Limits::DEFAULT;
        let (low, high) = (Limit::both(10), Limit::both(20));
        assert_eq!(limits.set(Resource::Processes, low, false), Ok(()));
        assert_eq!(limits.set(Resource::Processes, high, false), Err(Errno::EPERM));
        assert_eq!(limits.set(Resource::Processes, high, true), Ok(()));
        let crossed = Limit { soft: 2, hard: 1 };
        assert_eq!(limits.set(Resource::Stack, crossed, true), Err(Errno::EINVAL));
        assert_eq!(limits.get(Resource::Stack).soft, 8 << 20);
    }

    #[test]
    fn numbers_are_linuxs() {
        assert_eq!(Resource::from_number(7), Ok(Resource::OpenFiles));
        assert_eq!(Resource::from_number(15), Ok(Resource::RealTimeTime));
        assert_eq!(Resource::from_number(16), Err(Errno::EINVAL));
    }
}
