//! A socket: what has come to it, whom it talks to, and what state it is in.
//!
//! | phase | next |
//! | --- | --- |
//! | idle | `listen`: listening; `connect`, or made by `accept` or as one of a pair: connected |
//! | listening | stays |
//! | connected | stays; a datagram socket may be connected again, to another one or to none |
//!
//! A connection that waits to be accepted has both its sockets already; the further one is in the backlog of the one that listens.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use super::name::Address;
use super::options::Options;
use super::transfer::Queued;
use super::{Kind, OVERHEAD};
use crate::abi::errno::Errno;
use crate::file::tree::Entry;
use crate::file::{Notifier, Readiness, signals};
use crate::sync::SpinLock;
use crate::syscall::Error;
use crate::task::{self, SleepLock, WaitReason};

/// Datagrams that wait at a socket which is not connected to their sender (Linux: `net.unix.max_dgram_qlen`).
const MAX_DATAGRAMS: usize = 10;

static WAITING: WaitReason = WaitReason::new("the other end of a socket");
static READING: WaitReason = WaitReason::uninterruptible("another reader of the same socket");

/// Who sends, or is connected (`struct ucred`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The process.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Identity {
    /// Nobody has said who it is.
    pub const NOBODY: Self = Self {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };

    /// As whom the current thread acts.
    pub(super) fn acting() -> Self {
        Self::current(|ids| ids.effective)
    }

    /// To whom the current thread's process belongs.
    pub(super) fn real() -> Self {
        Self::current(|ids| ids.real)
    }

    fn current(which: fn(crate::process::credentials::Ids) -> u32) -> Self {
        let task = task::current();
        let Some(thread) = task.thread() else {
            return Self {
                pid: 0,
                uid: 0,
                gid: 0,
            };
        };
        let credentials = thread.credentials();
        Self {
            pid: thread.process().pid().as_u32(),
            uid: which(credentials.user),
            gid: which(credentials.group),
        }
    }
}

/// A socket.
pub struct Socket {
    pub(super) kind: Kind,
    pub(super) ino: u64,
    pub(super) state: SpinLock<State>,
    pub(super) notifier: Notifier,
    pub(super) reading: SleepLock,
    pub(super) options: Options,
    /// What it has sent and nobody has read, with what messages count themselves.
    pub(super) sent: AtomicUsize,
    /// How often its file is on its way in a message.
    pub(super) on_the_way: AtomicUsize,
}

/// What changes.
pub(super) struct State {
    pub phase: Phase,
    /// Whom it sends to. It stays when that one is closed, for its name.
    pub peer: Option<Arc<Socket>>,
    /// What has come.
    pub line: VecDeque<Queued>,
    /// Bytes in it.
    pub bytes: usize,
    /// Its file is closed.
    pub released: bool,
    /// Nothing more comes (`RCV_SHUTDOWN`).
    pub deaf: bool,
    /// It sends nothing more (`SEND_SHUTDOWN`).
    pub dumb: bool,
    /// What the next call is told (`sk_err`).
    pub error: Option<Errno>,
    /// At whose backlog it waits to be accepted.
    pub listener: Option<Weak<Socket>>,
    pub name: Option<Arc<Address>>,
    /// The file of its name, if it is found by that.
    pub entry: Option<Arc<Entry>>,
    /// Who is at the other end, or listens.
    pub identity: Identity,
    /// Those who wait until there is room, in the line or in the backlog.
    pub wanting: Vec<Weak<Socket>>,
}

/// Where a socket stands.
pub(super) enum Phase {
    Idle,
    Listening {
        /// Connections that nobody has accepted.
        backlog: VecDeque<Arc<Socket>>,
        /// There may be one more than this.
        limit: usize,
    },
    Connected,
}

impl State {
    /// Has `socket` told when there is room.
    pub fn want(&mut self, socket: &Arc<Socket>) -> Result<(), Errno> {
        let is_it = |known: &Weak<Socket>| core::ptr::eq(known.as_ptr(), Arc::as_ptr(socket));
        if self.wanting.iter().any(is_it) {
            return Ok(());
        }
        self.wanting.retain(|known| known.strong_count() > 0);
        self.wanting.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.wanting.push(Arc::downgrade(socket));
        Ok(())
    }

    /// Whether its line is too long for those whom it does not send to.
    pub fn is_full(&self) -> bool {
        self.line.len() > MAX_DATAGRAMS
    }

    /// Whether it sends to `socket`.
    pub fn sends_to(&self, socket: &Socket) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| core::ptr::eq(&**peer, socket))
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }
}

/// Tells those who wanted room.
pub(super) fn tell(wanting: Vec<Weak<Socket>>) {
    for socket in wanting.iter().filter_map(Weak::upgrade) {
        socket.notifier.notify(Readiness::WRITABLE);
    }
}

impl Socket {
    /// One that is neither bound nor connected.
    pub(super) fn new(kind: Kind) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(5000);
        Arc::new(Self {
            kind,
            ino: NEXT.fetch_add(1, Ordering::Relaxed),
            state: SpinLock::new(State {
                phase: Phase::Idle,
                peer: None,
                line: VecDeque::new(),
                bytes: 0,
                released: false,
                deaf: false,
                dumb: false,
                error: None,
                listener: None,
                name: None,
                entry: None,
                identity: Identity::NOBODY,
                wanting: Vec::new(),
            }),
            notifier: Notifier::new(&WAITING),
            reading: SleepLock::new(&READING),
            options: Options::default(),
            sent: AtomicUsize::new(0),
            on_the_way: AtomicUsize::new(0),
        })
    }

    /// What it carries.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it listens.
    pub fn listens(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Listening { .. })
    }

    /// Who is at the other end; who listens, of a socket that does.
    pub fn identity(&self) -> Identity {
        self.state.lock().identity
    }

    /// The name of the one it sends to.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn peer_name(&self) -> Result<Arc<Address>, Errno> {
        let peer = self.state.lock().peer.clone();
        Ok(peer.ok_or(Errno::ENOTCONN)?.name())
    }

    /// What went wrong behind its back; it is told once.
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// What it has sent and nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that can be read; those of the first message, of datagrams.
    pub(super) fn readable(&self) -> Result<usize, Errno> {
        let state = self.state.lock();
        match (&state.phase, self.kind) {
            (Phase::Listening { .. }, _) => Err(Errno::EINVAL),
            (_, Kind::Datagram) => Ok(state.line.front().map_or(0, Queued::left)),
            _ => Ok(state.bytes),
        }
    }

    /// Waits until `look` gives something, for no longer than `timeout` if there is one.
    ///
    /// # Errors
    /// EAGAIN, a signal.
    pub(super) fn wait<T>(
        &self,
        nonblocking: bool,
        timeout: Option<Duration>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, Error> {
        let Some(timeout) = timeout.filter(|_| !nonblocking) else {
            return self.notifier.wait_unless(nonblocking, look);
        };
        let waited = self.notifier.wait_for(Some(timeout), || match look() {
            Some(found) => Some(Ok(found)),
            // It would have to begin with the time that is left.
            None => signals::is_pending().then_some(Err(Errno::EINTR.into())),
        });
        waited.unwrap_or(Err(Errno::EAGAIN.into()))
    }

    /// What would not wait.
    pub(super) fn readiness(self: &Arc<Self>) -> Readiness {
        let state = self.state.lock();
        let mut ready = Readiness::empty();
        let waits = match &state.phase {
            Phase::Listening { backlog, .. } => !backlog.is_empty(),
            _ => !state.line.is_empty(),
        };
        let alone = self.kind.connects() && matches!(state.phase, Phase::Idle);
        ready.set(Readiness::ERR, state.error.is_some());
        ready.set(Readiness::READABLE, waits || state.deaf);
        ready.set(Readiness::RDHUP, state.deaf);
        ready.set(Readiness::HUP, alone || (state.deaf && state.dumb));
        let listens = matches!(state.phase, Phase::Listening { .. });
        let mut writable = !listens && self.unread() * 4 <= self.options.room();
        let peer = state.peer.clone();
        drop(state);
        if let Some(peer) = peer.filter(|_| self.kind == Kind::Datagram) {
            let mut other = peer.state.lock();
            // Without memory to be told, it looks writable, and the write finds out.
            writable &= other.sends_to(self) || !other.is_full() || other.want(self).is_err();
        }
        ready.set(Readiness::WRITABLE | Readiness::WRBAND, writable);
        ready
    }

    /// `shutdown`: reads no more, sends no more.
    pub fn shut_down(&self, reads: bool, writes: bool) {
        let mut state = self.state.lock();
        state.deaf |= reads;
        state.dumb |= writes;
        let peer = state.peer.clone().filter(|_| self.kind.connects());
        drop(state);
        let all = Readiness::ALWAYS | Readiness::HUP | Readiness::RDHUP;
        if let Some(peer) = peer {
            let mut other = peer.state.lock();
            other.deaf |= writes;
            other.dumb |= reads;
            drop(other);
            peer.notifier.notify(all);
        }
        let wanting = core::mem::take(&mut self.state.lock().wanting);
        tell(wanting);
        self.notifier.notify(all);
    }

    /// Its file is closed, or nobody will accept it: it lets go of everything, and the other end hears of it.
    pub(super) fn release(&self) {
        self.unbind();
        let mut state = self.state.lock();
        (state.released, state.deaf, state.dumb) = (true, true, true);
        let peer = state.peer.take();
        let lost = !state.line.is_empty() || state.listener.is_some();
        let wanting = core::mem::take(&mut state.wanting);
        let waiting = match &mut state.phase {
            Phase::Listening { backlog, .. } => core::mem::take(backlog),
            _ => VecDeque::new(),
        };
        drop(state);
        if let Some(peer) = peer.filter(|_| self.kind.connects()) {
            let mut other = peer.state.lock();
            (other.deaf, other.dumb) = (true, true);
            if lost {
                other.error = Some(Errno::ECONNRESET);
            }
            drop(other);
            let all = Readiness::ALWAYS | Readiness::HUP | Readiness::RDHUP | Readiness::ERR;
            peer.notifier.notify(all);
        }
        for connection in waiting {
            connection.release();
        }
        self.purge();
        tell(wanting);
    }

    /// What has come is thrown away; whether there was anything.
    pub(super) fn purge(&self) -> bool {
        let mut state = self.state.lock();
        let line = core::mem::take(&mut state.line);
        state.bytes = 0;
        let wanting = core::mem::take(&mut state.wanting);
        drop(state);
        let some = !line.is_empty();
        for message in line {
            message.sender.was_read(message.left() + OVERHEAD);
        }
        tell(wanting);
        some
    }

    /// As much of what it has sent is gone.
    pub(super) fn was_read(&self, counted: usize) {
        self.sent.fetch_sub(counted, Ordering::Relaxed);
        self.notifier.notify(Readiness::WRITABLE);
    }
}
