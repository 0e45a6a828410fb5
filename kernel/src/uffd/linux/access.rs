//! What an access that fails becomes.

use crate::abi::errno::Errno;
use crate::abi::signal::{BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGKILL, SIGSEGV};
use crate::mm::fault::FaultError;
use crate::mm::space::ScanError;

/// A signal, to be sent with the exact address of the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Its number.
    pub number: u8,
    /// `si_code`.
    pub code: i32,
}

const fn bus_error() -> Signal {
    Signal {
        number: SIGBUS,
        code: BUS_ADRERR,
    }
}

/// The signal that a task gets for an access of its own.
pub const fn signal(error: FaultError) -> Signal {
    match error {
        FaultError::Unmapped | FaultError::Guard => Signal {
            number: SIGSEGV,
            code: SEGV_MAPERR,
        },
        FaultError::Forbidden => Signal {
            number: SIGSEGV,
            code: SEGV_ACCERR,
        },
        // Linux looks for somebody to kill. There is nobody else here.
        FaultError::OutOfMemory | FaultError::Killed => Signal {
            number: SIGKILL,
            code: 0,
        },
        FaultError::Poisoned
        | FaultError::BusError(_)
        | FaultError::BeyondEnd
        | FaultError::GuestOnly
        | FaultError::NoSpace
        | FaultError::PoolEmpty => bus_error(),
        // What Linux has not got: a monitor that is gone or helpless. It would hang.
        FaultError::MonitorGone
        | FaultError::SelfFault { .. }
        | FaultError::HandlerFailed
        | FaultError::HandlersNested => bus_error(),
    }
}

/// What the kernel was doing for a task when an access failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBehalf {
    /// Copying to or from the task's memory, or looking up a page of it: read, write, futex, vmsplice, `O_DIRECT`,
    /// `process_vm_readv` and `process_vm_writev`.
    Copy,
    /// `MADV_POPULATE_READ` or `MADV_POPULATE_WRITE`.
    Populate,
    /// `mlock`.
    Lock,
    /// Reading or writing `/proc/pid/mem`.
    ProcMem,
}

/// The error number of a system call that met a failed access.
pub const fn on_behalf(doing: OnBehalf, error: FaultError) -> Errno {
    match (doing, error) {
        (OnBehalf::Copy, _) => Errno::EFAULT,
        (OnBehalf::ProcMem, _) => Errno::EIO,
        (OnBehalf::Lock, _) => Errno::ENOMEM,
        (OnBehalf::Populate, FaultError::Unmapped | FaultError::OutOfMemory) => Errno::ENOMEM,
        (OnBehalf::Populate, FaultError::Forbidden) => Errno::EINVAL,
        (OnBehalf::Populate, FaultError::Poisoned) => Errno::EHWPOISON,
        (OnBehalf::Populate, _) => Errno::EFAULT,
    }
}

/// The error number of a failed `PAGEMAP_SCAN`.
pub const fn scan(error: ScanError) -> Errno {
    match error {
        ScanError::Unaligned => Errno::EINVAL,
        ScanError::BeyondTop => Errno::EFAULT,
        ScanError::NotTracked => Errno::EPERM,
        ScanError::OutOfMemory => Errno::ENOMEM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::fault::BusError;

    #[test]
    fn what_is_not_mapped_and_guards_are_maperr_and_rights_accerr() {
        let segv = |code| Signal { number: 11, code };
        assert_eq!(signal(FaultError::Unmapped), segv(1));
        assert_eq!(signal(FaultError::Guard), segv(1));
        assert_eq!(signal(FaultError::Forbidden), segv(2));
    }

    #[test]
    fn poison_bus_errors_of_a_context_and_pages_past_the_end_are_sigbus_adrerr() {
        let bus = Signal { number: 7, code: 2 };
        for why in [BusError::Wanted, BusError::KernelAccess, BusError::NoRetry] {
            assert_eq!(signal(FaultError::BusError(why)), bus);
        }
        for error in [FaultError::Poisoned, FaultError::BeyondEnd, FaultError::PoolEmpty] {
            assert_eq!(signal(error), bus);
        }
    }

    #[test]
    fn system_calls_answer_as_linuxs_do() {
        let refused = FaultError::BusError(BusError::KernelAccess);
        let rows = [
            (OnBehalf::Copy, refused, 14),
            (OnBehalf::Copy, FaultError::Unmapped, 14),
            (OnBehalf::Copy, FaultError::Poisoned, 14),
            (OnBehalf::Copy, FaultError::Forbidden, 14),
            (OnBehalf::Populate, refused, 14),
            (OnBehalf::Populate, FaultError::Guard, 14),
            (OnBehalf::Populate, FaultError::Poisoned, 133),
            (OnBehalf::Populate, FaultError::Forbidden, 22),
            (OnBehalf::Populate, FaultError::Unmapped, 12),
            (OnBehalf::Lock, refused, 12),
            (OnBehalf::Lock, FaultError::Poisoned, 12),
            (OnBehalf::Lock, FaultError::Forbidden, 12),
            (OnBehalf::ProcMem, FaultError::BusError(BusError::NoRetry), 5),
            (OnBehalf::ProcMem, FaultError::Poisoned, 5),
            (OnBehalf::ProcMem, FaultError::Unmapped, 5),
        ];
        for (doing, error, errno) in rows {
            assert_eq!(on_behalf(doing, error).number(), errno, "{doing:?}: {error:?}");
        }
    }

    #[test]
    fn scanning_answers_as_linux_does() {
        let rows = [
            (ScanError::Unaligned, 22),
            (ScanError::BeyondTop, 14),
            (ScanError::NotTracked, 1),
            (ScanError::OutOfMemory, 12),
        ];
        for (error, errno) in rows {
            assert_eq!(scan(error).number(), errno, "{error:?}");
        }
    }
}
