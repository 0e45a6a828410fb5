//! Who serves a context, and what becomes of its faults when that task ends.
//!
//! A monitor that is attached ([`Uffd::attach_monitor`]) and then ends, or whose last handle goes, has been lost. What
//! follows was declared before ([`Uffd::on_monitor_death`]):
//!
//! | policy | whoever waits, and later touches of what is delegated | events that are announced |
//! | --- | --- | --- |
//! | [`Fail`](MonitorDeath::Fail) | fail with [`FaultError::MonitorGone`]; the task decides what that means | dropped |
//! | [`Hang`](MonitorDeath::Hang) | wait on; other readers may serve them | wait on |
//! | [`Poison`](MonitorDeath::Poison) | find the page poisoned, for good | dropped |
//! | [`Kill`](MonitorDeath::Kill) | end the task that touches | dropped |
//! | [`Zero`](MonitorDeath::Zero) | find plain memory: zeros (Linux's close) | dropped |
//! | [`Reattach`](MonitorDeath::Reattach) | wait for the next monitor, which reads all of them again | wait on |
//!
//! `Fail` is the default: no silent zeros, no hang, and an error that the task can handle. `Kill` is the same for a task
//! that is not to go on in any case. Under all but `Zero`, which closes the context, the next monitor that is attached
//! opens the context again; only `Reattach` gives it what the dead one had read and not resolved.
//!
//! `Poison` and `Kill` happen on the task that touches, after all guards are dropped, like an upcall
//! ([`super::delivery::upcall`]): a waiter is woken, touches again, and finds its context without a monitor.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::Ordering;

use super::classify::TrapKind;
use super::ctx::{Ctx, Resolver, Uffd};
use super::delivery::Upcall;
use super::ops::{FillMode, Outcome, Refusal};
use super::queue::{Queue, State};
use crate::mm::addr::GuestPhysAddr;
use crate::mm::fault::FaultError;
use crate::mm::pt::{Entry, Marker};
use crate::mm::range::{GuestRange, VirtRange};
use crate::task::{EndHook, Task, TaskId};

/// What becomes of a context's faults when its monitor has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MonitorDeath {
    /// They fail, and so do later ones.
    #[default]
    Fail,
    /// Nothing: whoever waits goes on waiting, read or not, and others queue up.
    Hang,
    /// Their pages are poisoned. A store to a protected page fails as under `Fail`: the page is there.
    Poison,
    /// The task that touches is ended. What the kernel touches on its behalf fails, and the task is killed.
    Kill,
    /// The context is closed and its memory plain, as on Linux. Losing a monitor then shows as zeros, or not at all.
    Zero,
    /// They wait until another monitor is attached.
    Reattach,
}

impl MonitorDeath {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Fail,
        Self::Hang,
        Self::Poison,
        Self::Kill,
        Self::Zero,
        Self::Reattach,
    ];
    /// Their names, in the same order.
    pub const NAMES: &[&str] = &["fail", "hang", "poison", "kill", "zero", "reattach"];

    /// What it is called where a user chooses.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// What it means for whoever touches memory of the context.
    const fn consequence(self) -> &'static str {
        match self {
            Self::Fail => "its missing pages fail from now on",
            Self::Hang => "whoever waits goes on waiting",
            Self::Poison => "its missing pages are poisoned",
            Self::Kill => "whoever touches a missing page is ended",
            Self::Zero => "its memory is plain from now on, and missing pages are zeros",
            Self::Reattach => "whoever waits does so for the next monitor",
        }
    }

    /// Whether faults and events are still queued.
    pub(super) const fn queues(self) -> bool {
        matches!(self, Self::Hang | Self::Reattach)
    }
}

impl fmt::Display for MonitorDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The task that serves a context.
#[derive(Debug)]
pub(super) struct Monitor {
    pub id: TaskId,
    /// Not counted: the task may run in the very space whose areas keep the context.
    pub task: Weak<Task>,
}

impl Uffd {
    /// Declares `monitor` the task that serves this context. From now on a fault of its own on the registered memory is
    /// refused instead of queued, and if it ends while it is attached, the context has lost its monitor (see
    /// [`super::policy`]). A context that has lost one is open again.
    ///
    /// There is one monitor at a time. On a context with upcalls it serves nothing, but losing it counts all the same: from
    /// then on the policy answers instead of the handler, except under the policies that wait, which leave that to it.
    pub fn attach_monitor(&self, monitor: &Arc<Task>) {
        let ctx = &self.ctx;
        let weak = Arc::downgrade(ctx);
        let id = monitor.id();
        let hook = Box::new(move |_: &Task, _: &_| {
            if let Some(ctx) = weak.upgrade() {
                ctx.lose_monitor(id);
            }
        });
        let mut hook = EndHook::numbered(ctx.id().as_u64(), hook);
        // Under the lock, so that the hooks of tasks and who is attached never disagree. What is replaced is dropped after it.
        let mut queue = ctx.queue.lock();
        if let State::Orphaned(policy) = queue.state {
            ctx.enter_state(&mut queue, State::Open);
            if policy == MonitorDeath::Reattach {
                queue.unread_all();
            }
        }
        let new = Monitor {
            id,
            task: Arc::downgrade(monitor),
        };
        let old = queue.monitor.replace(new).and_then(|old| old.task.upgrade());
        let old_hook = old.as_ref().and_then(|old| old.take_end_hook(ctx.id().as_u64()));
        let is_set = monitor.set_end_hook(&mut hook);
        drop(queue);
        if !is_set {
            // It has ended already.
            ctx.lose_monitor(id);
        }
        drop((old, old_hook, hook));
    }

    /// Ends what [`Self::attach_monitor`] began: the monitor may end without consequences.
    pub fn detach_monitor(&self) {
        self.ctx.forget_monitor();
    }

    /// Declares what is to happen when the attached monitor ends; [`MonitorDeath::Fail`] unless this is called. A monitor
    /// that has ended already makes no difference.
    pub fn on_monitor_death(&self, policy: MonitorDeath) {
        self.ctx.queue.lock().on_death = policy;
    }

    /// A handle to a context that has lost its monitor and its last handle with it; `None` when there is a handle, or
    /// nothing to go on with.
    pub fn reopen(ctx: &Arc<Ctx>) -> Option<Self> {
        let queue = ctx.queue.lock();
        let lost = matches!(queue.state, State::Orphaned(_));
        let taken = lost
            && ctx
                .handles
                .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        drop(queue);
        taken.then(|| Self::of(Arc::clone(ctx)))
    }
}

impl Ctx {
    /// Whether the context's monitor ended without being detached, and no other is attached.
    pub fn is_orphaned(&self) -> bool {
        matches!(self.queue.lock().state, State::Orphaned(_))
    }

    /// Nobody is the monitor.
    pub(super) fn forget_monitor(&self) {
        let mut queue = self.queue.lock();
        let task = queue.monitor.take().and_then(|monitor| monitor.task.upgrade());
        let hook = task
            .as_ref()
            .and_then(|task| task.take_end_hook(self.id().as_u64()));
        drop(queue);
        drop((task, hook));
    }

    /// The last handle is gone. Whoever did not say that the monitor may go has lost it, and its handle with it: the
    /// handle of a task that ends is dropped before anything else is known of its end.
    pub(super) fn abandon(self: &Arc<Self>) {
        let (attached, state) = {
            let queue = self.queue.lock();
            (queue.monitor.as_ref().map(|monitor| monitor.id), queue.state)
        };
        match (state, attached) {
            (State::Open, Some(monitor)) => self.lose_monitor(monitor),
            (State::Fresh | State::Open, _) => self.close(),
            (State::Orphaned(_) | State::Closed, _) => {}
        }
        // Nobody can read without a handle, and the last reader may be what keeps the space that keeps this context.
        self.queue.lock().readers.disband();
    }

    /// The policy takes effect, once, if `id` is the monitor: another may have been attached in its place.
    #[cold]
    pub(super) fn lose_monitor(self: &Arc<Self>, id: TaskId) {
        let mut queue = self.queue.lock();
        let attached = queue.monitor.as_ref().is_some_and(|monitor| monitor.id == id);
        if queue.state != State::Open || !attached {
            return;
        }
        let policy = queue.on_death;
        match policy {
            MonitorDeath::Zero => {
                drop(queue);
                self.close();
            }
            _ => {
                self.enter_state(&mut queue, State::Orphaned(policy));
                match policy {
                    MonitorDeath::Hang => {}
                    MonitorDeath::Reattach => queue.readers.disband(),
                    _ => queue.dismiss_all(),
                }
                drop(queue);
            }
        }
        log::warn!(
            "userfault: monitor (task {id}) of context {} ended while attached; {}",
            self.id(),
            policy.consequence()
        );
    }

    /// The context of a fork's child, whose parent lost its monitor before it could be told: nobody will serve the child
    /// either.
    pub(super) fn share_orphanhood(&self, parent: &Self) {
        let state = parent.queue.lock().state;
        if let State::Orphaned(_) = state {
            self.enter_state(&mut self.queue.lock(), state);
        }
    }

    /// The monitor is lost, or there is one again.
    fn enter_state(&self, queue: &mut Queue, state: State) {
        queue.state = state;
        let answers = matches!(state, State::Orphaned(policy) if !policy.queues());
        self.policy_answers.store(answers, Ordering::Release);
    }

    /// Whether the monitor is lost and the policy does not wait for another: [`resolve`] says what becomes of faults. Takes
    /// no lock.
    #[inline]
    pub(super) fn policy_answers(&self) -> bool {
        self.policy_answers.load(Ordering::Acquire)
    }
}

/// Does on the faulting task what the policy says about a fault that nobody serves. `Ok` means: execute the access again.
///
/// # Errors
/// The access fails; [`FaultError::Killed`]: the task is to end.
pub(super) fn resolve(fault: &Upcall<'_>) -> Result<(), FaultError> {
    let state = fault.ctx().queue.lock().state;
    match state {
        State::Orphaned(MonitorDeath::Kill) => Err(FaultError::Killed),
        State::Orphaned(MonitorDeath::Poison) if fault.trap().kind != TrapKind::WriteProtect => {
            poison(fault, fault.page())
        }
        State::Orphaned(_) => Err(FaultError::MonitorGone),
        // A monitor was attached meanwhile, or the memory is plain.
        State::Fresh | State::Open | State::Closed => Ok(()),
    }
}

/// Poisons a page. Somebody may be faster: another task that touches it as well, or who fills it. A marker of write
/// protection goes, since nothing waits behind it any more.
fn poison(resolver: &Resolver, page: VirtRange) -> Result<(), FaultError> {
    if let Some(stage2) = resolver.stage2() {
        let page = GuestRange::page(GuestPhysAddr::new(page.start.as_u64()));
        return match stage2.poison(page, FillMode::empty()) {
            Outcome::Refused(Refusal::OutOfMemory) => Err(FaultError::OutOfMemory),
            Outcome::Done | Outcome::Partial { .. } | Outcome::Refused(_) => Ok(()),
        };
    }
    for _ in 0..2 {
        match resolver.poison(page, FillMode::empty()) {
            Outcome::Refused(Refusal::Exists) => {
                let Some(space) = resolver.ctx.space() else {
                    return Ok(());
                };
                match space.entry(page.start).0 {
                    Entry::Absent(Marker::UffdWp) => {
                        let removed = resolver.remove_write_protection(page, FillMode::DONTWAKE);
                        removed.map_err(|_| FaultError::MonitorGone)?;
                    }
                    Entry::Leaf(_) | Entry::Absent(_) => return Ok(()),
                    // Parts of it are there.
                    Entry::Table(_) => return Err(FaultError::MonitorGone),
                }
            }
            Outcome::Refused(Refusal::OutOfMemory) => return Err(FaultError::OutOfMemory),
            Outcome::Refused(Refusal::Unsupported) => return Err(FaultError::MonitorGone),
            // Unmapped, unregistered, changing: the next look decides.
            Outcome::Done | Outcome::Partial { .. } | Outcome::Refused(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::arch::host::{Config, SoftMachine};
    use crate::mm::space::{Privilege, Space};
    use crate::uffd::Features;

    fn context() -> Uffd {
        let space = Space::new(Privilege::Kernel).expect("RAM is plenty");
        Uffd::new(&space, Features::empty())
    }

    #[test]
    fn names_and_policies_stand_in_the_same_order() {
        for (policy, name) in MonitorDeath::ALL.into_iter().zip(MonitorDeath::NAMES) {
            assert_eq!(policy.name(), *name);
        }
        assert_eq!(MonitorDeath::ALL.len(), MonitorDeath::NAMES.len());
    }

    #[test]
    fn a_task_that_is_attached_again_and_again_has_one_hook() {
        let _machine = SoftMachine::start(Config::default());
        let uffd = context();
        let (first, second) = (Task::detached("first"), Task::detached("second"));
        for _ in 0..10 {
            uffd.attach_monitor(&first);
            uffd.attach_monitor(&first);
            assert_eq!((first.end_hooks(), second.end_hooks()), (1, 0));
            uffd.attach_monitor(&second);
            assert_eq!((first.end_hooks(), second.end_hooks()), (0, 1));
        }
        uffd.detach_monitor();
        assert_eq!((first.end_hooks(), second.end_hooks()), (0, 0));
    }

    #[test]
    fn a_task_that_serves_many_contexts_one_after_the_other_keeps_no_hook_of_any() {
        let _machine = SoftMachine::start(Config::default());
        let monitor = Task::detached("monitor");
        let kept = context();
        kept.attach_monitor(&monitor);
        for _ in 0..10 {
            let uffd = context();
            uffd.attach_monitor(&monitor);
            assert_eq!(monitor.end_hooks(), 2);
        }
        assert_eq!(monitor.end_hooks(), 1);
    }
}
