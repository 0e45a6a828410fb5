//! On the faulting task itself: the context's handler is called, and the access executed again.
//!
//! ```text
//!   touch ──► step: a call on the task's stack of calls ──► guards dropped ──► handler(fault): copy, poison, ...
//!     ▲                                                                            │
//!     └──────────── Resolved: execute the access again ◄───────────────────────────┘   Failed: the access fails
//! ```
//!
//! No message, no queue, no switch of tasks: what a user-space program builds from a signal handler, without the signal.
//! The handler runs with no lock held and may do what its task may: wait, and touch memory. Memory that another context
//! delegates is handed over from within the handler (calls nest, up to [`DEPTH`]); memory of a context that is being
//! handled further up on the same task is a self-fault, since nobody else would resolve it.
//!
//! **Races.** The call holds the context, so closing it, its space's end and unregistering the range may come at any time:
//! the operations are then refused, and a handler that fails for that reason is not held to it, because the access is
//! plain by then. Several tasks that touch one page each make their call: one resolves the page, the others are told that
//! it is there ([`Refusal::Exists`](crate::uffd::Refusal::Exists)) and are done too. Nobody sleeps, so there is nothing to wake.
//!
//! A handler that says [`Handled::Resolved`] without having done anything is called again, for ever.
//!
//! **Monitors.** One may be attached although it serves nothing: a task without which the handler is of no use. When it is
//! lost, the policy answers instead of the handler ([`policy`]), unless it is one that waits.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

use arrayvec::ArrayVec;

use crate::arch::{Clock, Machine};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::FaultError;
use crate::mm::range::VirtRange;
use crate::mm::uaccess;
use crate::sync::SpinLock;
use crate::task::Task;
use crate::uffd::classify::Trap;
use crate::uffd::ctx::{Ctx, Resolver};
use crate::uffd::event::Event;
use crate::uffd::policy;
use crate::uffd::slot::{Fault, FaultRecord, FaultState};

/// Most handlers that one task is in at a time, each because of a fault in the one before.
pub const DEPTH: usize = 4;

/// What a handler came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Handled {
    /// The access can be executed again.
    Resolved,
    /// The access fails with [`FaultError::HandlerFailed`].
    Failed,
}

/// Resolves the faults of a context, on the tasks that touch its memory: on several at once if several do. Implemented by
/// every suitable closure.
///
/// A context owns its handler. A handler that owns a handle to its context in turn keeps both for ever.
pub trait FaultHandler: Send + Sync {
    /// Resolves one fault. No lock is held.
    fn handle(&self, fault: &Upcall<'_>) -> Handled;
}

impl<F: Fn(&Upcall<'_>) -> Handled + Send + Sync> FaultHandler for F {
    fn handle(&self, fault: &Upcall<'_>) -> Handled {
        self(fault)
    }
}

/// A fault that a handler is to resolve. The operations on the context are methods of it.
#[derive(Debug)]
pub struct Upcall<'a> {
    resolver: Resolver,
    fault: Fault,
    task: &'a Arc<Task>,
}

impl Upcall<'_> {
    /// Why it was trapped.
    pub fn trap(&self) -> Trap {
        self.fault.trap
    }

    /// The exact address, whatever the context's features are.
    pub fn addr(&self) -> VirtAddr {
        self.fault.addr
    }

    /// What the operations would have to resolve: the page, or what its memory type is filled in.
    pub fn page(&self) -> VirtRange {
        let Fault { addr, granule, .. } = self.fault;
        let start = addr.align_down(granule.size());
        VirtRange::new(start, start + granule.size())
    }

    /// The task that faulted: the one that runs the handler.
    pub fn task(&self) -> &Arc<Task> {
        self.task
    }

    /// The message that a monitor would read.
    pub fn event(&self) -> Event {
        let ctx = &self.resolver.ctx;
        ctx.describe(self.fault, self.task).told_by(ctx)
    }
}

impl Deref for Upcall<'_> {
    type Target = Resolver;

    #[inline]
    fn deref(&self) -> &Resolver {
        &self.resolver
    }
}

/// A call that a task is about to make or is in.
pub(in crate::uffd) struct Call {
    /// Whose handler.
    pub ctx: Arc<Ctx>,
    /// What it is about.
    fault: Fault,
    /// When the fault came, in ticks of the clock.
    since: u64,
}

impl Call {
    /// The fault, as it would stand in the task's record.
    pub(in crate::uffd) fn record(&self) -> FaultRecord {
        FaultRecord {
            addr: self.fault.addr,
            trap: self.fault.trap,
            since: self.since,
            state: FaultState::Called,
            read: None,
        }
    }
}

/// The calls of one task, outermost first. Only the task itself adds and removes any.
#[derive(Default)]
pub(in crate::uffd) struct Calls(SpinLock<ArrayVec<Call, DEPTH>>);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Ctx {
    /// Notes down a call to this context's handler.
    #[inline]
    pub(in crate::uffd) fn call_up(
        self: &Arc<Self>,
        task: &Arc<Task>,
        fault: Fault,
    ) -> Result<(), FaultError> {
        let mut calls = task.fault.calls.0.lock();
        if calls.iter().any(|call| Arc::ptr_eq(&call.ctx, self)) {
            return Err(FaultError::SelfFault { monitor: task.id() });
        }
        let call = Call {
            ctx: Arc::clone(self),
            fault,
            since: Machine::ticks(),
        };
        calls.try_push(call).map_err(|_| FaultError::HandlersNested)?;
        task.fault.set(FaultState::Called);
        Ok(())
    }
}

/// The innermost call of a task, taken off when the handler is done, also when it is left by unwinding.
struct InCall<'a>(&'a Task);

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        let call = self.0.fault.calls.0.lock().pop();
        // The last reference to the context may be among what is dropped here: not under the lock.
        drop(call);
    }
}

impl Calls {
    /// Calls `f` for each, outermost first.
    pub(in crate::uffd) fn each(&self, f: impl FnMut(&Call)) {
        self.0.lock().iter().for_each(f);
    }

    /// The same without waiting for the lock; says whether that could be done.
    pub(in crate::uffd) fn look_at_each(&self, f: impl FnMut(&Call)) -> bool {
        let Some(calls) = self.0.try_lock() else {
            return false;
        };
        calls.iter().for_each(f);
        true
    }
}

/// The faults that `task` is resolving itself, outermost first.
pub fn upcalls_of(task: &Task) -> ArrayVec<FaultRecord, DEPTH> {
    let mut faults = ArrayVec::new();
    task.fault.calls.each(|call| faults.push(call.record()));
    faults
}

/// Calls the handler for the fault that was noted down last.
#[inline(never)]
pub(super) fn run(task: &Arc<Task>) -> Result<(), FaultError> {
    let _call = InCall(task);
    // The handler may fault itself: the task's record is free again.
    task.fault.set(FaultState::Idle);
    let fault = innermost(task).ok_or(FaultError::HandlerFailed)?;
    let handler = fault.ctx.delivery.handler();
    let Some(handler) = handler.filter(|_| !fault.ctx.policy_answers()) else {
        // The context has lost its monitor.
        return policy::resolve(&fault);
    };
    // Whoever faulted: what the handler touches, it touches itself.
    match uaccess::as_the_task(|| handler.handle(&fault)) {
        Handled::Resolved => Ok(()),
        Handled::Failed if fault.ctx.traps_at(fault.addr()) => Err(FaultError::HandlerFailed),
        Handled::Failed => Ok(()),
    }
}

#[inline]
fn innermost(task: &Arc<Task>) -> Option<Upcall<'_>> {
    let calls = task.fault.calls.0.lock();
    calls.last().map(|call| Upcall {
        resolver: Resolver {
            ctx: Arc::clone(&call.ctx),
        },
        fault: call.fault,
        task,
    })
}
