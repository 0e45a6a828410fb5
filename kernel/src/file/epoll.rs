//! Event polls: a set of files, and a line of those that may be ready.
//!
//! ```text
//!   file's notifier ── notify ──► Item ── once ──► line ──► epoll_wait: looks at the file, reports, and
//!                                                    ▲        ├ level: puts the item back at the end of the line
//!                                                    └────────┤ edge: leaves it until the next notify
//!                                                             └ one shot: switches it off until it is changed
//! ```
//!
//! An item stands in the line at most once, and the line has room for all: being told takes no memory. An item does not keep
//! its file open; when the file is closed for good, its items are taken out.
//!
//! **Locks**, in this order: a notifier's list (of a watched file), `line`, an item's `state`; `items` is not held together with
//! any of them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bitflags::bitflags;

use super::readiness::{Listener, Ticket, Watcher};
use super::{File, Notifier, OpenFile, OpenFlags, Readiness, signals};
use crate::abi::errno::Errno;
use crate::sync::SpinLock;
use crate::sync::model::Lock;
use crate::syscall::Error;
use crate::task::WaitReason;

/// How deep epolls may watch epolls.
const MAX_DEPTH: usize = 5;

static WAITING: WaitReason = WaitReason("an event of an epoll");

bitflags! {
    /// How an item is watched, beside [`Readiness`] in the same word.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct How: u32 {
        /// `EPOLLEXCLUSIVE`: not everybody need be woken.
        const EXCLUSIVE = 1 << 28;
        /// `EPOLLWAKEUP`: means nothing here.
        const WAKEUP = 1 << 29;
        /// `EPOLLONESHOT`.
        const ONE_SHOT = 1 << 30;
        /// `EPOLLET`.
        const EDGE = 1 << 31;
    }
}

/// What a program is interested in, and what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// [`Readiness`] and [`How`].
    pub events: u32,
    /// The program's own.
    pub data: u64,
}

impl Event {
    fn readiness(self) -> Readiness {
        Readiness::from_bits_truncate(self.events)
    }

    fn how(self) -> How {
        How::from_bits_truncate(self.events)
    }
}

/// A descriptor and the open file behind it: the same number may mean several.
type Key = (u64, usize);

fn key(fd: u64, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file).addr())
}

/// An event poll.
pub struct EpollFile {
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    line: Lock<VecDeque<Arc<Item>>>,
    notifier: Notifier,
    me: Weak<Self>,
}

/// A file that an event poll watches.
struct Item {
    epoll: Weak<EpollFile>,
    key: Key,
    file: Weak<OpenFile>,
    state: Lock<State>,
    me: Weak<Self>,
}

struct State {
    interest: Event,
    ticket: Option<Ticket>,
    /// It stands in the line.
    queued: bool,
    /// It has reported its one shot.
    off: bool,
}

impl EpollFile {
    /// One that watches nothing.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            items: SpinLock::new(BTreeMap::new()),
            line: Lock::new(VecDeque::new()),
            notifier: Notifier::new(&WAITING),
            me: Weak::clone(me),
        })
    }

    /// Watches `file`, known as `fd`.
    ///
    /// # Errors
    /// EEXIST; EPERM: the file is always ready. EINVAL, ELOOP, ENOMEM.
    pub fn add(&self, fd: u64, file: &Arc<OpenFile>, interest: Event) -> Result<(), Errno> {
        let notifier = file.file().notifier().ok_or(Errno::EPERM)?;
        if let Some(other) = file.as_file::<Self>() {
            if interest.how().contains(How::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            if other.watches(self, MAX_DEPTH)? {
                return Err(Errno::ELOOP);
            }
        }
        let item = Arc::new_cyclic(|me| Item {
            me: Weak::clone(me),
            epoll: Weak::clone(&self.me),
            key: key(fd, file),
            file: Arc::downgrade(file),
            state: Lock::new(State {
                interest,
                ticket: None,
                queued: false,
                off: false,
            }),
        });
        let mut items = self.items.lock();
        if items.contains_key(&item.key) {
            return Err(Errno::EEXIST);
        }
        items.insert(item.key, Arc::clone(&item));
        let room = items.len();
        drop(items);
        let mut line = self.line.lock();
        let more = room.saturating_sub(line.len());
        let reserved = line.try_reserve(more);
        drop(line);
        if reserved.is_err() {
            self.forget(&item);
            return Err(Errno::ENOMEM);
        }
        let listener: Arc<dyn Listener> = Arc::<Item>::clone(&item);
        let added = notifier.add(listener);
        let watcher: Arc<dyn Watcher> = Arc::<Item>::clone(&item);
        let watched = file.watch(Arc::downgrade(&watcher));
        if let (Ok(ticket), Ok(())) = (added, watched) {
            item.state.lock().ticket = Some(ticket);
            item.look(file);
            return Ok(());
        }
        if let Ok(ticket) = added {
            notifier.remove(ticket);
        }
        self.forget(&item);
        Err(Errno::ENOMEM)
    }

    fn item(&self, fd: u64, file: &Arc<OpenFile>) -> Result<Arc<Item>, Errno> {
        self.items
            .lock()
            .get(&key(fd, file))
            .cloned()
            .ok_or(Errno::ENOENT)
    }

    /// Changes what a file is watched for.
    ///
    /// # Errors
    /// ENOENT; EINVAL: it is watched exclusively.
    pub fn modify(&self, fd: u64, file: &Arc<OpenFile>, interest: Event) -> Result<(), Errno> {
        let item = self.item(fd, file)?;
        let mut state = item.state.lock();
        if state.interest.how().contains(How::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        state.interest = interest;
        state.off = false;
        drop(state);
        item.look(file);
        Ok(())
    }

    /// Watches a file no more.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: u64, file: &Arc<OpenFile>) -> Result<(), Errno> {
        let item = self.item(fd, file)?;
        item.leave(file.file().notifier());
        self.forget(&item);
        Ok(())
    }

    fn forget(&self, item: &Item) {
        let removed = self.items.lock().remove(&item.key);
        drop(removed);
    }

    /// Whether it watches `other`, at some depth.
    fn watches(&self, other: &Self, depth: usize) -> Result<bool, Errno> {
        if core::ptr::eq(self, other) {
            return Ok(true);
        }
        if depth == 0 {
            return Err(Errno::ELOOP);
        }
        let items: Vec<Arc<Item>> = self.items.lock().values().cloned().collect();
        for file in items.iter().filter_map(|item| item.file.upgrade()) {
            if let Some(inner) = file.as_file::<Self>()
                && inner.watches(other, depth - 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what is ready, at most `max` of it. What is reported as long as it lasts goes back to the end of the line.
    fn collect(&self, max: usize) -> Vec<(Event, Arc<Item>)> {
        let mut found = Vec::new();
        let mut back = Vec::new();
        let there = self.line.lock().len();
        for _ in 0..there {
            if found.len() == max {
                break;
            }
            let Some(item) = self.line.lock().pop_front() else {
                break;
            };
            item.state.lock().queued = false;
            let Some(file) = item.file.upgrade() else { continue };
            let mut state = item.state.lock();
            let interest = state.interest;
            drop(state);
            let ready = file.readiness() & (interest.readiness() | Readiness::UNASKED);
            state = item.state.lock();
            if ready.is_empty() || state.off || state.ticket.is_none() {
                continue;
            }
            state.off = interest.how().contains(How::ONE_SHOT);
            drop(state);
            if !interest.how().intersects(How::ONE_SHOT | How::EDGE) {
                back.push(Arc::clone(&item));
            }
            let event = Event {
                events: ready.bits(),
                data: interest.data,
            };
            found.push((event, item));
        }
        back.iter().for_each(|item| item.enqueue(self));
        found
    }

    /// Waits until something is ready, or `timeout` has passed, and hands at most `max` events to `take`. What `take` fails
    /// with is ready still.
    ///
    /// # Errors
    /// EINTR: a signal came first. What `take` says.
    pub fn wait(
        &self,
        max: usize,
        timeout: Option<Duration>,
        take: impl Fn(&[Event]) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let end = timeout.map(|timeout| crate::task::now().saturating_add(timeout));
        loop {
            let found = self.collect(max);
            if !found.is_empty() {
                let events: Vec<Event> = found.iter().map(|(event, _)| *event).collect();
                if let Err(error) = take(&events) {
                    for (_, item) in &found {
                        item.state.lock().off = false;
                        item.enqueue(self);
                    }
                    return Err(error);
                }
                return Ok(events.len());
            }
            let left = end.map(|end| end.saturating_sub(crate::task::now()));
            if left == Some(Duration::ZERO) {
                return Ok(0);
            }
            let look = || {
                if !self.line.lock().is_empty() {
                    return Some(Ok::<(), Errno>(()));
                }
                signals::is_pending().then_some(Err(Errno::EINTR))
            };
            match self.notifier.wait_for(left, look) {
                Some(outcome) => outcome?,
                None => return Ok(0),
            }
        }
    }
}

impl Item {
    /// Puts it into the line if its file is ready.
    fn look(&self, file: &OpenFile) {
        let interest = self.state.lock().interest;
        let ready = file.readiness() & (interest.readiness() | Readiness::UNASKED);
        if !ready.is_empty() {
            self.notify(ready);
        }
    }

    /// At the end of the line, if it is not in it.
    fn enqueue(&self, epoll: &EpollFile) {
        let Some(item) = self.me.upgrade() else { return };
        let mut line = epoll.line.lock();
        let mut state = self.state.lock();
        if !state.queued && !state.off && state.ticket.is_some() {
            state.queued = true;
            drop(state);
            line.push_back(item);
        }
    }

    /// Its file tells it nothing any more.
    fn leave(&self, notifier: Option<&Notifier>) {
        let ticket = self.state.lock().ticket.take();
        if let (Some(notifier), Some(ticket)) = (notifier, ticket) {
            notifier.remove(ticket);
        }
        if let Some(epoll) = self.epoll.upgrade() {
            let mut line = epoll.line.lock();
            let place = line.iter().position(|item| core::ptr::eq(&**item, self));
            let removed = place.and_then(|place| line.remove(place));
            drop(line);
            drop(removed);
        }
    }
}

impl Listener for Item {
    fn notify(&self, changed: Readiness) {
        let Some(epoll) = self.epoll.upgrade() else { return };
        let interest = self.state.lock().interest;
        if !changed.intersects(interest.readiness() | Readiness::UNASKED) {
            return;
        }
        self.enqueue(&epoll);
        epoll.notifier.notify(Readiness::READABLE);
    }
}

impl Watcher for Item {
    fn closing(&self, file: &OpenFile) {
        self.leave(file.file().notifier());
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.forget(self);
        }
    }
}

impl Drop for EpollFile {
    fn drop(&mut self) {
        for item in core::mem::take(self.items.get_mut()).into_values() {
            if let Some(file) = item.file.upgrade() {
                item.leave(file.file().notifier());
            }
        }
    }
}

impl File for EpollFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[eventpoll]")
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let line: Vec<Arc<Item>> = self.line.lock().iter().cloned().collect();
        let is_ready = |item: &Arc<Item>| {
            let wanted = item.state.lock().interest.readiness() | Readiness::UNASKED;
            let file = item.file.upgrade();
            file.is_some_and(|file| file.readiness().intersects(wanted))
        };
        if line.iter().any(is_ready) {
            Readiness::READABLE
        } else {
            Readiness::empty()
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let items: Vec<Arc<Item>> = self.items.lock().values().cloned().collect();
        for item in items {
            let interest = item.state.lock().interest;
            let Some(file) = item.file.upgrade() else { continue };
            let stat = file.stat();
            writeln!(
                f,
                "tfd: {:8} events: {:8x} data: {:16x}  pos:{} ino:{:x} sdev:{:x}",
                item.key.0,
                interest.events,
                interest.data,
                file.position(),
                stat.ino,
                stat.dev.word()
            )?;
        }
        Ok(())
    }
}
