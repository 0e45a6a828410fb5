//! Opening a context: who may, and with which flags.

use bitflags::bitflags;

use crate::abi::errno::Errno;
use crate::uffd::api::Flags;
use crate::uffd::release::Release;

bitflags! {
    /// The flags of `userfaultfd(2)` and of `USERFAULTFD_IOC_NEW`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// `UFFD_USER_MODE_ONLY`.
        const USER_MODE_ONLY = 1;
        /// `O_NONBLOCK`: of the descriptor.
        const NONBLOCK = 0x800;
        /// `O_CLOEXEC`: of the descriptor.
        const CLOEXEC = 0x8_0000;
    }
}

impl OpenFlags {
    /// Those of the context itself.
    pub fn of_context(self) -> Flags {
        let mut flags = Flags::empty();
        flags.set(Flags::USER_MODE_ONLY, self.contains(Self::USER_MODE_ONLY));
        flags
    }
}

/// How a context is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By the system call.
    Syscall,
    /// Through `/dev/userfaultfd`, which whoever could open the file may.
    Device,
}

/// Who opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opener {
    /// The way.
    pub way: Way,
    /// Whether the caller may trace other processes (`CAP_SYS_PTRACE`).
    pub may_trace: bool,
    /// Whether everybody may watch accesses of the kernel (`vm.unprivileged_userfaultfd`).
    pub everybody_may: bool,
}

/// Decodes the flags and decides.
///
/// # Errors
/// EPERM: the caller may watch its own accesses only, and did not say so. EINVAL: a bit means nothing, which is found out
/// second.
pub fn open(flags: u32, opener: Opener, release: &Release) -> Result<OpenFlags, Errno> {
    let own_only = flags & OpenFlags::USER_MODE_ONLY.bits() != 0;
    let knows_restriction = release.flags.contains(Flags::USER_MODE_ONLY);
    let allowed = opener.way == Way::Device || own_only || opener.may_trace || opener.everybody_may;
    if knows_restriction && !allowed {
        return Err(Errno::EPERM);
    }
    let flags = OpenFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if release.flags.contains(flags.of_context()) {
        Ok(flags)
    } else {
        Err(Errno::EINVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Opener = Opener {
        way: Way::Syscall,
        may_trace: false,
        everybody_may: false,
    };

    fn ask(flags: u32, opener: Opener) -> Result<u32, i64> {
        open(flags, opener, &Release::V6_18)
            .map(|flags| flags.bits())
            .map_err(Errno::number)
    }

    #[test]
    fn everybody_may_watch_their_own_accesses() {
        assert_eq!(ask(1, NOBODY), Ok(1));
        assert_eq!(ask(0x8_0801, NOBODY), Ok(0x8_0801));
    }

    #[test]
    fn watching_the_kernels_accesses_takes_a_privilege_the_sysctl_or_the_device() {
        assert_eq!(ask(0, NOBODY), Err(1));
        let openers = [
            Opener {
                may_trace: true,
                ..NOBODY
            },
            Opener {
                everybody_may: true,
                ..NOBODY
            },
            Opener {
                way: Way::Device,
                ..NOBODY
            },
        ];
        for opener in openers {
            assert_eq!(ask(0, opener), Ok(0), "{opener:?}");
        }
    }

    #[test]
    fn the_privilege_is_looked_at_before_the_flags() {
        assert_eq!(ask(2, NOBODY), Err(1));
        assert_eq!(ask(3, NOBODY), Err(22));
        let device = Opener {
            way: Way::Device,
            ..NOBODY
        };
        assert_eq!(ask(2, device), Err(22));
    }

    #[test]
    fn before_5_11_there_was_no_such_flag_and_by_default_no_restriction() {
        for release in [&Release::V4_11, &Release::V5_7] {
            assert_eq!(open(0, NOBODY, release), Ok(OpenFlags::empty()));
            assert_eq!(open(1, NOBODY, release), Err(Errno::EINVAL));
        }
        assert!(open(1, NOBODY, &Release::V5_13).is_ok());
    }
}
