//! REGISTER and UNREGISTER.

use crate::abi::errno::Errno;
use crate::mm::memtype::Modes;
use crate::uffd::api::Ioctls;
use crate::uffd::register::{RegisterError, UnregisterError};
use crate::uffd::release::Release;

/// The error number of a failed REGISTER.
pub const fn register(error: RegisterError) -> Errno {
    match error {
        RegisterError::Unavailable(_)
        | RegisterError::NoMode
        | RegisterError::UnknownMode
        | RegisterError::Range(_)
        | RegisterError::NotMapped
        | RegisterError::Misaligned
        | RegisterError::Unsupported => Errno::EINVAL,
        RegisterError::ReadOnly => Errno::EPERM,
        RegisterError::SpaceGone | RegisterError::TooManyAreas => Errno::ENOMEM,
        RegisterError::Busy => Errno::EBUSY,
        RegisterError::Closed => Errno::EBADF,
    }
}

/// The error number of a failed UNREGISTER.
pub const fn unregister(error: UnregisterError) -> Errno {
    match error {
        UnregisterError::SpaceGone | UnregisterError::TooManyAreas => Errno::ENOMEM,
        UnregisterError::Unavailable(_)
        | UnregisterError::Range(_)
        | UnregisterError::NotMapped
        | UnregisterError::Misaligned
        | UnregisterError::Unsupported
        | UnregisterError::NotOurs => Errno::EINVAL,
    }
}

/// The ioctls that REGISTER says there are for a range, to the bit.
///
/// Linux looks at two things only: the mode, and whether there is memory in the range that has fewer
/// ([`Registered::basic`](crate::uffd::Registered::basic)). So it names POISON and MOVE for all base pages, although MOVE
/// fails on shared memory; and for files whose stores are noted it names everything, although nothing but WRITEPROTECT
/// works. What works is in [`Registered::ops`](crate::uffd::Registered::ops).
pub fn register_ioctls(release: &Release, modes: Modes, basic: bool) -> Ioctls {
    let all = if basic {
        release.basic
    } else {
        release.ioctls - Ioctls::SETUP
    };
    let mut ioctls = all;
    if !modes.contains(Modes::WP) {
        ioctls -= Ioctls::WRITEPROTECT;
    }
    if !modes.contains(Modes::MINOR) {
        ioctls -= Ioctls::CONTINUE;
    }
    ioctls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uffd::{RangeError, Unavailable};

    fn row(release: &Release, basic: bool) -> [u64; 7] {
        core::array::from_fn(|i| {
            let modes = Modes::from_bits_truncate(i as u8 + 1);
            register_ioctls(release, modes, basic).bits()
        })
    }

    #[test]
    fn the_ioctls_of_6_18_are_those_it_names_for_each_mode() {
        assert_eq!(
            row(&Release::V6_18, false),
            [0x13c, 0x17c, 0x17c, 0x1bc, 0x1bc, 0x1fc, 0x1fc]
        );
        assert_eq!(
            row(&Release::V6_18, true),
            [0x10c, 0x14c, 0x14c, 0x18c, 0x18c, 0x1cc, 0x1cc]
        );
    }

    #[test]
    fn older_releases_name_what_they_had() {
        let missing = |release| row(release, false)[0];
        assert_eq!(missing(&Release::V4_11), 0x1c);
        assert_eq!(missing(&Release::V5_7), 0x1c);
        assert_eq!(missing(&Release::V6_6), 0x11c);
        let wp = |release| row(release, false)[2];
        assert_eq!(wp(&Release::V5_7), 0x5c);
        assert_eq!(wp(&Release::V5_13), 0x5c);
        assert_eq!(wp(&Release::V6_6), 0x15c);
        let huge = |release| row(release, true);
        assert_eq!(huge(&Release::V4_11)[0], 0xc);
        assert_eq!(huge(&Release::V5_13)[4], 0x8c);
        assert_eq!(huge(&Release::V6_6)[6], 0x1cc);
    }

    #[test]
    fn errors_have_linuxs_numbers() {
        let rows = [
            (RegisterError::Unavailable(Unavailable::Fresh), 22),
            (RegisterError::NoMode, 22),
            (RegisterError::UnknownMode, 22),
            (RegisterError::Range(RangeError::Empty), 22),
            (RegisterError::SpaceGone, 12),
            (RegisterError::NotMapped, 22),
            (RegisterError::Misaligned, 22),
            (RegisterError::Unsupported, 22),
            (RegisterError::ReadOnly, 1),
            (RegisterError::Busy, 16),
            (RegisterError::TooManyAreas, 12),
        ];
        for (error, errno) in rows {
            assert_eq!(register(error).number(), errno, "{error:?}");
        }
        let rows = [
            (UnregisterError::Unavailable(Unavailable::Fresh), 22),
            (UnregisterError::Range(RangeError::Empty), 22),
            (UnregisterError::SpaceGone, 12),
            (UnregisterError::NotMapped, 22),
            (UnregisterError::Misaligned, 22),
            (UnregisterError::Unsupported, 22),
            (UnregisterError::NotOurs, 22),
            (UnregisterError::TooManyAreas, 12),
        ];
        for (error, errno) in rows {
            assert_eq!(unregister(error).number(), errno, "{error:?}");
        }
    }
}
