//! The context, and the monitor's handle to it.

use alloc::sync::{Arc, Weak};
use core::fmt;

use bitflags::bitflags;

use super::event::{Event, ReadError};
use super::queue::{Queue, State};
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::memtype::Modes;
use crate::mm::range::VirtRange;
use crate::mm::space::Space;
use crate::mm::vma::{Registration, Vma};
use crate::sync::model::SpinLock;
use crate::task::{self, Task, TaskId, WaitReason};

/// What a monitor in [`Uffd::read_event`] waits for.
static READING: WaitReason = WaitReason("a userfault message");

bitflags! {
    /// What a context does differently when asked. The values are Linux's `UFFD_FEATURE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Features: u64 {
        /// Messages name the task.
        const THREAD_ID = 1 << 8;
        /// Messages carry the exact address instead of the page's.
        const EXACT_ADDRESS = 1 << 11;
        /// Write protection covers pages of anonymous memory that are not there yet.
        const WP_UNPOPULATED = 1 << 13;
    }
}

/// A context: delivers the faults of the registered ranges of one address space. Areas that are registered keep it alive.
pub struct Ctx {
    space: Weak<Space>,
    pub(super) features: Features,
    pub(super) queue: SpinLock<Queue>,
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// A monitor's handle to a context, like the descriptor on Linux. Shared through `Arc`; dropping the last one closes the
/// context: registrations end, and whoever waits is woken and finds plain memory. While a monitor is attached, dropping the
/// last one orphans the context instead: losing the monitor never shows as zeros.
#[derive(Debug)]
pub struct Uffd {
    pub(super) ctx: Arc<Ctx>,
}

impl Uffd {
    /// A context for the faults of `space`.
    pub fn new(space: &Arc<Space>, features: Features) -> Self {
        let ctx = Ctx {
            space: Arc::downgrade(space),
            features,
            queue: SpinLock::new(Queue::new()),
        };
        Self { ctx: Arc::new(ctx) }
    }

    /// The context behind the handle.
    pub fn ctx(&self) -> &Arc<Ctx> {
        &self.ctx
    }

    /// The next message; sleeps until there is one.
    ///
    /// # Errors
    /// [`ReadError::Closed`], [`ReadError::Orphaned`].
    #[inline(always)]
    pub fn read_event(&self) -> Result<Event, ReadError> {
        let me = task::current();
        loop {
            match self.ctx.next_event(Some(&me)) {
                Err(ReadError::WouldBlock) => task::park_on(&READING, self.ctx.address()),
                result => return result,
            }
            // Delivered while this task slept: it is off the list of readers, and no lock is needed.
            if let Some(event) = me.fault.inbox.take() {
                return Ok(event);
            }
        }
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`], [`ReadError::Closed`], [`ReadError::Orphaned`].
    pub fn try_read_event(&self) -> Result<Event, ReadError> {
        self.ctx.next_event(None)
    }

    /// Declares `monitor` the task that serves this context. From now on a fault of its own on the registered memory is
    /// refused instead of queued, and if it ends while it is attached, the context is orphaned. Attaching a new monitor to
    /// an orphaned context opens it again.
    pub fn attach_monitor(&self, monitor: &Arc<Task>) {
        {
            let mut queue = self.ctx.queue.lock();
            queue.monitor = Some(monitor.id());
            if queue.state == State::Orphaned {
                queue.state = State::Open;
            }
        }
        let (ctx, id) = (Arc::downgrade(&self.ctx), monitor.id());
        monitor.on_end(move |_, _| {
            if let Some(ctx) = ctx.upgrade() {
                ctx.monitor_ended(id);
            }
        });
    }

    /// Closes the context although there are other handles: registrations end, whoever waits is woken and finds plain
    /// memory, and reads say [`ReadError::Closed`].
    pub fn close(&self) {
        self.ctx.close();
    }

    /// Ends what [`Self::attach_monitor`] began: the monitor may end without consequences.
    pub fn detach_monitor(&self) {
        self.ctx.queue.lock().monitor = None;
    }
}

impl Drop for Uffd {
    fn drop(&mut self) {
        self.ctx.abandon();
    }
}

impl Ctx {
    /// The space whose faults are delivered, unless it is gone.
    #[inline]
    pub(super) fn space(&self) -> Option<Arc<Space>> {
        self.space.upgrade()
    }

    /// A context of no space.
    #[cfg(all(test, loom))]
    pub(super) fn of_nothing() -> Arc<Self> {
        let queue = SpinLock::new(Queue::new());
        Arc::new(Self {
            space: Weak::new(),
            features: Features::empty(),
            queue,
        })
    }

    /// Whether protecting a range covers its absent pages: a choice of the context that traps there, whoever protects.
    pub(crate) fn protects_unpopulated(&self) -> bool {
        self.features.contains(Features::WP_UNPOPULATED)
    }

    /// Which context this is, for messages: its address.
    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self) as usize
    }

    /// Whether the context was closed. Stays true; and stays false as long as the space's areas are locked.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().state == State::Closed
    }

    /// Whether the context's monitor ended without being detached.
    pub fn is_orphaned(&self) -> bool {
        self.queue.lock().state == State::Orphaned
    }

    fn monitor_ended(&self, monitor: TaskId) {
        if self.queue.lock().monitor == Some(monitor) {
            self.orphan();
        }
    }

    /// The last handle is gone. Whoever did not say that the monitor may go has lost it, and its handle with it: the
    /// handle of a task that ends is dropped before anything else is known of its end.
    fn abandon(self: &Arc<Self>) {
        let (monitor, state) = {
            let queue = self.queue.lock();
            (queue.monitor, queue.state)
        };
        match state {
            State::Open if monitor.is_some() => self.orphan(),
            State::Open => self.close(),
            State::Orphaned | State::Closed => {}
        }
    }

    /// Faults fail from now on.
    fn orphan(&self) {
        let mut queue = self.queue.lock();
        let (State::Open, Some(monitor)) = (queue.state, queue.monitor) else {
            return;
        };
        queue.state = State::Orphaned;
        queue.wake_all();
        queue.readers.wake_all();
        drop(queue);
        log::warn!(
            "userfault: monitor (task {monitor}) ended while attached; its missing pages fail from now on"
        );
    }

    /// Takes an area's registration away, with the write protection that came with it; who waits is the caller's business.
    /// Poison stays.
    pub(super) fn end_registration(space: &Space, vma: &mut Vma) -> Option<Registration> {
        let old = vma.uffd.take()?;
        if old.modes.contains(Modes::WP) {
            space.forget_write_protection(vma);
        }
        Some(old)
    }

    fn close(self: &Arc<Self>) {
        if let Some(space) = self.space() {
            // Areas first: nothing is queued any more once they are unregistered.
            let everything = VirtRange::new(VirtAddr::new(0), USER_TOP);
            let mut vmas = space.vmas().write();
            vmas.update_unsplit(everything, |vma| {
                if vma
                    .uffd
                    .as_ref()
                    .is_some_and(|registration| Arc::ptr_eq(&registration.ctx, self))
                {
                    Self::end_registration(&space, vma);
                }
            });
            // Before the areas are unlocked: nobody registers with a context that is about to deliver nothing.
            self.queue.lock().state = State::Closed;
        }
        let mut queue = self.queue.lock();
        queue.state = State::Closed;
        queue.wake_all();
        queue.readers.wake_all();
    }
}
