//! What a task is told from outside while it waits.
//!
//! | | as Linux's | what it cuts short | lasts |
//! | --- | --- | --- | --- |
//! | [`Task::kill`] | fatal signal | every wait that can be, now and later | for good |
//! | [`Task::interrupt`] | any other | a wait for a page that an instruction touches, and a read of messages | for one wait |
//!
//! Either leaves a token ([`mod@super::park`]) after it is noted down: whoever looks, and then parks, misses neither. One who parks
//! and then looks goes by the token, so that a wait which signals do not cut short puts it back (`Task::remind`).

use super::Task;
use crate::sync::model::atomic::{AtomicU8, Ordering};

const KILLED: u8 = 1;
const INTERRUPTED: u8 = 2;

/// What a task was told and has not answered.
#[derive(Debug)]
pub(super) struct Signals(AtomicU8);

impl Signals {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(0))
    }
}

impl Task {
    /// Wants the task to end, for good (Linux: a fatal signal). Waits that can be cut short are; the task then does what it
    /// must to leave nothing half done, and ends by itself. One that waits for a page that it touched itself ends there.
    pub fn kill(&self) {
        self.signals.0.fetch_or(KILLED, Ordering::AcqRel);
        self.fault.look_twice();
        self.unpark();
    }

    /// Whether somebody wants the task to end.
    pub fn is_killed(&self) -> bool {
        self.signals.0.load(Ordering::Acquire) & KILLED != 0
    }

    /// There is something else for the task to do (Linux: a signal that is not fatal). If it waits for a page that it touched
    /// itself, it executes that access again, and a fresh message is sent; if it reads messages, it is told
    /// ([`ReadError::Interrupted`](crate::uffd::ReadError::Interrupted)). Several that come during one wait count as one.
    ///
    /// What the kernel does on the task's behalf goes on. For a task that runs a thread a copy faults again and again until the
    /// page is there; whoever looks a page up sleeps on. Both as on Linux.
    pub fn interrupt(&self) {
        self.signals.0.fetch_or(INTERRUPTED, Ordering::AcqRel);
        self.unpark();
    }

    /// Puts back the token of an interruption of the task, the current one, that has not cut its last wait short.
    #[inline]
    pub(crate) fn remind(&self) {
        if self.is_interrupted() {
            self.unpark();
        }
    }

    /// Whether the task was interrupted, and nothing has answered that.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.signals.0.load(Ordering::Acquire) & INTERRUPTED != 0
    }

    /// Whether the task is killed or interrupted.
    #[inline]
    pub(crate) fn has_signal(&self) -> bool {
        self.signals.0.load(Ordering::Acquire) != 0
    }

    /// Whether the task, the current one, was interrupted; answered by that.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.signals.0.fetch_and(!INTERRUPTED, Ordering::AcqRel) & INTERRUPTED != 0
    }
}
