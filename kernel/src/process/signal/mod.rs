//! Signals.
//!
//! ```text
//!   send ──► Pending (of the thread or of the process) ──► deliver, on the thread's way back to user mode ──► a frame on its
//!    │                                                        │                                              stack (frame)
//!    └ ends the process at once where nothing else can happen └ default: ends or stops the process
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `set`, `pending`, `action` | sets of signals; those that wait; what is done about each |
//! | `send` | who gets a signal, and what sending alone does |
//! | `deliver` | what a thread does about its signals before it goes back to user mode; calls that are begun again |
//! | `frame` | what a handler finds on its stack, and what `rt_sigreturn` makes of it |
//! | `altstack` | the alternate stack |
//! | `wait` | waiting for signals |
//! | `cause` | exceptions of user mode, as signals |
//!
//! **Locks.** Pending signals have a lock each, and so has the table of actions, which is found under the lock of the pointer to
//! it; no other is taken while one of them is held.
//!
//! **The notice.** What a thread looks at before user mode is one flag ([`ThreadSignals::notice`]). Whoever makes something for
//! it to do, or may have, sets the flag *afterwards*: a signal is pending, fewer are blocked, the process stops or ends, the
//! thread is to go. The thread clears it and looks at all of that *then*. So a thread whose flag is clear has nothing to do.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sync::SpinLock;

mod action;
mod altstack;
mod cause;
pub mod deliver;
pub mod frame;
mod pending;
mod send;
mod set;
pub mod wait;

pub use action::{Action, Actions, DefaultAction, STOPPING, default_of};
pub use altstack::AltStack;
pub use cause::of_exception;
pub use pending::{Pending, QueueFull};
pub use send::{force, may_signal, send_to_group, send_to_process, send_to_thread, set_action};
pub use set::SignalSet;

/// The signals of a process.
#[derive(Debug, Default)]
pub struct ProcessSignals {
    /// Those that any thread may take.
    pub pending: Pending,
    actions: SpinLock<Arc<Actions>>,
}

impl ProcessSignals {
    /// With these actions.
    pub fn new(actions: Arc<Actions>) -> Self {
        Self {
            pending: Pending::default(),
            actions: SpinLock::new(actions),
        }
    }

    /// What is done about each.
    pub fn actions(&self) -> Arc<Actions> {
        Arc::clone(&self.actions.lock())
    }

    /// What is done about `signal`.
    #[inline]
    pub fn action(&self, signal: u8) -> Action {
        self.actions.lock().get(signal)
    }

    /// Replaces all of it.
    pub fn set_actions(&self, actions: Arc<Actions>) {
        let old = core::mem::replace(&mut *self.actions.lock(), actions);
        drop(old);
    }
}

/// The signals of a thread.
#[derive(Debug)]
pub struct ThreadSignals {
    notice: AtomicBool,
    /// Those that only this thread may take.
    pub pending: Pending,
    blocked: AtomicU64,
    /// What is blocked again after the next delivery, while something else is (`rt_sigsuspend`, `ppoll`); else [`NOTHING`]. The
    /// thread's own.
    saved: AtomicU64,
    /// The alternate stack.
    pub altstack: SpinLock<AltStack>,
}

/// No set of blocked signals: SIGKILL is in none.
const NOTHING: u64 = u64::MAX;

impl ThreadSignals {
    /// Nothing pending, and `blocked` blocked. The thread looks once: its process may have something for it.
    pub fn new(blocked: SignalSet) -> Self {
        Self {
            notice: AtomicBool::new(true),
            pending: Pending::default(),
            blocked: AtomicU64::new(blocked.bits()),
            saved: AtomicU64::new(NOTHING),
            altstack: SpinLock::default(),
        }
    }

    /// What is blocked.
    #[inline]
    pub fn blocked(&self) -> SignalSet {
        SignalSet::from_bits(self.blocked.load(Ordering::Acquire))
    }

    /// Blocks these and no others; what was blocked before. What cannot be blocked is not. `of_process` is what is pending for
    /// any thread.
    pub fn block(&self, set: SignalSet, of_process: &Pending) -> SignalSet {
        let set = set - SignalSet::UNSTOPPABLE;
        let before = SignalSet::from_bits(self.blocked.swap(set.bits(), Ordering::AcqRel));
        if self.is_pending(of_process) {
            self.set_notice();
        }
        before
    }

    /// Set when there may be something for the thread to do before it goes to user mode.
    #[inline]
    pub fn notice(&self) -> &AtomicBool {
        &self.notice
    }

    /// Whether it is.
    #[inline]
    pub fn has_notice(&self) -> bool {
        self.notice.load(Ordering::Acquire)
    }

    /// There may be something.
    pub(super) fn set_notice(&self) {
        // Release: what it is is visible.
        self.notice.store(true, Ordering::Release);
    }

    /// The thread looks for it from here on.
    fn clear_notice(&self) {
        // A swap: what was there for the notices until now is visible, and the looks that follow do not come before.
        self.notice.swap(false, Ordering::AcqRel);
    }

    /// Blocks these for one wait: what was blocked is blocked again after the signal that ends it, or when
    /// [`Self::unblock_after_wait`] is called.
    pub fn block_for_wait(&self, set: SignalSet, of_process: &Pending) {
        let before = self.block(set, of_process);
        if self.saved.load(Ordering::Relaxed) == NOTHING {
            self.saved.store(before.bits(), Ordering::Relaxed);
        }
    }

    /// Ends [`Self::block_for_wait`], if no signal did.
    pub fn unblock_after_wait(&self, of_process: &Pending) {
        if let Some(saved) = self.take_saved() {
            self.block(saved, of_process);
        }
    }

    /// What is to be blocked after a delivery.
    fn take_saved(&self) -> Option<SignalSet> {
        let saved = self.saved.load(Ordering::Relaxed);
        (saved != NOTHING).then(|| {
            self.saved.store(NOTHING, Ordering::Relaxed);
            SignalSet::from_bits(saved)
        })
    }

    /// Whether there is one to deliver.
    #[inline]
    pub fn is_pending(&self, of_process: &Pending) -> bool {
        !((self.pending.set() | of_process.set()) - self.blocked()).is_empty()
    }
}
