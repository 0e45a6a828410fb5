//! The context, and the monitor's handle to it.
//!
//! ```text
//!   Uffd ── Resolver ──► Ctx ◄── Registration of an area           Upcall ── Resolver ──► Ctx
//!   the monitor's        │                                         what a handler is given
//!                        └ space (weak), queue, what was agreed on
//! ```
//!
//! A context lives as long as a handle or a registered area, and does not keep its space alive.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::admit::{Admission, admit};
use super::api::{Features, Flags, Ioctls};
use super::classify::Trap;
use super::delivery::Delivery;
use super::event::{Event, ReadError};
use super::guest::GuestBacking;
use super::queue::{Queue, State};
use super::readers::Watcher;
use super::release::Release;
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::mm::fault::Origin;
use crate::mm::memtype::{Class, MemType, Modes};
use crate::mm::range::VirtRange;
use crate::mm::space::Space;
use crate::mm::vma::{Registration, Vma};
use crate::sync::Registry;
use crate::sync::model::SpinLock;
use crate::task::{self, Task, WaitReason};

/// What a monitor in [`Uffd::read_event`] waits for.
static READING: WaitReason = WaitReason::new("a message of userfault context");

/// That the handshake is made; Linux keeps it in the same bit of its word, and shows it.
pub(super) const READY: u64 = 1 << 31;

/// Number of a context; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CtxId(u64);

impl CtxId {
    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The context with this number.
    #[cfg(test)]
    pub(super) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for CtxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A flag that the release does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownFlag;

static CONTEXTS: Registry<CtxId, Ctx> = Registry::new();

/// All contexts, in the order in which they were made. Takes memory.
pub(super) fn all() -> Vec<Arc<Ctx>> {
    CONTEXTS.all()
}

/// Takes back the fault that `task`, the current one, waits for, at whatever context that is: a task that leaves a wait is
/// rare enough to look for it.
#[cold]
pub(super) fn withdraw_fault(task: &Arc<Task>) {
    let mut last = None;
    while let Some((id, ctx)) = CONTEXTS.after(last) {
        if ctx.withdraw_fault(task) {
            return;
        }
        last = Some(id);
    }
}

/// Calls `f` for each context without waiting and without memory; says whether that could be done.
pub(super) fn look_at_each(f: impl FnMut(&Arc<Ctx>)) -> bool {
    CONTEXTS.look_at_each(f)
}

/// A context: delivers the faults of the registered ranges of one address space. Areas that are registered keep it alive.
pub struct Ctx {
    id: CtxId,
    space: Weak<Space>,
    /// The guest's memory that it serves instead of a space.
    guest: Option<Weak<dyn GuestBacking>>,
    flags: Flags,
    release: &'static Release,
    /// [`Features`], and [`READY`] once the handshake is made.
    features: AtomicU64,
    /// [`Ioctls`]; none before the handshake.
    commands: AtomicU64,
    pub(super) delivery: Delivery,
    pub(super) queue: SpinLock<Queue>,
    /// See [`Ctx::policy_answers`]; changes with the queue's state, under its lock.
    pub(super) policy_answers: AtomicBool,
    /// Handles that are not dropped yet.
    pub(super) handles: AtomicUsize,
    /// Layout changes that have begun and are not over. Raised with the space's areas locked.
    changing: AtomicUsize,
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("id", &self.id)
            .field("flags", &self.flags)
            .field("release", &self.release.name)
            .field("features", &self.features())
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// What resolves faults of a context: the operations of [`super::ops`]. A monitor has them through its [`Uffd`], an upcall
/// through the fault that it is given.
#[derive(Debug)]
pub struct Resolver {
    pub(super) ctx: Arc<Ctx>,
}

impl Resolver {
    /// The context.
    pub fn ctx(&self) -> &Arc<Ctx> {
        &self.ctx
    }

    /// Whether the layout of the space changes, and fills are refused; see [`super::layout`].
    pub fn is_changing(&self) -> bool {
        self.ctx.is_changing()
    }
}

/// A monitor's handle to a context, like the descriptor on Linux. Shared through `Arc`; dropping the last one closes the
/// context: registrations end, and whoever waits is woken and finds plain memory. While a monitor is attached, dropping the
/// last one loses the monitor instead ([`super::policy`]).
///
/// A task that forks the space has a handle too until its event is read, like the child on Linux, which has inherited the
/// descriptor by then: dropping the last one elsewhere does not let that task go.
#[derive(Debug)]
pub struct Uffd {
    resolver: Resolver,
}

impl Deref for Uffd {
    type Target = Resolver;

    #[inline]
    fn deref(&self) -> &Resolver {
        &self.resolver
    }
}

impl Uffd {
    /// A context for the faults of `space`, which are read as messages. It is ready; nothing is negotiated.
    pub fn new(space: &Arc<Space>, features: Features) -> Self {
        Self::with_delivery(space, features, Delivery::Queue)
    }

    /// The same, made with `flags`.
    pub fn with_flags(space: &Arc<Space>, flags: Flags, features: Features) -> Self {
        Self::ready(
            Ctx::new(Arc::downgrade(space), flags, &Release::ALL, Delivery::Queue),
            features,
        )
    }

    /// A context for the faults of `space`, which are handed over in the given way. It is ready.
    pub fn with_delivery(space: &Arc<Space>, features: Features, delivery: Delivery) -> Self {
        Self::ready(
            Ctx::new(Arc::downgrade(space), Flags::empty(), &Release::ALL, delivery),
            features,
        )
    }

    /// A fresh context for the faults of `space` that offers what `release` did: everything is refused until
    /// [`Self::api`] has been called.
    ///
    /// # Errors
    /// The release does not have one of the flags (Linux: EINVAL).
    pub fn open(space: &Arc<Space>, flags: Flags, release: &'static Release) -> Result<Self, UnknownFlag> {
        if !release.flags.contains(flags) {
            return Err(UnknownFlag);
        }
        let ctx = Ctx::new(Arc::downgrade(space), flags, release, Delivery::Queue);
        Ok(Self::of(ctx))
    }

    pub(super) fn ready(ctx: Arc<Ctx>, features: Features) -> Self {
        ctx.make_ready(features);
        Self::of(ctx)
    }

    /// The handle to a context that has none yet.
    pub(super) fn of(ctx: Arc<Ctx>) -> Self {
        Self {
            resolver: Resolver { ctx },
        }
    }

    /// One more handle to `ctx`, unless it has none any more.
    pub(super) fn another(ctx: &Arc<Ctx>) -> Option<Self> {
        let one_more = |handles: usize| (handles > 0).then(|| handles + 1);
        ctx.handles
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Self::of(Arc::clone(ctx)))
    }

    /// The next message; sleeps until there is one.
    ///
    /// # Errors
    /// [`ReadError::Closed`], [`ReadError::Orphaned`]; [`ReadError::Interrupted`] when the task is told something else
    /// while there is none.
    #[inline(always)]
    pub fn read_event(&self) -> Result<Event, ReadError> {
        self.read_event_if(|_| true)
    }

    /// [`Self::read_event`] by a caller that may be unable to take an event, a fork's for example. `admit` is not asked
    /// about faults; it must not wait.
    ///
    /// # Errors
    /// [`ReadError::NotAdmitted`] also: the event stays queued, and its task waits on.
    #[inline(always)]
    pub fn read_event_if(&self, mut admit: impl FnMut(&Event) -> bool) -> Result<Event, ReadError> {
        let me = task::current();
        loop {
            match self.ctx.next_unless_quiet(&me, &mut admit) {
                None | Some(Err(ReadError::WouldBlock)) => {}
                Some(result) => return result,
            }
            if me.has_signal() {
                return self.ctx.stop_reading(&me);
            }
            task::park_on(&READING, self.ctx.number());
            // Delivered while this task slept: it is off the list of readers, and no lock is needed.
            if let Some(fault) = me.fault.inbox.take() {
                return Ok(fault.told_by(&self.ctx));
            }
        }
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`], [`ReadError::Closed`], [`ReadError::Orphaned`].
    pub fn try_read_event(&self) -> Result<Event, ReadError> {
        self.try_read_event_if(|_| true)
    }

    /// [`Self::try_read_event`] by a caller that may be unable to take an event; see [`Self::read_event_if`].
    ///
    /// # Errors
    /// [`ReadError::NotAdmitted`] also.
    pub fn try_read_event_if(&self, admit: impl FnOnce(&Event) -> bool) -> Result<Event, ReadError> {
        self.ctx.next_event(admit)
    }

    /// Whether a read would find something (Linux: POLLIN): a fault or an event that is not read yet.
    pub fn is_readable(&self) -> bool {
        self.ctx.has_message()
    }

    /// Has `watcher` told from now on when there is something to read that no reader was given; instead of whom it told
    /// before.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.ctx.watch(watcher);
    }

    /// Closes the context although there are other handles: registrations end, whoever waits is woken and finds plain
    /// memory, announced events are dropped, and reads say [`ReadError::Closed`].
    pub fn close(&self) {
        self.ctx.close();
    }
}

impl Drop for Uffd {
    fn drop(&mut self) {
        // Release and acquire: the last one sees what the others did with theirs.
        if self.ctx.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ctx.abandon();
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // Its end concerns nobody any more.
        self.forget_monitor();
        CONTEXTS.leave(self.id);
    }
}

impl PartialEq for Uffd {
    /// Whether both are handles to the same context.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ctx, &other.ctx)
    }
}

impl Eq for Uffd {}

impl Ctx {
    /// A fresh context that is about to get its first handle.
    fn new(space: Weak<Space>, flags: Flags, release: &'static Release, delivery: Delivery) -> Arc<Self> {
        Self::enter(space, None, flags, release, delivery)
    }

    /// The same for a guest's memory.
    pub(super) fn of_guest(
        backing: Weak<dyn GuestBacking>,
        flags: Flags,
        release: &'static Release,
        delivery: Delivery,
    ) -> Arc<Self> {
        Self::enter(Weak::new(), Some(backing), flags, release, delivery)
    }

    fn enter(
        space: Weak<Space>,
        guest: Option<Weak<dyn GuestBacking>>,
        flags: Flags,
        release: &'static Release,
        delivery: Delivery,
    ) -> Arc<Self> {
        let ctx = Arc::new(Self {
            id: CtxId::next(),
            space,
            guest,
            flags,
            release,
            features: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            delivery,
            queue: SpinLock::new(Queue::new()),
            policy_answers: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            changing: AtomicUsize::new(0),
        });
        CONTEXTS.enter(ctx.id, &ctx);
        ctx
    }

    /// A context like this one for `child`, a copy of its space, and the only handle to it. It has no monitor yet.
    pub(super) fn forked(&self, child: &Arc<Space>) -> Uffd {
        let space = Arc::downgrade(child);
        let ctx = Self::new(space, self.flags, self.release, self.delivery.clone());
        let uffd = Uffd::ready(ctx, self.features());
        uffd.on_monitor_death(self.queue.lock().on_death);
        uffd
    }

    /// Ends the handshake: `features` are in force from now on. False when it was made before.
    pub(super) fn make_ready(&self, features: Features) -> bool {
        let word = features.with_implied().bits() | READY;
        let (set, fail) = (Ordering::Release, Ordering::Relaxed);
        if self.features.compare_exchange(0, word, set, fail).is_err() {
            return false;
        }
        self.queue.lock().open();
        self.commands.store(self.release.ioctls.bits(), Ordering::Release);
        true
    }

    /// Whether the handshake is made.
    pub fn is_ready(&self) -> bool {
        self.features.load(Ordering::Relaxed) != 0
    }

    /// What it was asked for.
    #[inline]
    pub fn features(&self) -> Features {
        Features::from_bits_truncate(self.features.load(Ordering::Relaxed))
    }

    /// What it was made with.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// What it offers.
    #[inline]
    pub fn release(&self) -> &'static Release {
        self.release
    }

    /// Which commands it has, for now.
    #[inline]
    pub(super) fn commands(&self) -> Ioctls {
        Ioctls::from_bits_truncate(self.commands.load(Ordering::Acquire))
    }

    /// Which context this is.
    pub fn id(&self) -> CtxId {
        self.id
    }

    /// The same for messages about who waits for what.
    pub(super) fn number(&self) -> usize {
        self.id.0 as usize
    }

    /// The space whose faults are delivered, unless it is gone.
    #[inline]
    pub(super) fn space(&self) -> Option<Arc<Space>> {
        self.space.upgrade().filter(|space| !space.is_retired())
    }

    /// The same, borrowed: from `task`, the running one, if it lives there, which keeps it; else from `counted`.
    #[inline]
    pub(super) fn space_by<'a>(
        &self,
        task: &'a Task,
        counted: &'a mut Option<Arc<Space>>,
    ) -> Option<&'a Space> {
        match task.space() {
            Some(space) if self.belongs_to(space) && !space.is_retired() => Some(space),
            _ => {
                *counted = self.space();
                counted.as_deref()
            }
        }
    }

    /// The guest's memory that it serves, if that is what it serves.
    #[inline]
    pub(super) fn guest(&self) -> Option<&Weak<dyn GuestBacking>> {
        self.guest.as_ref()
    }

    /// Whether accesses at `addr` are this context's business (still).
    pub(super) fn traps_at(&self, addr: VirtAddr) -> bool {
        if let Some(delegated) = self.guest_delegates(addr) {
            return delegated;
        }
        let registration = self
            .space()
            .and_then(|space| space.query(addr))
            .and_then(|vma| vma.uffd);
        registration.is_some_and(|registration| registration.ctx.id == self.id)
    }

    /// Whether it delivers the faults of `space`. Also true to say of a space that is gone: no other has its address while
    /// the context lives.
    pub(super) fn belongs_to(&self, space: &Space) -> bool {
        core::ptr::eq(self.space.as_ptr(), space)
    }

    /// A context of no space.
    #[cfg(all(test, loom))]
    pub(super) fn of_nothing() -> Arc<Self> {
        let ctx = Self::new(Weak::new(), Flags::empty(), &Release::ALL, Delivery::Queue);
        ctx.make_ready(Features::all());
        ctx
    }

    /// Whether a layout change of registered memory has begun and is not over. Stays as it is for whoever holds the
    /// space's areas, if the change began with exclusive ones.
    #[inline]
    pub(crate) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Acquire) != 0
    }

    pub(super) fn raise_changing(&self) {
        self.changing.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn lower_changing(&self) {
        self.changing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether protecting a range covers its absent pages: a choice of the context that traps there, whoever protects.
    pub(crate) fn protects_unpopulated(&self) -> bool {
        self.has(Features::WP_UNPOPULATED)
    }

    /// Whether the context was asked for all of `features`.
    #[inline]
    pub(super) fn has(&self, features: Features) -> bool {
        self.features.load(Ordering::Relaxed) & features.bits() == features.bits()
    }

    /// Whether the registration of memory that moves goes along.
    pub(crate) fn follows_moves(&self) -> bool {
        self.has(Features::EVENT_REMAP)
    }

    /// Whether stores to protected pages are only noted, by ending the protection.
    #[inline]
    pub(crate) fn tracks_stores(&self) -> bool {
        self.has(Features::WP_ASYNC)
    }

    /// Whether memory of type `ty` may be registered with `modes` although its table does not have them: noting stores takes
    /// nothing but the page tables.
    pub(super) fn only_tracks(&self, ty: &MemType, modes: Modes) -> bool {
        self.tracks_stores() && modes == Modes::WP && ty.class != Class::Special
    }

    /// What becomes of a trap that an access on the account of `origin` raises.
    #[inline(always)]
    pub(crate) fn admit(&self, trap: Trap, origin: Origin) -> Admission {
        let features = self.features();
        if origin == Origin::Task && !features.intersects(Features::SIGBUS.union(Features::WP_ASYNC)) {
            return Admission::Message;
        }
        admit(self.flags, features, trap, origin)
    }

    /// Whether the context was closed. Stays true; and stays false as long as the space's areas are locked.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().state == State::Closed
    }

    /// Takes away the write protection that came with a registration from part of its area; who waits is the caller's business.
    /// Poison stays.
    pub(super) fn forget_protection(space: &Space, vma: &Vma, part: VirtRange, registration: &Registration) {
        if registration.modes.contains(Modes::WP) {
            space.forget_write_protection(vma, part);
        }
    }

    pub(super) fn close(self: &Arc<Self>) {
        if let Some(space) = self.space() {
            // Areas first: nothing is queued any more once they are unregistered.
            let everything = VirtRange::new(VirtAddr::new(0), USER_TOP);
            let mut vmas = space.vmas().write();
            let ours = |vma: &Vma| {
                let registration = vma.uffd.as_ref();
                registration.is_some_and(|registration| Arc::ptr_eq(&registration.ctx, self))
            };
            vmas.update_unsplit(everything, ours, |vma| {
                if let Some(old) = vma.uffd.take() {
                    Self::forget_protection(&space, vma, vma.range, &old);
                }
            });
            // Before the areas are unlocked: nobody registers with a context that is about to deliver nothing.
            self.queue.lock().state = State::Closed;
        }
        let mut queue = self.queue.lock();
        queue.state = State::Closed;
        queue.dismiss_all();
    }
}
