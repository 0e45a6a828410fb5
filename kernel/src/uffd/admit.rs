//! Which traps become messages: a pure function.
//!
//! | context | access | trap | becomes |
//! | --- | --- | --- | --- |
//! | notes stores | any | WP | the kernel ends the protection, the store goes on |
//! | wants bus errors | any | any other | a bus error |
//! | is told about the tasks' own accesses only | the kernel's | any other | a bus error |
//! | any | of somebody who cannot wait | any other | a bus error |
//! | any | any | any other | a message |

use super::api::{Features, Flags};
use super::classify::{Trap, TrapKind};
use crate::mm::fault::{BusError, Origin};

/// What becomes of a trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// A message; the task sleeps until it is resolved.
    Message,
    /// The kernel resolves it as if nothing were trapped, and that the page is not protected any more tells that it was
    /// written.
    Note,
    /// The access fails.
    BusError(BusError),
}

/// What becomes of `trap`, raised on the account of `origin`, at a context with these flags and features.
#[inline]
pub fn admit(flags: Flags, features: Features, trap: Trap, origin: Origin) -> Admission {
    if features.contains(Features::WP_ASYNC) && trap.kind == TrapKind::WriteProtect {
        return Admission::Note;
    }
    if features.contains(Features::SIGBUS) {
        return Admission::BusError(BusError::Wanted);
    }
    match origin {
        Origin::Kernel | Origin::NoRetry | Origin::Debugger if flags.contains(Flags::USER_MODE_ONLY) => {
            Admission::BusError(BusError::KernelAccess)
        }
        Origin::NoRetry | Origin::Debugger => Admission::BusError(BusError::NoRetry),
        Origin::Task | Origin::Kernel => Admission::Message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Features = Features::EXACT_ADDRESS.union(Features::WP_UNPOPULATED);
    const ALL_KINDS: [TrapKind; 3] = [TrapKind::Missing, TrapKind::Minor, TrapKind::WriteProtect];
    const ALL_ORIGINS: [Origin; 4] = [Origin::Task, Origin::Kernel, Origin::NoRetry, Origin::Debugger];

    fn each(mut check: impl FnMut(Trap, Origin)) {
        for kind in ALL_KINDS {
            for write in [false, true] {
                for origin in ALL_ORIGINS {
                    check(Trap { kind, write }, origin);
                }
            }
        }
    }

    #[test]
    fn whoever_can_wait_is_a_message_and_whoever_cannot_a_bus_error() {
        each(|trap, origin| {
            let expected = if matches!(origin, Origin::NoRetry | Origin::Debugger) {
                Admission::BusError(BusError::NoRetry)
            } else {
                Admission::Message
            };
            assert_eq!(admit(Flags::empty(), PLAIN, trap, origin), expected);
        });
    }

    #[test]
    fn a_user_mode_only_context_is_told_of_the_tasks_own_accesses() {
        each(|trap, origin| {
            let expected = if origin == Origin::Task {
                Admission::Message
            } else {
                Admission::BusError(BusError::KernelAccess)
            };
            assert_eq!(admit(Flags::USER_MODE_ONLY, PLAIN, trap, origin), expected);
        });
    }

    #[test]
    fn with_sigbus_nothing_is_a_message() {
        each(|trap, origin| {
            for flags in [Flags::empty(), Flags::USER_MODE_ONLY] {
                let became = admit(flags, Features::SIGBUS, trap, origin);
                assert_eq!(became, Admission::BusError(BusError::Wanted));
            }
        });
    }

    #[test]
    fn with_wp_async_only_write_protect_faults_go_on_silently_whoever_raises_them() {
        each(|trap, origin| {
            for features in [Features::WP_ASYNC, Features::WP_ASYNC | Features::SIGBUS] {
                let became = admit(Flags::USER_MODE_ONLY, features, trap, origin);
                let without = admit(Flags::USER_MODE_ONLY, features - Features::WP_ASYNC, trap, origin);
                let expected = match trap.kind {
                    TrapKind::WriteProtect => Admission::Note,
                    _ => without,
                };
                assert_eq!(became, expected, "{trap:?} {origin:?} {features:?}");
            }
        });
    }
}
