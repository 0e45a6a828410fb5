//! What Linux's ioctls answer for each outcome of the typed interface: pure functions, the only place with error numbers.

use super::ops::{Outcome, Refusal, WriteProtectError};
use super::register::{RegisterError, UnregisterError};
use crate::abi::errno::Errno;

/// An ioctl's answer: its result, and what it stores into the signed output field of its argument (`copy`, `zeropage`,
/// `move`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Success, or the error number.
    pub result: Result<(), Errno>,
    /// The output field; `None` when it is left untouched.
    pub field: Option<i64>,
}

/// The answer of a fill command (COPY, ZEROPAGE, POISON, MOVE) on `len` bytes.
pub fn fill(outcome: Outcome, len: u64) -> Answer {
    match outcome {
        Outcome::Done => Answer {
            result: Ok(()),
            field: Some(len as i64),
        },
        // The reason is hidden: it shows when the rest is tried.
        Outcome::Partial { bytes, .. } => Answer {
            result: Err(Errno::EAGAIN),
            field: Some(bytes as i64),
        },
        Outcome::Refused(why) => {
            let errno = refusal(why);
            // Arguments that are wrong in themselves, and a target that is gone, leave the field alone.
            let untouched = matches!(
                why,
                Refusal::ForeignSpace
                    | Refusal::Range(_)
                    | Refusal::SourceRange(_)
                    | Refusal::UnknownMode
                    | Refusal::SpaceGone
            );
            Answer {
                result: Err(errno),
                field: (!untouched).then(|| -errno.number()),
            }
        }
    }
}

/// The error number of a refusal.
pub const fn refusal(why: Refusal) -> Errno {
    match why {
        Refusal::Changing => Errno::EAGAIN,
        Refusal::ForeignSpace
        | Refusal::Range(_)
        | Refusal::SourceRange(_)
        | Refusal::UnknownMode
        | Refusal::Immovable(_)
        | Refusal::Unsupported
        | Refusal::NoWriteProtect => Errno::EINVAL,
        Refusal::SpaceGone => Errno::ESRCH,
        Refusal::NotRegistered | Refusal::NotMapped | Refusal::SourceHole => Errno::ENOENT,
        Refusal::Busy => Errno::EBUSY,
        Refusal::Exists | Refusal::PoolEmpty => Errno::EEXIST,
        Refusal::BadSource | Refusal::BeyondEnd | Refusal::NoPage => Errno::EFAULT,
        Refusal::OutOfMemory | Refusal::NoSpace => Errno::ENOMEM,
    }
}

/// The error number of a failed WRITEPROTECT.
pub const fn write_protect(error: WriteProtectError) -> Errno {
    match error {
        WriteProtectError::Changing => Errno::EAGAIN,
        WriteProtectError::Range(_) | WriteProtectError::UnknownMode | WriteProtectError::Misaligned => {
            Errno::EINVAL
        }
        WriteProtectError::SpaceGone => Errno::ESRCH,
        WriteProtectError::NotRegistered => Errno::ENOENT,
        WriteProtectError::OutOfMemory => Errno::ENOMEM,
    }
}

/// The error number of a failed REGISTER.
pub const fn register(error: RegisterError) -> Errno {
    match error {
        RegisterError::NoMode
        | RegisterError::Range(_)
        | RegisterError::NotMapped
        | RegisterError::Unsupported => Errno::EINVAL,
        RegisterError::SpaceGone | RegisterError::TooManyAreas => Errno::ENOMEM,
        RegisterError::Busy => Errno::EBUSY,
        RegisterError::Closed => Errno::EBADF,
    }
}

/// The error number of a failed UNREGISTER.
pub const fn unregister(error: UnregisterError) -> Errno {
    match error {
        UnregisterError::SpaceGone | UnregisterError::TooManyAreas => Errno::ENOMEM,
        UnregisterError::Range(_)
        | UnregisterError::NotMapped
        | UnregisterError::Unsupported
        | UnregisterError::NotOurs => Errno::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::space::Immovable;
    use crate::uffd::RangeError;

    fn answer(outcome: Outcome) -> (Option<i64>, Option<i64>) {
        let answer = fill(outcome, 0x3000);
        (answer.result.err().map(Errno::number), answer.field)
    }

    #[test]
    fn full_progress_succeeds_with_the_length_in_the_field() {
        assert_eq!(answer(Outcome::Done), (None, Some(0x3000)));
    }

    #[test]
    fn partial_progress_is_eagain_with_the_bytes_done_whatever_the_reason() {
        for why in [Refusal::Exists, Refusal::BadSource, Refusal::OutOfMemory] {
            assert_eq!(
                answer(Outcome::Partial { bytes: 0x1000, why }),
                (Some(11), Some(0x1000))
            );
        }
    }

    #[test]
    fn nothing_done_repeats_the_error_in_the_field() {
        let rows = [
            (Refusal::NotRegistered, 2),
            (Refusal::NotMapped, 2),
            (Refusal::SourceHole, 2),
            (Refusal::OutOfMemory, 12),
            (Refusal::BadSource, 14),
            (Refusal::Busy, 16),
            (Refusal::Exists, 17),
            (Refusal::Unsupported, 22),
            (Refusal::Immovable(Immovable::NotOurs), 22),
        ];
        for (why, errno) in rows {
            assert_eq!(
                answer(Outcome::Refused(why)),
                (Some(errno), Some(-errno)),
                "{why:?}"
            );
        }
    }

    #[test]
    fn bad_arguments_and_a_dead_target_leave_the_field_untouched() {
        assert_eq!(
            answer(Outcome::Refused(Refusal::Range(RangeError::Empty))),
            (Some(22), None)
        );
        assert_eq!(
            answer(Outcome::Refused(Refusal::SourceRange(RangeError::Unaligned))),
            (Some(22), None)
        );
        assert_eq!(answer(Outcome::Refused(Refusal::UnknownMode)), (Some(22), None));
        assert_eq!(answer(Outcome::Refused(Refusal::ForeignSpace)), (Some(22), None));
        assert_eq!(answer(Outcome::Refused(Refusal::SpaceGone)), (Some(3), None));
    }
}
