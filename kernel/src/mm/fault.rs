//! From a page-fault exception to a verdict.
//!
//! ```text
//!   exception → FaultInfo → handle ─┬─ Space::step → Verdict   one look under the locks, guards dropped
//!                                   └─ Delegated: hand over to the monitor and sleep, or call the handler; then execute
//!                                      the access again
//! ```
//!
//! Every step ends in one closed [`Verdict`]; nothing else decides. Nothing resumes in the middle: after sleeping, the
//! access is executed again and, if the page is still not there, faults again from the top.

use alloc::format;
use alloc::sync::Arc;
use core::fmt;

use super::addr::VirtAddr;
use super::memtype::AllocError;
use super::pressure;
use super::pt::Prot;
use super::space::Space;
use crate::task::{self, Outcome, Task, TaskId};
use crate::uffd;
use crate::uffd::delivery::Wait;

/// What the access wanted. The numbers are those of the rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Access {
    /// A load.
    Read = Prot::READ.bits(),
    /// A store.
    Write = Prot::WRITE.bits(),
    /// An instruction fetch.
    Execute = Prot::EXEC.bits(),
}

impl Access {
    /// The right that it takes.
    #[inline]
    pub const fn right(self) -> Prot {
        Prot::from_bits_retain(self as u8)
    }
}

/// On whose account memory is touched: decides whether a monitor can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Origin {
    /// The task's own: an instruction of user mode, or of a kernel task about its own work.
    #[default]
    Task = 0,
    /// The kernel's on the task's behalf, which may sleep: a copy to or from a task's memory, a page that is looked up.
    Kernel = 1,
    /// The same, but the kernel cannot wait until somebody has resolved it.
    NoRetry = 2,
    /// A debugger's, which cannot wait either, and which the rights of an area do not bind ([`Vma::yields_to`]; Linux's
    /// `/proc/pid/mem`).
    ///
    /// [`Vma::yields_to`]: super::vma::Vma::yields_to
    Debugger = 3,
}

/// A page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultInfo {
    /// The address that was touched.
    pub addr: VirtAddr,
    /// How it was touched.
    pub access: Access,
    /// On whose account.
    pub origin: Origin,
}

impl FaultInfo {
    /// A fault that the CPU reports of the current task: of user mode, or of the kernel.
    #[inline]
    pub fn reported(addr: VirtAddr, access: Access, by_user_mode: bool) -> Self {
        let origin = if by_user_mode {
            Origin::Task
        } else {
            task::current().fault.origin()
        };
        Self { addr, access, origin }
    }
}

/// How one look at a fault ended.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// The entry now allows the access: execute it again.
    Resolved,
    /// The entry allowed the access already (a stale translation, or somebody was faster): execute it again.
    Retry,
    /// The fault is noted down for a userfault context: hand it over.
    Delegated,
    /// The access cannot go on.
    Failed(FaultError),
}

/// Why an access cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// The task has no address space, or nothing is mapped there (Linux: SIGSEGV, MAPERR).
    Unmapped,
    /// The area's rights forbid the access (SIGSEGV, ACCERR).
    Forbidden,
    /// The page is marked so that every access fails (SIGBUS).
    Poisoned,
    /// A guard page (SIGSEGV).
    Guard,
    /// The page's context does not ask its monitor, and nobody else resolves the fault (Linux: SIGBUS, ADRERR).
    BusError(BusError),
    /// No frame for the page or for its tables.
    OutOfMemory,
    /// The page lies past the end of the memory object behind it (SIGBUS).
    BeyondEnd,
    /// The memory is a guest's alone (SIGBUS).
    GuestOnly,
    /// The object behind the page may not have more pages (SIGBUS).
    NoSpace,
    /// The reserved pool of the memory type is empty (SIGBUS).
    PoolEmpty,
    /// The page belongs to a monitor that ended without serving it, and the policy is to fail
    /// ([`MonitorDeath`](crate::uffd::MonitorDeath)).
    MonitorGone,
    /// The task is to end: that is the policy, or it was killed before the page was there. An access of its own ends it, and
    /// nobody sees this but whoever asks how; what the kernel does on its behalf fails.
    Killed,
    /// The monitor itself touched memory that it is to serve: nobody could ever resolve it.
    SelfFault {
        /// The monitor; the faulting task where a handler resolves on that.
        monitor: TaskId,
    },
    /// The handler of the page's context did not resolve the fault.
    HandlerFailed,
    /// Handlers have touched each other's memory too many levels deep.
    HandlersNested,
}

impl From<AllocError> for FaultError {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::OutOfFrames => Self::OutOfMemory,
            AllocError::PoolEmpty => Self::PoolEmpty,
        }
    }
}

/// Why a context does not ask its monitor about a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusError {
    /// It wants bus errors instead of messages ([`Features::SIGBUS`](crate::uffd::Features::SIGBUS)).
    Wanted,
    /// It is told about the tasks' own accesses only, and the kernel made this one.
    KernelAccess,
    /// Whoever made the access cannot wait.
    NoRetry,
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wanted => "its userfault context answers with bus errors",
            Self::KernelAccess => "its userfault context is not told about accesses of the kernel",
            Self::NoRetry => "its userfault context would have to be asked, and the access cannot wait",
        })
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped => f.write_str("nothing is mapped there"),
            Self::Forbidden => f.write_str("the mapping does not allow the access"),
            Self::Poisoned => f.write_str("the page is poisoned"),
            Self::Guard => f.write_str("it is a guard page"),
            Self::BusError(why) => why.fmt(f),
            Self::OutOfMemory => f.write_str("no physical memory is left"),
            Self::BeyondEnd => f.write_str("it lies past the end of the mapped object"),
            Self::GuestOnly => f.write_str("the memory is a guest's alone"),
            Self::NoSpace => f.write_str("the object behind it may not have more pages"),
            Self::PoolEmpty => f.write_str("the pool of huge pages is empty"),
            Self::MonitorGone => f.write_str("its monitor is gone and never served the fault"),
            Self::Killed => f.write_str("the task is to end"),
            Self::SelfFault { monitor } => {
                write!(
                    f,
                    "the monitor (task {monitor}) touched memory that it has to serve itself"
                )
            }
            Self::HandlerFailed => f.write_str("its fault handler could not resolve it"),
            Self::HandlersNested => f.write_str("too many fault handlers are waiting for one another"),
        }
    }
}

/// Frames that are asked back when a fault found none: a page, its tables, and some for the next faults.
const RELIEF: u64 = 16;

/// Handles a fault of the current task; may sleep. `Ok` means: execute the access again.
///
/// # Errors
/// The access is impossible; the error is also kept for [`last_error`].
#[inline(always)]
pub fn handle(info: &FaultInfo) -> Result<(), FaultError> {
    let current = task::current();
    let task = &*current;
    let verdict = match task.space() {
        Some(space) => space.step(info, task),
        None => Verdict::Failed(FaultError::Unmapped),
    };
    finish(verdict, info, task, Wait::Interruptible)
}

/// Handles a fault that the current task has on another space than its own, or that no exception reports; may sleep, and then
/// no signal but a fatal one wakes it. `Ok` means: look again.
///
/// # Errors
/// The access is impossible.
#[inline(never)]
pub fn resolve(space: &Space, info: &FaultInfo) -> Result<(), FaultError> {
    let current = task::current();
    let task = &*current;
    finish(space.step(info, task), info, task, Wait::Killable)
}

/// Goes on with a fault of the current task on another space than its own, after one look at it ([`Space::show`]); may
/// sleep as in [`resolve`]. `Ok` means: look again. No lock is held.
///
/// # Errors
/// The access is impossible.
#[inline]
pub fn settle(verdict: Verdict, info: &FaultInfo) -> Result<(), FaultError> {
    finish(verdict, info, &task::current(), Wait::Killable)
}

#[inline(always)]
fn finish(verdict: Verdict, info: &FaultInfo, task: &Arc<Task>, wait: Wait) -> Result<(), FaultError> {
    let error = match verdict {
        Verdict::Resolved | Verdict::Retry => return Ok(()),
        Verdict::Delegated => match uffd::delivery::hand_over(task, info, wait) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        // Nobody else's fault: look again once somebody has given memory back.
        Verdict::Failed(FaultError::OutOfMemory) if pressure::relieve_touch(RELIEF) => return Ok(()),
        Verdict::Failed(error) => error,
    };
    Err(fail(task, info, error))
}

/// The end of a fault that cannot be resolved; says why again.
#[cold]
#[inline(never)]
fn fail(task: &Task, info: &FaultInfo, error: FaultError) -> FaultError {
    let addr = info.addr;
    task.fault.fail(addr, error);
    if error != FaultError::Killed {
        return error;
    }
    // A thread of a process ends on its way back to user mode.
    if task.thread().is_some() {
        return error;
    }
    if info.origin == Origin::Task {
        task::exit(Outcome::Failed(if task.is_killed() {
            format!("killed, and did not wait for {addr}")
        } else {
            format!("killed by its access to {addr}: {error}")
        }));
    }
    // The kernel has things on its stack that are to be given back: its access fails, and the task ends afterwards.
    task.kill();
    error
}

/// Where and why the current task's last failed access failed.
pub fn last_error() -> Option<(VirtAddr, FaultError)> {
    task::current().fault.last_error()
}
