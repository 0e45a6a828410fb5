//! Changes of a space's layout that a monitor is told about: the events beside page faults.
//!
//! ```text
//!   task in fork, mremap, madvise, munmap             monitor
//!   ─────────────────────────────────────             ───────
//!   Change::begin      areas locked, counter raised
//!   does its work, unlocks
//!   Change::announce   queues the event, sleeps ────► Uffd::read_event
//!   goes on ◄──────────────────────────────────────── reading is enough
//!   drop               counter lowered
//! ```
//!
//! A monitor keeps its own picture of the space, and the events let it follow. Between the change and the reading the
//! picture is wrong, so while the counter of a context is not zero every fill, MOVE and WRITEPROTECT of that context is
//! refused, whatever its arguments (Linux: EAGAIN). Registering, unregistering, waking and reading go on.
//!
//! The caller sleeps until its event is *read*, not until anything is done about it. It is also let go when the context is
//! closed or loses its monitor, and when the task is killed; its operation then completes as if nobody had asked.
//!
//! A task announces one event at a time, so the record is part of the task ([`EventSlot`]) and queueing it allocates
//! nothing. It shares its link with the task's fault: nobody waits for both.

use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::api::Features;
use super::ctx::Ctx;
use super::event::Event;
use crate::mm::reserve::reserve;
use crate::sync::SpinLock;
use crate::sync::model::atomic::{AtomicBool, Ordering};
use crate::task::{self, WaitReason};

/// What a task that announces an event waits for.
static READ: WaitReason = WaitReason::uninterruptible("its event to be read at userfault context");

/// A layout change that one context is told about; its fills are refused as long as this lives.
///
/// Dropping it without [`Self::announce`] says that the change did not happen.
#[must_use = "fills are allowed again once it is dropped"]
#[derive(Debug)]
pub(crate) struct Change {
    ctx: Arc<Ctx>,
}

impl Change {
    /// A change of memory that is registered with `ctx` begins; `None` when the context did not ask for `feature`.
    ///
    /// The caller holds the space's areas. If it holds them exclusively, every fill of the context either was complete
    /// before or is refused.
    pub(crate) fn begin(ctx: &Arc<Ctx>, feature: Features) -> Option<Self> {
        if !ctx.has(feature) {
            return None;
        }
        ctx.raise_changing();
        Some(Self { ctx: Arc::clone(ctx) })
    }

    /// The context.
    pub(crate) fn ctx(&self) -> &Arc<Ctx> {
        &self.ctx
    }

    /// Tells the context and waits until the event is read, or nobody will read it any more, or the current task is killed.
    /// An event that is not read is dropped, and a child's context that is in it goes the way of this one.
    ///
    /// # Panics
    /// A lock is held.
    pub(crate) fn announce(&self, event: Event) {
        debug_assert!(self.ctx.has(event.feature()));
        let me = task::current();
        let unread = match self.ctx.enqueue_event(&me, event) {
            Ok(()) => {
                while me.event.is_queued() {
                    if me.is_killed() {
                        self.ctx.withdraw_event(&me);
                        break;
                    }
                    task::park_on(&READ, self.ctx.number());
                }
                me.remind();
                me.event.take()
            }
            Err(event) => Some(event),
        };
        if let Some(Event::Fork { uffd }) = &unread {
            uffd.ctx.share_orphanhood(&self.ctx);
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.ctx.lower_changing();
    }
}

/// What one operation changes for several contexts: one [`Change`] each, however many of their areas it touches.
#[derive(Default, Debug)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    /// The operation touches memory that is registered with `ctx`. Rules as for [`Change::begin`].
    ///
    /// # Errors
    /// No kernel memory for one more; the operation should not go on.
    pub(crate) fn begin(&mut self, ctx: &Arc<Ctx>, feature: Features) -> Result<(), TryReserveError> {
        if self.0.iter().any(|change| Arc::ptr_eq(&change.ctx, ctx)) {
            return Ok(());
        }
        reserve(&mut self.0, 1)?;
        self.0.extend(Change::begin(ctx, feature));
        Ok(())
    }

    /// Whether nobody is to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all contexts, one after the other, and lets each fill again as soon as it has read.
    ///
    /// # Panics
    /// A lock is held.
    pub(crate) fn announce(self, event: impl Fn() -> Event) {
        for change in self.0 {
            change.announce(event());
        }
    }
}

/// The event that a task waits to be read.
#[derive(Debug)]
pub struct EventSlot {
    /// Changes under the queue lock of the context; the task itself looks without it.
    queued: AtomicBool,
    event: SpinLock<Option<Event>>,
}

impl Default for EventSlot {
    fn default() -> Self {
        Self {
            queued: AtomicBool::new(false),
            event: SpinLock::new(None),
        }
    }
}

impl EventSlot {
    /// Whether the task has to sleep on.
    pub fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Acquire)
    }

    /// Under the queue lock.
    pub(super) fn arm(&self, event: Event) {
        *self.event.lock() = Some(event);
        self.queued.store(true, Ordering::Release);
    }

    /// Off the queue, with the event taken out or left in. Under the queue lock.
    pub(super) fn disarm(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// What `look` makes of the event that is in.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Event) -> R) -> Option<R> {
        self.event.lock().as_ref().map(look)
    }

    /// Takes the event out.
    pub(super) fn take(&self) -> Option<Event> {
        self.event.lock().take()
    }
}
