//! Who waits for a page, and who waits for messages.
//!
//! One lock protects both, and every step looks at what it depends on under that lock, so that no wake-up is lost: a fault
//! is queued and a sleeping reader given it in one step; a reader finds a fault or is among the sleeping in one step.

use alloc::sync::Arc;
use alloc::vec::Vec;

use intrusive_collections::LinkedList;

use super::classify::Trap;
use super::ctx::{Ctx, Features};
use super::event::{Event, ReadError};
use super::readers::Readers;
use super::slot::{FaultState, Outstanding};
use crate::arch::{Clock, Machine};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::FaultError;
use crate::task::link::FaultAdapter;
use crate::task::{Task, TaskId};

/// The lists of a context.
#[derive(Debug)]
pub(super) struct Queue {
    /// Tasks whose fault is not read yet, oldest first.
    pending: LinkedList<FaultAdapter>,
    /// Tasks whose fault is read and not resolved.
    read: LinkedList<FaultAdapter>,
    /// Tasks that sleep until there is something to read.
    pub(super) readers: Readers,
    pub(super) state: State,
    /// The attached monitor.
    pub(super) monitor: Option<TaskId>,
}

/// Whether a context still delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It does.
    Open,
    /// Its monitor ended; faults fail.
    Orphaned,
    /// Its last handle is gone.
    Closed,
}

impl State {
    /// What a reader is told once nothing more is delivered.
    #[cold]
    fn read_error(self) -> ReadError {
        match self {
            Self::Open => ReadError::WouldBlock,
            Self::Orphaned => ReadError::Orphaned,
            Self::Closed => ReadError::Closed,
        }
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            pending: LinkedList::new(FaultAdapter::new()),
            read: LinkedList::new(FaultAdapter::new()),
            readers: Readers::new(),
            state: State::Open,
            monitor: None,
        }
    }

    /// Takes all tasks off `list` whose address lies in `[start, end)`, and lets them run.
    #[inline]
    fn wake_list(list: &mut LinkedList<FaultAdapter>, start: VirtAddr, end: VirtAddr) -> usize {
        let mut woken = 0;
        let mut cursor = list.front_mut();
        while let Some(task) = cursor.get() {
            if !task.fault.lies_in(start, end) {
                cursor.move_next();
                continue;
            }
            if let Some(task) = cursor.remove() {
                task.fault.set(FaultState::Idle);
                task.unpark();
                woken += 1;
            }
        }
        woken
    }

    /// Wakes everybody who waits for a page in `[start, end)`, read or not.
    #[inline]
    pub(super) fn wake(&mut self, start: VirtAddr, end: VirtAddr) -> usize {
        Self::wake_list(&mut self.read, start, end) + Self::wake_list(&mut self.pending, start, end)
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&mut self) -> usize {
        self.wake(VirtAddr::new(0), VirtAddr::new(u64::MAX))
    }
}

impl Ctx {
    /// Queues a fault of `task`, which then has to sleep until it is woken; a reader that sleeps is given the message and
    /// woken at once. Called with the entry's table locked, so that whoever fills the entry finds the task here.
    ///
    /// # Errors
    /// Nobody would ever resolve the fault; it is not queued.
    #[inline]
    pub(crate) fn enqueue(&self, task: &Arc<Task>, trap: Trap, addr: VirtAddr) -> Result<(), FaultError> {
        let mut queue = self.queue.lock();
        if queue.state != State::Open {
            return Err(FaultError::MonitorGone);
        }
        if let Some(monitor) = queue.monitor
            && monitor == task.id()
        {
            return Err(FaultError::SelfFault { monitor });
        }
        // A reader sleeps only while nothing is pending, so giving it this message keeps the order.
        let message = self.describe(trap, addr, task);
        if queue.readers.wake_one(|reader| reader.fault.inbox.put(message)) {
            task.fault.arm(trap, addr, Machine::ticks(), FaultState::Read);
            queue.read.push_back(task.clone());
        } else {
            task.fault.arm(trap, addr, Machine::ticks(), FaultState::Pending);
            queue.pending.push_back(task.clone());
        }
        Ok(())
    }

    /// The oldest message; or else `me`, if given, is among the readers from now on and has to sleep.
    #[inline]
    pub(super) fn next_event(&self, me: Option<&Arc<Task>>) -> Result<Event, ReadError> {
        let mut queue = self.queue.lock();
        if let Some(event) = me.and_then(|me| me.fault.inbox.take()) {
            return Ok(event);
        }
        let found = if let Some(task) = queue.pending.pop_front() {
            let event = self.describe(task.fault.trap(), task.fault.addr(), &task);
            task.fault.set(FaultState::Read);
            queue.read.push_back(task);
            Ok(event)
        } else if queue.state != State::Open {
            // Nothing will ever be queued again, so nobody sleeps here.
            Err(queue.state.read_error())
        } else {
            if let Some(me) = me {
                queue.readers.enter(me);
            }
            return Err(ReadError::WouldBlock);
        };
        if let Some(me) = me {
            queue.readers.leave(me);
        }
        found
    }

    /// The message about a fault.
    #[inline]
    fn describe(&self, trap: Trap, exact: VirtAddr, task: &Task) -> Event {
        let addr = if self.features.contains(Features::EXACT_ADDRESS) {
            exact
        } else {
            exact.align_down(PAGE_SIZE)
        };
        let thread = self.features.contains(Features::THREAD_ID).then(|| task.id());
        Event::pagefault(trap, addr, thread)
    }

    /// Every fault that waits at this context, unread ones first, oldest first.
    pub fn outstanding_faults(&self) -> Vec<Outstanding> {
        let count = {
            let queue = self.queue.lock();
            queue.pending.iter().count() + queue.read.iter().count()
        };
        // Room first: nothing is allocated under the lock that the fault path takes.
        let mut faults = Vec::with_capacity(count);
        let queue = self.queue.lock();
        let waiting = [&queue.pending, &queue.read];
        for list in waiting {
            let mut cursor = list.front();
            while let (Some(task), true) = (cursor.clone_pointer(), faults.len() < faults.capacity()) {
                faults.push(Outstanding::of(task));
                cursor.move_next();
            }
        }
        faults
    }
}
