//! The operations on ranges.

use crate::abi::errno::Errno;
use crate::uffd::ops::{FillMode, Outcome, Refusal, WakeError, WriteProtectError};

/// An ioctl's answer: its result, and what it stores into the signed output field of its argument (`copy`, `zeropage`,
/// `move`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Success, or the error number.
    pub result: Result<(), Errno>,
    /// The output field; `None` when it is left untouched.
    pub field: Option<i64>,
}

impl Answer {
    /// Nothing was done, and the argument is as it was.
    const fn untouched(errno: Errno) -> Self {
        Self {
            result: Err(errno),
            field: None,
        }
    }
}

/// The answer of a fill command (COPY, ZEROPAGE, POISON, MOVE) on `len` bytes; CONTINUE's is [`cont`].
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
        // Arguments that are wrong in themselves, and a target that is gone, leave the field alone.
        Outcome::Refused(
            why @ (Refusal::Unavailable(_)
            | Refusal::ForeignSpace
            | Refusal::Range(_)
            | Refusal::SourceRange(_)
            | Refusal::UnknownMode
            | Refusal::SpaceGone),
        ) => Answer::untouched(refusal(why)),
        Outcome::Refused(why) => refused(refusal(why)),
    }
}

/// The answer of CONTINUE on `len` bytes.
pub fn cont(outcome: Outcome, len: u64) -> Answer {
    match outcome {
        // A page past the end is a wrong argument here, and a bad address to the others.
        Outcome::Refused(Refusal::BeyondEnd) => refused(Errno::EINVAL),
        outcome => fill(outcome, len),
    }
}

fn refused(errno: Errno) -> Answer {
    Answer {
        result: Err(errno),
        field: Some(-errno.number()),
    }
}

/// The answer when the argument of a fill command could not be read. Whether the layout changes is found before
/// that ([`Refusal::Changing`]).
pub const fn unreadable() -> Answer {
    Answer::untouched(Errno::EFAULT)
}

/// What becomes of an answer when its output field could not be written: the pages are where they were put, and nobody
/// learns.
pub const fn unwritable() -> Errno {
    Errno::EFAULT
}

/// The error number of a refusal.
pub const fn refusal(why: Refusal) -> Errno {
    match why {
        Refusal::Changing => Errno::EAGAIN,
        Refusal::Unavailable(_)
        | Refusal::ForeignSpace
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
        WriteProtectError::Unavailable(_)
        | WriteProtectError::Range(_)
        | WriteProtectError::UnknownMode
        | WriteProtectError::Misaligned => Errno::EINVAL,
        WriteProtectError::SpaceGone => Errno::ESRCH,
        WriteProtectError::NotRegistered => Errno::ENOENT,
        WriteProtectError::OutOfMemory => Errno::ENOMEM,
    }
}

/// What a mode word of WRITEPROTECT asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteProtectMode {
    /// Protect; nobody is woken.
    Protect,
    /// End the protection, and wake unless the mode says not to.
    Remove(FillMode),
}

/// Decodes the mode word of WRITEPROTECT (`UFFDIO_WRITEPROTECT_MODE_*`).
///
/// # Errors
/// A bit that means nothing, or "protect" and "do not wake" together.
pub const fn write_protect_mode(mode: u64) -> Result<WriteProtectMode, Errno> {
    match mode {
        0 => Ok(WriteProtectMode::Remove(FillMode::empty())),
        1 => Ok(WriteProtectMode::Protect),
        2 => Ok(WriteProtectMode::Remove(FillMode::DONTWAKE)),
        _ => Err(Errno::EINVAL),
    }
}

/// The error number of a failed WAKE.
pub const fn wake(error: WakeError) -> Errno {
    match error {
        WakeError::Unavailable(_) | WakeError::Range(_) => Errno::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::space::Immovable;
    use crate::uffd::{RangeError, Unavailable};

    fn parts(answer: Answer) -> (Option<i64>, Option<i64>) {
        (answer.result.err().map(Errno::number), answer.field)
    }

    fn answer(outcome: Outcome) -> (Option<i64>, Option<i64>) {
        parts(fill(outcome, 0x3000))
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
            (Refusal::NoWriteProtect, 22),
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

    #[test]
    fn a_context_without_the_operation_says_einval_and_leaves_the_field_untouched() {
        for why in [Unavailable::Fresh, Unavailable::NotOffered] {
            let outcome = Outcome::Refused(Refusal::Unavailable(why));
            assert_eq!(answer(outcome), (Some(22), None));
            assert_eq!(write_protect(WriteProtectError::Unavailable(why)).number(), 22);
            assert_eq!(wake(WakeError::Unavailable(why)).number(), 22);
        }
    }

    #[test]
    fn a_changing_layout_is_eagain_also_in_the_field() {
        assert_eq!(answer(Outcome::Refused(Refusal::Changing)), (Some(11), Some(-11)));
        assert_eq!(write_protect(WriteProtectError::Changing).number(), 11);
    }

    #[test]
    fn an_empty_pool_of_huge_pages_shows_as_eexist() {
        assert_eq!(
            answer(Outcome::Refused(Refusal::PoolEmpty)),
            (Some(17), Some(-17))
        );
    }

    #[test]
    fn past_the_end_of_the_object_is_efault_and_of_continue_einval() {
        let outcome = Outcome::Refused(Refusal::BeyondEnd);
        assert_eq!(answer(outcome), (Some(14), Some(-14)));
        assert_eq!(parts(cont(outcome, 0x3000)), (Some(22), Some(-22)));
        let later = Outcome::Partial {
            bytes: 0x1000,
            why: Refusal::BeyondEnd,
        };
        assert_eq!(parts(cont(later, 0x3000)), (Some(11), Some(0x1000)));
    }

    #[test]
    fn continue_without_a_page_in_the_cache_is_efault_and_over_a_mapped_page_eexist() {
        for (why, errno) in [(Refusal::NoPage, 14), (Refusal::Exists, 17)] {
            assert_eq!(
                parts(cont(Outcome::Refused(why), 0x1000)),
                (Some(errno), Some(-errno))
            );
        }
        assert_eq!(parts(cont(Outcome::Done, 0x1000)), (None, Some(0x1000)));
    }

    #[test]
    fn an_argument_that_cannot_be_read_leaves_the_field_untouched() {
        assert_eq!(parts(unreadable()), (Some(14), None));
        assert_eq!(unwritable().number(), 14);
    }

    #[test]
    fn of_the_modes_of_writeprotect_protecting_without_waking_is_einval_like_unknown_bits() {
        let remove = WriteProtectMode::Remove;
        assert_eq!(write_protect_mode(0), Ok(remove(FillMode::empty())));
        assert_eq!(write_protect_mode(1), Ok(WriteProtectMode::Protect));
        assert_eq!(write_protect_mode(2), Ok(remove(FillMode::DONTWAKE)));
        for bad in [3, 4, 5, 8, 1 << 63, u64::MAX] {
            assert_eq!(write_protect_mode(bad), Err(Errno::EINVAL), "{bad:#x}");
        }
    }

    #[test]
    fn write_protect_errors_have_linuxs_numbers() {
        let rows = [
            (WriteProtectError::Range(RangeError::Empty), 22),
            (WriteProtectError::UnknownMode, 22),
            (WriteProtectError::Misaligned, 22),
            (WriteProtectError::SpaceGone, 3),
            (WriteProtectError::NotRegistered, 2),
            (WriteProtectError::OutOfMemory, 12),
        ];
        for (error, errno) in rows {
            assert_eq!(write_protect(error).number(), errno, "{error:?}");
        }
        assert_eq!(wake(WakeError::Range(RangeError::Unaligned)).number(), 22);
    }
}
