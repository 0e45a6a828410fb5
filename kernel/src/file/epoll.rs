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
//! What is watched changes, and the line is looked through, by one task at a time, which has its *turn* (Linux: `ep->mtx`): while
//! it has taken items out of the line that are to go back, nobody else finds them missing.
//!
//! **Locks**, in this order: an epoll's `turn`, then that of one that it watches; a notifier's list (of a watched file), `line`, an
//! item's `state`. `items` is not held together with any but `turn`.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bitflags::bitflags;

use super::readiness::{Listener, Ticket, Watcher};
use super::{File, Notifier, OpenFile, OpenFlags, Readiness, signals};
use crate::abi::errno::Errno;
use crate::sync::model::Lock;
use crate::sync::{Once, SpinLock};
use crate::syscall::Error;
use crate::task::{SleepLock, WaitReason};

/// How deep epolls may watch epolls (Linux: `EP_MAX_NESTS`): what a file tells goes up so many steps, on one stack.
const MAX_DEPTH: usize = 4;
/// Most ways from an epoll up to those that watch it: what a file tells goes all of them, under a lock.
const MAX_WAYS: usize = 500;

/// Held by whoever has an epoll watch an epoll: what was found about the others stays so until it is done.
fn nesting() -> &'static SleepLock {
    static NESTING: Once<SleepLock> = Once::new();
    NESTING.call_once(|| SleepLock::new(&OTHERS))
}
static OTHERS: WaitReason = WaitReason::uninterruptible("another task that has an epoll watch an epoll");

static WAITING: WaitReason = WaitReason::new("an event of an epoll");

static TURN: WaitReason = WaitReason::uninterruptible("another task that looks through an epoll");

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

/// Epolls by address, with how many there are below each.
type Met = BTreeMap<usize, (Arc<EpollFile>, usize)>;

fn key(fd: u64, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file).addr())
}

/// An event poll.
pub struct EpollFile {
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    line: Arc<Line>,
    turn: SleepLock,
    me: Weak<Self>,
}

/// The items that may be ready, and who waits for one. It is of its own because items have to do with it under the locks of those
/// who tell them, where an epoll must not be let go of.
struct Line {
    items: Lock<VecDeque<Arc<Item>>>,
    notifier: Notifier,
}

/// A file that an event poll watches.
struct Item {
    epoll: Weak<EpollFile>,
    line: Arc<Line>,
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
            line: Arc::new(Line {
                items: Lock::new(VecDeque::new()),
                notifier: Notifier::new(&WAITING),
            }),
            turn: SleepLock::new(&TURN),
            me: Weak::clone(me),
        })
    }

    /// Watches `file`, known as `fd`.
    ///
    /// # Errors
    /// EEXIST; EPERM: the file is always ready. EINVAL, ELOOP, ENOMEM.
    pub fn add(&self, fd: u64, file: &Arc<OpenFile>, interest: Event) -> Result<(), Errno> {
        let notifier = file.file().notifier().ok_or(Errno::EPERM)?;
        let Some(other) = file.as_file::<Self>() else {
            return self.add_item(fd, file, notifier, interest);
        };
        if interest.how().contains(How::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        let _nesting = nesting().lock();
        let mut below = BTreeMap::new();
        let depth = other.depth_below(self, &mut below)? + 1 + self.depth_above();
        if depth > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        self.add_item(fd, file, notifier, interest)?;
        if below
            .values()
            .any(|(epoll, _)| epoll.ways_above(MAX_WAYS) > MAX_WAYS)
        {
            // Another thread may have been faster.
            let _ = self.remove(fd, file);
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Watches `file`, whose notifier this is.
    fn add_item(
        &self,
        fd: u64,
        file: &Arc<OpenFile>,
        notifier: &Notifier,
        interest: Event,
    ) -> Result<(), Errno> {
        let _turn = self.turn.lock();
        let item = Arc::new_cyclic(|me| Item {
            me: Weak::clone(me),
            epoll: Weak::clone(&self.me),
            line: Arc::clone(&self.line),
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
        let mut line = self.line.items.lock();
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
        let _turn = self.turn.lock();
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
        let _turn = self.turn.lock();
        let item = self.item(fd, file)?;
        item.leave(file.file().notifier());
        self.forget(&item);
        Ok(())
    }

    fn forget(&self, item: &Item) {
        let removed = self.items.lock().remove(&item.key);
        drop(removed);
    }

    /// How many epolls there are one below the other from here, this one not counted; notes those that it meets, this one
    /// included. [`nesting`] is held, so there are at most [`MAX_DEPTH`].
    ///
    /// # Errors
    /// ELOOP: `above` is among them.
    fn depth_below(&self, above: &Self, met: &mut Met) -> Result<usize, Errno> {
        if core::ptr::eq(self, above) {
            return Err(Errno::ELOOP);
        }
        let Some(me) = self.me.upgrade() else { return Ok(0) };
        let place = Arc::as_ptr(&me).addr();
        if let Some((_, depth)) = met.get(&place) {
            return Ok(*depth);
        }
        let items: Vec<Arc<Item>> = self.items.lock().values().cloned().collect();
        let mut depth = 0;
        for file in items.iter().filter_map(|item| item.file.upgrade()) {
            if let Some(inner) = file.as_file::<Self>() {
                depth = depth.max(1 + inner.depth_below(above, met)?);
            }
        }
        met.insert(place, (me, depth));
        Ok(depth)
    }

    /// The epolls that watch this one, once for each way.
    fn above(&self) -> Vec<Arc<Self>> {
        let listeners = self.line.notifier.listeners();
        listeners.iter().filter_map(|listener| listener.epoll()).collect()
    }

    /// How many epolls there are one above the other from here, this one not counted. [`nesting`] is held.
    fn depth_above(&self) -> usize {
        let above = self.above();
        above
            .iter()
            .map(|epoll| 1 + epoll.depth_above())
            .max()
            .unwrap_or(0)
    }

    /// How many ways lead up from here; counts no further than a little above `most`. [`nesting`] is held.
    fn ways_above(&self, most: usize) -> usize {
        let mut ways = 0;
        for epoll in self.above() {
            if ways > most {
                break;
            }
            ways += 1 + epoll.ways_above(most - ways.min(most));
        }
        ways
    }

    /// Takes what is ready, at most `max` of it. What is reported as long as it lasts goes back to the end of the line.
    fn collect(&self, max: usize) -> Vec<(Event, Arc<Item>)> {
        let _turn = self.turn.lock();
        let mut found = Vec::new();
        let mut back = Vec::new();
        let there = self.line.items.lock().len();
        for _ in 0..there {
            if found.len() == max {
                break;
            }
            let Some(item) = self.line.items.lock().pop_front() else {
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
        back.iter().for_each(|item| item.enqueue());
        if !back.is_empty() {
            // Somebody may have looked meanwhile.
            self.line.notifier.wake_one();
        }
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
                        item.enqueue();
                    }
                    // Whoever has looked meanwhile has found nothing.
                    self.line.notifier.notify(Readiness::READABLE);
                    return Err(error);
                }
                return Ok(events.len());
            }
            let left = end.map(|end| end.saturating_sub(crate::task::now()));
            if left == Some(Duration::ZERO) {
                return Ok(0);
            }
            let look = || {
                if !self.line.items.lock().is_empty() {
                    return Some(Ok::<(), Errno>(()));
                }
                signals::is_pending().then_some(Err(Errno::EINTR))
            };
            match self.line.notifier.wait_for(left, look) {
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
    fn enqueue(&self) {
        let Some(item) = self.me.upgrade() else { return };
        let mut line = self.line.items.lock();
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
        let mut line = self.line.items.lock();
        let place = line.iter().position(|item| core::ptr::eq(&**item, self));
        let removed = place.and_then(|place| line.remove(place));
        drop(line);
        drop(removed);
    }
}

impl Listener for Item {
    fn notify(&self, changed: Readiness) {
        let interest = self.state.lock().interest;
        if !changed.intersects(interest.readiness() | Readiness::UNASKED) {
            return;
        }
        self.enqueue();
        self.line.notifier.notify(Readiness::READABLE);
    }

    fn epoll(&self) -> Option<Arc<EpollFile>> {
        self.epoll.upgrade()
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
            // One whose file is just being closed leaves with that. Until then it and the line keep each other.
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
        let _turn = self.turn.lock();
        let line: Vec<Arc<Item>> = self.line.items.lock().iter().cloned().collect();
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
        Some(&self.line.notifier)
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::file::eventfd::EventFile;

    const LEVEL: Event = Event { events: 1, data: 0 };

    fn epoll() -> Arc<OpenFile> {
        OpenFile::new(EpollFile::new(), OpenFlags::RDWR)
    }

    /// Has `upper` watch `lower`.
    fn watch(upper: &OpenFile, lower: &Arc<OpenFile>) -> Result<(), Errno> {
        let upper: &EpollFile = upper.as_file().expect("an epoll");
        upper.add(0, lower, LEVEL)
    }

    fn is_readable(open: &OpenFile) -> bool {
        open.readiness().contains(Readiness::IN)
    }

    #[test]
    fn epolls_watch_epolls_four_deep_in_whatever_order_they_are_added() {
        for from_above in [true, false] {
            let chain: Vec<_> = (0..6).map(|_| epoll()).collect();
            let mut pairs: Vec<_> = chain.windows(2).collect();
            if !from_above {
                pairs.reverse();
            }
            let added: Vec<_> = pairs.iter().map(|pair| watch(&pair[0], &pair[1])).collect();
            assert_eq!(added[..4], [Ok(()); 4], "from above: {from_above}");
            assert_eq!(added[4], Err(Errno::ELOOP), "from above: {from_above}");
        }
    }

    #[test]
    fn an_epoll_does_not_watch_itself_by_way_of_others() {
        let (a, b, c) = (epoll(), epoll(), epoll());
        assert_eq!(watch(&a, &b), Ok(()));
        assert_eq!(watch(&b, &c), Ok(()));
        assert_eq!(watch(&c, &a), Err(Errno::ELOOP));
        assert_eq!(watch(&a, &a), Err(Errno::ELOOP));
    }

    #[test]
    fn what_a_file_tells_has_few_ways_to_go() {
        // Each of a row watches all of the row below: 20 ways from the middle row, 20 + 20 * 20 from the lowest, ...
        let rows: Vec<Vec<_>> = (0..4).map(|_| (0..20).map(|_| epoll()).collect()).collect();
        let add = |upper: usize, lower: usize| {
            let mut last = Ok(());
            for one in &rows[upper] {
                for (fd, other) in (0..).zip(&rows[lower]) {
                    let one: &EpollFile = one.as_file().expect("an epoll");
                    last = last.and(one.add(fd, other, LEVEL));
                }
            }
            last
        };
        assert_eq!(add(0, 1), Ok(()));
        assert_eq!(add(1, 2), Ok(()));
        assert_eq!(add(2, 3), Err(Errno::EINVAL), "more than {MAX_WAYS}");
    }

    #[test]
    fn what_was_refused_is_not_watched() {
        let (a, b) = (epoll(), epoll());
        let event = OpenFile::new(EventFile::new(1, false), OpenFlags::RDWR);
        assert_eq!(watch(&a, &b), Ok(()));
        assert_eq!(watch(&b, &a), Err(Errno::ELOOP));
        let inner: &EpollFile = b.as_file().expect("an epoll");
        assert_eq!(inner.remove(0, &a), Err(Errno::ENOENT));
        assert_eq!(inner.add(1, &event, LEVEL), Ok(()));
        assert!(
            is_readable(&b) && is_readable(&a),
            "what is ready is told upwards"
        );
    }
}
