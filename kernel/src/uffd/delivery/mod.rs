//! Ways of handing a fault to whoever resolves it, a file each. A context has one, chosen when it is made.
//!
//! | way | who resolves | the faulting task |
//! | --- | --- | --- |
//! | [`queue`] | a monitor, which reads messages | sleeps; a monitor that waits in read is switched to directly |
//! | [`upcall`] | the context's [`FaultHandler`], on the faulting task | calls it; nothing sleeps, nothing is queued |
//!
//! In each, the fault is noted down in the task under the locks of the fault path (`Ctx::deliver`), and handed over
//! ([`hand_over`]) when all of them are dropped. The access is then executed again: nothing resumes in the middle. Neither
//! step allocates.

use alloc::sync::Arc;
use core::fmt;

use super::ctx::{self, Ctx};
use super::slot::Fault;
use crate::mm::fault::{FaultError, FaultInfo};
use crate::task::Task;

pub mod queue;
pub mod upcall;

pub use queue::Wait;
pub use upcall::{FaultHandler, Handled, Upcall};

/// How a context hands over its faults.
#[derive(Clone, Default)]
pub enum Delivery {
    /// Messages that a monitor reads.
    #[default]
    Queue,
    /// A handler that runs on the faulting task.
    Upcall(Arc<dyn FaultHandler>),
}

impl Delivery {
    /// A handler that runs on the faulting task.
    pub fn upcall(handler: impl FaultHandler + 'static) -> Self {
        Self::Upcall(Arc::new(handler))
    }

    /// The handler, if there is one.
    #[inline]
    fn handler(&self) -> Option<&dyn FaultHandler> {
        match self {
            Self::Queue => None,
            Self::Upcall(handler) => Some(&**handler),
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "Queue",
            Self::Upcall(_) => "Upcall",
        })
    }
}

impl Ctx {
    /// Notes down a fault of `task`, the current one; [`hand_over`] comes next. Called with the entry's
    /// table locked, so that whoever changes the entry afterwards finds who waits for that.
    ///
    /// # Errors
    /// Nobody would ever resolve the fault.
    #[inline]
    pub(crate) fn deliver(self: &Arc<Self>, task: &Arc<Task>, fault: Fault) -> Result<(), FaultError> {
        match &self.delivery {
            Delivery::Queue => self.enqueue(task, fault),
            Delivery::Upcall(_) => self.call_up(task, fault),
        }
    }
}

/// Hands over the fault of `task`, the current one, that was delivered because of the access in `info`, and that it waits for
/// as `wait` says. No lock is held. `Ok` means: execute the access again.
///
/// # Errors
/// It was not resolved, and executing the access again would not change that.
#[inline(always)]
pub fn hand_over(task: &Arc<Task>, info: &FaultInfo, wait: Wait) -> Result<(), FaultError> {
    if task.fault.is_called() {
        return upcall::run(task);
    }
    queue::hand_over(task, &info.origin, wait, ctx::withdraw_fault)
}
