//! What a process does about each signal.

use super::SignalSet;
use crate::abi::signal::{
    SA_KNOWN, SIG_DFL, SIG_IGN, SIGABRT, SIGACTION_SIZE, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGNALS,
    SIGQUIT, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH, SIGXCPU,
    SIGXFSZ,
};
use crate::sync::SpinLock;

/// What happens when nothing was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// Nothing.
    Ignore,
    /// The process ends.
    Terminate,
    /// The process ends, and would leave an image of its memory where that is wanted.
    Core,
    /// The process stops.
    Stop,
}

/// Signals that stop a process by default.
pub const STOPPING: SignalSet = SignalSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);

/// What happens by default.
pub const fn default_of(signal: u8) -> DefaultAction {
    match signal {
        // What SIGCONT does happens when it is sent.
        SIGCHLD | SIGURG | SIGWINCH | SIGCONT => DefaultAction::Ignore,
        SIGQUIT | SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGXCPU | SIGXFSZ | SIGSYS => {
            DefaultAction::Core
        }
        SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}

/// `struct sigaction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// The handler's address, [`SIG_DFL`] or [`SIG_IGN`].
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// What else is blocked while it runs.
    pub mask: SignalSet,
}

impl Action {
    /// From memory; flags that are not known are dropped, and what cannot be blocked.
    pub fn from_bytes(bytes: &[u8; SIGACTION_SIZE]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[8 * at..][..8].try_into().expect("8 bytes"));
        Self {
            handler: word(0),
            flags: word(1) & SA_KNOWN,
            restorer: word(2),
            mask: SignalSet::from_bits(word(3)) - SignalSet::UNSTOPPABLE,
        }
    }

    /// As it lies in memory.
    pub fn to_bytes(self) -> [u8; SIGACTION_SIZE] {
        let mut bytes = [0; SIGACTION_SIZE];
        let words = [self.handler, self.flags, self.restorer, self.mask.bits()];
        for (at, word) in words.iter().enumerate() {
            bytes[8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether it means nothing is done about `signal`.
    pub const fn ignores(&self, signal: u8) -> bool {
        match self.handler {
            SIG_IGN => true,
            SIG_DFL => matches!(default_of(signal), DefaultAction::Ignore),
            _ => false,
        }
    }
}

/// The actions of a process; shared by what `CLONE_SIGHAND` makes.
#[derive(Debug)]
pub struct Actions(SpinLock<[Action; SIGNALS as usize]>);

impl Default for Actions {
    fn default() -> Self {
        Self(SpinLock::new([Action::default(); SIGNALS as usize]))
    }
}

impl Actions {
    /// What is done about `signal`, from 1 to 64.
    pub fn get(&self, signal: u8) -> Action {
        self.0.lock()[usize::from(signal) - 1]
    }

    /// Says what is done about it; what was before.
    pub fn set(&self, signal: u8, action: Action) -> Action {
        core::mem::replace(&mut self.0.lock()[usize::from(signal) - 1], action)
    }

    /// The same for another process.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(SpinLock::new(*self.0.lock()))
    }

    /// The same for another program: handlers are gone, what is ignored stays ignored.
    #[must_use]
    pub fn without_handlers(&self) -> Self {
        let ignored = Action {
            handler: SIG_IGN,
            ..Action::default()
        };
        let table = self.0.lock().map(|action| match action.handler {
            SIG_IGN => ignored,
            _ => Action::default(),
        });
        Self(SpinLock::new(table))
    }

    /// The signals that have handlers, and those that are ignored because somebody said so; for `/proc`.
    pub fn caught_and_ignored(&self) -> (SignalSet, SignalSet) {
        let table = self.0.lock();
        let (mut caught, mut ignored) = (SignalSet::EMPTY, SignalSet::EMPTY);
        for (signal, action) in (1..).zip(table.iter()) {
            match action.handler {
                SIG_DFL => {}
                SIG_IGN => ignored = ignored.with(signal),
                _ => caught = caught.with(signal),
            }
        }
        (caught, ignored)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::abi::signal::{SA_RESTART, SIGHUP, SIGKILL, SIGTERM};

    #[test]
    fn an_action_comes_back_from_memory_as_it_was_but_for_what_cannot_be() {
        let action = Action {
            handler: 0x40_1000,
            flags: SA_RESTART,
            restorer: 0x40_2000,
            mask: SignalSet::of(&[SIGTERM]),
        };
        assert_eq!(Action::from_bytes(&action.to_bytes()), action);
        let odd = Action {
            flags: action.flags | 0x100,
            mask: SignalSet::of(&[SIGTERM, SIGKILL]),
            ..action
        };
        assert_eq!(Action::from_bytes(&odd.to_bytes()), action);
    }

    #[test]
    fn another_program_ignores_what_was_ignored_and_has_no_handlers() {
        let actions = Actions::default();
        let handler = Action {
            handler: 0x1234,
            ..Action::default()
        };
        let ignored = Action {
            handler: SIG_IGN,
            flags: SA_RESTART,
            ..Action::default()
        };
        actions.set(SIGTERM, handler);
        actions.set(SIGHUP, ignored);
        let after = actions.without_handlers();
        assert_eq!(after.get(SIGTERM), Action::default());
        assert!(after.get(SIGHUP).ignores(SIGHUP));
        assert_eq!(after.get(SIGHUP).flags, 0);
        assert_eq!(actions.get(SIGTERM), handler, "the old program's are untouched");
    }
}
