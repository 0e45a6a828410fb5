//! Linux's way: a message is queued, the faulting task sleeps, the monitor reads.
//!
//! With a *direct switch*: when the monitor already waits in read, the message is put into its hand ([`Inbox`]), and waking
//! it and going to sleep amount to one switch of stacks, past the run queue; and so does the monitor's next read, back to
//! the task it has just woken.
//!
//! The wait ends early when the task is killed, and, if it is [`Wait::Interruptible`], when the task is interrupted in an access
//! of its own or runs a thread: the fault is withdrawn, and its message with it unless it was read. The access then fails, or is
//! executed again and sends a fresh message, as on Linux. Whether there is a signal is looked at only by a task that was told
//! something and still waits; one that was killed before it faults is not queued.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::mm::addr::VirtAddr;
use crate::mm::fault::{FaultError, Origin};
use crate::uffd::classify::Trap;
use crate::uffd::event::Pagefault;

use crate::task::{self, Task, TaskId, WaitReason};

/// What a task waits for whose fault an instruction has raised.
static SERVED: WaitReason = WaitReason::new("a page from its monitor");
/// The same of one that looks the page up.
static LOOKED_UP: WaitReason = WaitReason::uninterruptible("a page from its monitor");

/// What may cut short the wait for a page, apart from a fatal signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Any signal: an instruction has raised the fault, in user mode or in the kernel, and is executed again (Linux:
    /// `FAULT_FLAG_INTERRUPTIBLE`).
    Interruptible,
    /// Nothing: the kernel looks the page up in the tables, as `mlock` and `process_vm_readv` do (Linux: `get_user_pages`).
    Killable,
}

impl Wait {
    #[inline(always)]
    const fn reason(self) -> &'static WaitReason {
        match self {
            Self::Interruptible => &SERVED,
            Self::Killable => &LOOKED_UP,
        }
    }
}

/// Sleeps until somebody wakes `task`, the current one, whose fault is queued because of an access on the account of
/// `origin`. A wait that is cut short ends with `withdraw`, which takes the fault off its queue. No lock is held.
///
/// # Errors
/// [`FaultError::Killed`].
#[inline(always)]
pub(in crate::uffd) fn hand_over(
    task: &Arc<Task>,
    origin: &Origin,
    wait: Wait,
    withdraw: impl FnOnce(&Arc<Task>),
) -> Result<(), FaultError> {
    loop {
        // Woken already: then this returns at once.
        task::park_on(wait.reason(), task.fault.addr().as_u64() as usize);
        if !task.fault.is_waiting() {
            if wait == Wait::Killable {
                task.remind();
            }
            return Ok(());
        }
        if let Some(result) = cut_short(task, *origin, wait) {
            withdraw(task);
            return result;
        }
    }
}

/// How the wait of `task` ends because of a signal, if it does.
#[cold]
#[inline(never)]
fn cut_short(task: &Task, origin: Origin, wait: Wait) -> Option<Result<(), FaultError>> {
    if task.is_killed() {
        return Some(Err(FaultError::Killed));
    }
    if wait == Wait::Killable {
        return None;
    }
    match origin {
        Origin::Task => task.take_interrupt().then_some(Ok(())),
        // As Linux: a copy on a thread's behalf tries again and again until the page is there, with a message each time, and
        // sleeps no more. What interrupted it is answered when the call has ended.
        Origin::Kernel if task.thread().is_some() && task.is_interrupted() => {
            task.unpark();
            task::yield_now();
            Some(Ok(()))
        }
        _ => None,
    }
}

/// A message that was delivered to a task while it slept in read.
///
/// Filled under the queue lock of the context that the task reads, when the task is taken off the list of readers; so at
/// most one message is ever in it. Emptied by the task itself.
#[derive(Default, Debug)]
pub struct Inbox {
    addr: AtomicU64,
    /// 0 when nothing is there; else [`FULL`], the trap in bits 0 to 7 and the thread's number + 1 (0: none) from bit 8.
    rest: AtomicU64,
}

const FULL: u64 = 1 << 63;
const THREAD_SHIFT: u32 = 8;

impl Inbox {
    /// Puts a message in.
    #[inline]
    pub(in crate::uffd) fn put(&self, fault: Pagefault) {
        let Pagefault { trap, addr, thread } = fault;
        let thread = thread.map_or(0, |id| id.as_u64() + 1);
        self.addr.store(addr.as_u64(), Ordering::Relaxed);
        self.rest.store(
            FULL | thread << THREAD_SHIFT | u64::from(trap.to_bits()),
            Ordering::Release,
        );
    }

    /// Whether none is there.
    #[inline]
    pub(in crate::uffd) fn is_empty(&self) -> bool {
        self.rest.load(Ordering::Acquire) == 0
    }

    /// Takes the message out, if one is there.
    #[inline]
    pub(in crate::uffd) fn take(&self) -> Option<Pagefault> {
        let rest = self.rest.load(Ordering::Acquire);
        if rest == 0 {
            return None;
        }
        let addr = VirtAddr::new(self.addr.load(Ordering::Relaxed));
        self.rest.store(0, Ordering::Release);
        let thread = (rest & !FULL) >> THREAD_SHIFT;
        let thread = (thread > 0).then(|| TaskId::from_u64(thread - 1));
        Some(Pagefault {
            trap: Trap::from_bits(rest as u8),
            addr,
            thread,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uffd::classify::TrapKind;

    #[test]
    fn a_message_comes_out_once_and_as_it_was() {
        let inbox = Inbox::default();
        assert_eq!(inbox.take(), None);
        for thread in [None, Some(TaskId::from_u64(0)), Some(TaskId::from_u64(7_000_000))] {
            for kind in [TrapKind::Missing, TrapKind::Minor, TrapKind::WriteProtect] {
                let fault = Pagefault {
                    trap: Trap { kind, write: true },
                    addr: VirtAddr::new(0x7fff_1234_5678),
                    thread,
                };
                inbox.put(fault);
                assert_eq!(inbox.take(), Some(fault));
                assert_eq!(inbox.take(), None);
            }
        }
    }
}
