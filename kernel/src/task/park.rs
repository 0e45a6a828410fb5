//! `park` and `unpark`: one word, one token.
//!
//! ```text
//!             unpark                       park
//!   EMPTY ─────────────► NOTIFIED      EMPTY ──► PARKED     the task leaves its CPU
//!     ▲                     │                      │ unpark: NOTIFIED, and exactly this unpark resumes the task
//!     └──── park: returns ──┘                      ▼
//! ```
//!
//! `unpark` is one swap. The unpark that finds PARKED is the only one to resume the task, so a task is never in a run
//! queue twice; any number of unparks before the next `park` leave one token. Between PARKED and the switch the task
//! is still on its CPU: whoever resumes it elsewhere waits for that (see `switch`).
//!
//! Every interleaving of this file is explored: see [`mod@crate::task::wait`] for the command.

use super::wait::WaitReason;
use super::{Task, current, engine};
use crate::sync::model::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const NOTIFIED: u8 = 1;
const PARKED: u8 = 2;

/// The state of `park` and `unpark` of one task.
#[derive(Debug)]
pub struct ParkWord(AtomicU8);

impl ParkWord {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(EMPTY))
    }

    /// Takes the token if there is one.
    #[inline]
    pub(super) fn take_token(&self) -> bool {
        // Acquire: what the waker did before `unpark` is visible after `park`.
        self.0.swap(EMPTY, Ordering::Acquire) == NOTIFIED
    }

    /// Goes to PARKED, or takes the token instead and says `false`. Only the task itself calls this.
    #[inline]
    pub(super) fn begin(&self) -> bool {
        // Release: whoever resumes the task sees what it did before.
        match self
            .0
            .compare_exchange(EMPTY, PARKED, Ordering::Release, Ordering::Relaxed)
        {
            Ok(_) => true,
            Err(_) => !self.take_token(),
        }
    }

    /// Leaves a token; `true` when the task is parked, and then the caller must resume it.
    #[inline]
    pub(super) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == PARKED
    }

    /// Whether the task waits, as an observer sees it.
    pub(super) fn is_parked(&self) -> bool {
        // Acquire: what the task noted down before it parked (its reason) is visible to the observer.
        self.0.load(Ordering::Acquire) == PARKED
    }
}

impl Task {
    /// Gives the task its token: its current or next [`park`] returns. From any context, interrupt handlers included.
    ///
    /// Woken from a task, the woken one is next on this CPU when the waker parks (see the direct switch in
    /// [`crate::task`]). A task that has ended takes no notice.
    #[inline]
    pub fn unpark(&self) {
        if let Some(woken) = self.wake() {
            engine::resume(woken);
        }
    }

    /// [`unpark`](Self::unpark) that leaves the resuming to the caller.
    #[inline]
    pub(super) fn wake(&self) -> Option<Woken<'_>> {
        self.park.notify().then_some(Woken(self))
    }
}

/// A task that was parked and must now be resumed; there is one per park.
#[must_use]
#[derive(Debug)]
pub(super) struct Woken<'a>(&'a Task);

impl<'a> Woken<'a> {
    /// The task.
    pub(super) fn task(&self) -> &'a Task {
        self.0
    }
}

/// Waits for a token: returns at once if one is there, else when [`Task::unpark`] leaves one.
///
/// Returning means "look again", not "it happened": callers loop around their condition.
///
/// # Panics
/// Preemption or interrupts are off (a lock is held), whether or not there is a token: the task would take the lock to
/// sleep with it, some day.
#[track_caller]
#[inline]
pub fn park() {
    static WAKE_UP: WaitReason = WaitReason::new("a wake-up");
    park_on(&WAKE_UP, 0);
}

/// [`park`], telling observers what is waited for: the kind, and an address or number that says which one.
#[track_caller]
#[inline(always)]
pub fn park_on(reason: &'static WaitReason, which: usize) {
    let me = current();
    me.waiting.set(reason, which);
    let section = engine::Section::enter_to_sleep(reason);
    if me.park.begin() {
        me.switches.count_voluntary();
        engine::block(&me);
        me.park.take_token();
    }
    section.leave();
}
