//! Who waits for a page, whose event is not read yet, and who waits for messages.
//!
//! One lock protects both, and every step looks at what it depends on under that lock, so that no wake-up is lost: a fault
//! is queued and a sleeping reader given it in one step; a reader finds a message or is among the sleeping in one step.
//! Faults are read before events, whichever came first.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use intrusive_collections::LinkedList;

use super::api::Features;
use super::classify::Trap;
use super::ctx::Ctx;
use super::event::{Event, Pagefault, ReadError};
use super::policy::{Monitor, MonitorDeath};
use super::readers::{Readers, Watcher};
use super::slot::{Fault, FaultState, Outstanding};
use super::waiters::Waiters;
use crate::arch::{Clock, Machine};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::{BusError, FaultError};
use crate::mm::memtype::Granule;
use crate::task::link::FaultAdapter;
use crate::task::{self, Task};

/// The lists of a context.
#[derive(Debug)]
pub(super) struct Queue {
    /// Tasks whose fault is not read yet, oldest first.
    pub(super) pending: Waiters,
    /// Tasks whose fault is read and not resolved.
    pub(super) read: Waiters,
    /// Tasks whose event is not read yet, oldest first.
    events: LinkedList<FaultAdapter>,
    /// Tasks that sleep until there is something to read.
    pub(super) readers: Readers,
    /// Told when there is something that no reader was given.
    pub(super) watcher: Watched,
    pub(super) state: State,
    /// The attached monitor; the one that was lost, while there is no other.
    pub(super) monitor: Option<Monitor>,
    /// What is to happen when it ends.
    pub(super) on_death: MonitorDeath,
}

/// Who is told when there is something to read.
#[derive(Default)]
pub(super) struct Watched(Option<Arc<dyn Watcher>>);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "watched"
        } else {
            "not watched"
        })
    }
}

impl Watched {
    #[inline]
    fn tell(&self) {
        if let Some(watcher) = &self.0 {
            watcher.readable();
        }
    }
}

/// Whether a context still delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not yet: the handshake is to be made.
    Fresh,
    /// It does.
    Open,
    /// Its monitor ended, and this is what follows.
    Orphaned(MonitorDeath),
    /// Its last handle is gone.
    Closed,
}

impl State {
    /// Whether faults and events are queued.
    #[inline]
    fn queues(self) -> bool {
        match self {
            Self::Open => true,
            Self::Orphaned(policy) => policy.queues(),
            Self::Fresh | Self::Closed => false,
        }
    }

    /// What a reader is told once nothing more is delivered.
    #[cold]
    fn read_error(self) -> ReadError {
        match self {
            Self::Fresh => ReadError::Fresh,
            Self::Open | Self::Orphaned(MonitorDeath::Hang) => ReadError::WouldBlock,
            Self::Orphaned(_) => ReadError::Orphaned,
            Self::Closed => ReadError::Closed,
        }
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            pending: Waiters::new(),
            read: Waiters::new(),
            events: LinkedList::new(FaultAdapter::new()),
            readers: Readers::new(),
            watcher: Watched::default(),
            state: State::Fresh,
            monitor: None,
            on_death: MonitorDeath::default(),
        }
    }

    /// The handshake is made.
    pub(super) fn open(&mut self) {
        if self.state == State::Fresh {
            self.state = State::Open;
        }
    }

    /// Wakes everybody who waits for a page in `[start, end)`, read or not.
    #[inline(always)]
    pub(super) fn wake(&mut self, start: VirtAddr, end: VirtAddr) -> usize {
        self.read.wake(start, end) + self.pending.wake(start, end)
    }

    /// Wakes everybody.
    #[cold]
    pub(super) fn wake_all(&mut self) -> usize {
        self.wake(VirtAddr::new(0), VirtAddr::new(u64::MAX))
    }

    /// What was read and is not resolved counts as unread again. All of it is older than what was not read.
    pub(super) fn unread_all(&mut self) {
        self.read
            .iter()
            .for_each(|task| task.fault.set(FaultState::Pending));
        self.pending.take_older(&mut self.read);
    }

    /// Nothing more is delivered: whoever waits for a page, for its event to be read, or for a message, looks again.
    #[cold]
    pub(super) fn dismiss_all(&mut self) {
        self.wake_all();
        while let Some(task) = self.events.pop_front() {
            // The event stays with its task: dropping it may take locks that come before this one.
            task.event.disarm();
            task.unpark();
        }
        self.readers.disband();
    }

    /// Whether there is nothing to read, and there may be later. False says nothing.
    #[inline]
    fn is_quiet(&self) -> bool {
        self.state == State::Open && self.pending.is_empty() && self.events.is_empty()
    }

    /// The oldest event, if `admit` takes it; whoever announced it goes on. One that it does not take is the youngest from
    /// now on, as on Linux.
    #[cold]
    #[inline(never)]
    fn next_of_events(&mut self, admit: impl FnOnce(&Event) -> bool) -> Option<Result<Event, ReadError>> {
        let task = self.events.pop_front()?;
        if !task.event.look(admit)? {
            self.events.push_back(task);
            return Some(Err(ReadError::NotAdmitted));
        }
        let event = task.event.take()?;
        task.event.disarm();
        task.unpark();
        Some(Ok(event))
    }

    /// Whether a fault of `task`, which has read messages, or is to end or ending, can be queued.
    #[cold]
    #[inline(never)]
    fn look_twice(&self, task: &Task) -> Result<(), FaultError> {
        if task.is_killed() {
            return Err(FaultError::Killed);
        }
        if task.fault.is_ending() {
            return Err(FaultError::BusError(BusError::NoRetry));
        }
        // A thread of a Linux program waits like on Linux: another may be about to read.
        if task.thread().is_none() && self.is_served_by_itself(task) {
            return Err(FaultError::SelfFault { monitor: task.id() });
        }
        Ok(())
    }

    /// Takes `task` off the list of those whose event is not read, if it is there.
    fn forget_event(&mut self, task: &Arc<Task>) {
        let mut cursor = self.events.front_mut();
        while let Some(waiting) = cursor.get() {
            if core::ptr::eq(waiting, Arc::as_ptr(task)) {
                cursor.remove();
                task.event.disarm();
                return;
            }
            cursor.move_next();
        }
    }
}

impl Ctx {
    /// Queues a fault of `task`, which then has to sleep until it is woken; a reader that sleeps is given the message and
    /// woken at once. Called with the entry's table locked, so that whoever fills the entry finds the task here.
    ///
    /// # Errors
    /// Nobody would ever resolve the fault; it is not queued.
    #[inline(always)]
    pub(super) fn enqueue(self: &Arc<Self>, task: &Arc<Task>, fault: Fault) -> Result<(), FaultError> {
        let mut queue = self.queue.lock();
        if queue.state != State::Open && !queue.state.queues() {
            let state = queue.state;
            drop(queue);
            return self.refuse_fault(state, task, fault);
        }
        if let Some(Monitor { id: monitor, .. }) = queue.monitor
            && monitor == task.id()
        {
            return Err(FaultError::SelfFault { monitor });
        }
        if task.fault.is_looked_at_twice() {
            queue.look_twice(task)?;
        }
        // A reader sleeps only while nothing is pending, so giving it this message keeps the order.
        let message = self.describe(fault, task);
        let now = Machine::ticks();
        if let Some(reader) = queue.readers.take() {
            task.fault.read_by(reader, now);
            reader.fault.inbox.put(message);
            reader.unpark();
            task.fault.arm(fault, message.addr, now, FaultState::Read);
            queue.read.push(task.clone());
        } else {
            task.fault.arm(fault, message.addr, now, FaultState::Pending);
            queue.pending.push(task.clone());
            queue.watcher.tell();
        }
        drop(queue);
        Ok(())
    }

    /// The rest of [`Self::enqueue`] at a context that queues nothing any more, which is not locked.
    #[cold]
    #[inline(never)]
    fn refuse_fault(
        self: &Arc<Self>,
        state: State,
        task: &Arc<Task>,
        fault: Fault,
    ) -> Result<(), FaultError> {
        match state {
            State::Orphaned(MonitorDeath::Poison | MonitorDeath::Kill) => self.call_up(task, fault),
            _ => Err(FaultError::MonitorGone),
        }
    }

    /// Queues the event that `task` announces; it then has to sleep until [`EventSlot::is_queued`] says no. Whoever sleeps
    /// in read looks.
    ///
    /// # Errors
    /// Nobody would ever read it; it comes back.
    ///
    /// [`EventSlot::is_queued`]: super::layout::EventSlot::is_queued
    pub(super) fn enqueue_event(&self, task: &Arc<Task>, event: Event) -> Result<(), Event> {
        let mut queue = self.queue.lock();
        if !queue.state.queues() {
            return Err(event);
        }
        task.event.arm(event);
        queue.events.push_back(task.clone());
        // All of them, as on Linux: the one that is woken may find a fault first, or end.
        queue.readers.wake_all();
        queue.watcher.tell();
        Ok(())
    }

    /// Has `watcher` told from now on when there is something to read.
    pub(super) fn watch(&self, watcher: Arc<dyn Watcher>) {
        let old = self.queue.lock().watcher.0.replace(watcher);
        // Without the lock: it may own anything.
        drop(old);
    }

    /// Takes back the fault that `task` waits for here, read or not; its message is gone, or stays read. False when it does
    /// not wait here, or was woken.
    #[cold]
    pub(super) fn withdraw_fault(&self, task: &Arc<Task>) -> bool {
        let mut queue = self.queue.lock();
        let found = queue.pending.remove(task) || queue.read.remove(task);
        if found {
            task.fault.set(FaultState::Idle);
        }
        found
    }

    /// Ends the read of `me`, which is among the readers or was given a message just now, because it has a signal.
    ///
    /// # Errors
    /// [`ReadError::Interrupted`], unless it was given one; then the signal stays for the next read.
    #[cold]
    #[inline(never)]
    pub(super) fn stop_reading(&self, me: &Arc<Task>) -> Result<Event, ReadError> {
        let mut queue = self.queue.lock();
        queue.readers.leave(me);
        if let Some(fault) = me.fault.inbox.take() {
            return Ok(fault.told_by(self));
        }
        me.take_interrupt();
        Err(ReadError::Interrupted)
    }

    /// Takes back the event that `task` announced, unless it is read by now.
    pub(super) fn withdraw_event(&self, task: &Arc<Task>) {
        self.queue.lock().forget_event(task);
    }

    /// Whether a read would find a message (Linux: POLLIN).
    pub(super) fn has_message(&self) -> bool {
        let queue = self.queue.lock();
        !queue.pending.is_empty() || !queue.events.is_empty()
    }

    /// The oldest fault, or else the oldest event if `admit` takes it.
    pub(super) fn next_event(&self, admit: impl FnOnce(&Event) -> bool) -> Result<Event, ReadError> {
        self.next_queued(&mut self.queue.lock(), None, admit)
    }

    /// [`Self::next_event`] for `me`, which is among the readers from now on and has to sleep when there is nothing: `None`, or
    /// [`ReadError::WouldBlock`].
    #[inline(always)]
    pub(super) fn next_unless_quiet(
        &self,
        me: &Arc<Task>,
        admit: impl FnOnce(&Event) -> bool,
    ) -> Option<Result<Event, ReadError>> {
        let mut queue = self.queue.lock();
        if queue.is_quiet() && me.fault.inbox.is_empty() {
            queue.readers.enter(me);
            return None;
        }
        Some(self.next_queued(&mut queue, Some(me), admit))
    }

    /// The rest of both when there may be something.
    #[inline(never)]
    fn next_queued(
        &self,
        queue: &mut Queue,
        me: Option<&Arc<Task>>,
        admit: impl FnOnce(&Event) -> bool,
    ) -> Result<Event, ReadError> {
        if let Some(fault) = me.and_then(|me| me.fault.inbox.take()) {
            return Ok(fault.told_by(self));
        }
        let found = if queue.state == State::Orphaned(MonitorDeath::Reattach) {
            // What is queued is for the next monitor.
            Err(ReadError::Orphaned)
        } else if let Some(task) = queue.pending.pop() {
            let fault = self.message(task.fault.trap(), task.fault.reported(), &task);
            task.fault.read_by(&task::current(), Machine::ticks());
            task.fault.set(FaultState::Read);
            queue.read.push(task);
            Ok(fault.told_by(self))
        } else if !queue.events.is_empty()
            && let Some(found) = queue.next_of_events(admit)
        {
            found
        } else if !queue.state.queues() {
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
    pub(super) fn describe(&self, fault: Fault, task: &Task) -> Pagefault {
        let addr = match fault.granule {
            _ if self.has(Features::EXACT_ADDRESS) => fault.addr,
            // The sizes as constants.
            Granule::Base => fault.addr.align_down(Granule::Base.size()),
            Granule::Huge => fault.addr.align_down(Granule::Huge.size()),
        };
        self.message(fault.trap, addr, task)
    }

    #[inline]
    fn message(&self, trap: Trap, addr: VirtAddr, task: &Task) -> Pagefault {
        let thread = self.has(Features::THREAD_ID).then(|| task.told_id());
        Pagefault { trap, addr, thread }
    }

    /// How many faults wait here unread, and how many altogether.
    pub(super) fn counts(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        let pending = queue.pending.iter().count();
        (pending, pending + queue.read.iter().count())
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
        for waiters in [&queue.pending, &queue.read] {
            waiters.visit(|task| {
                let room = faults.len() < faults.capacity();
                if room {
                    faults.push(Outstanding::of(task));
                }
                room
            });
        }
        faults
    }
}
