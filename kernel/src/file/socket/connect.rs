//! Listening, connecting, accepting; pairs. The errors come in Linux's order.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::endpoint::{Identity, Phase, tell};
use super::name::Address;
use super::options::{Switch, Timeout};
use super::{Kind, Socket};
use crate::abi::errno::Errno;
use crate::file::{Place, Readiness};
use crate::sync::SpinLock;
use crate::syscall::Error;

/// Most connections that wait to be accepted (Linux: `net.core.somaxconn`).
const MAX_BACKLOG: u32 = 4096;

/// Held by those who hold the states of two sockets, which may connect to each other.
static LINKING: SpinLock<()> = SpinLock::new(());

/// Two sockets that are connected.
pub(super) fn pair(kind: Kind) -> [Arc<Socket>; 2] {
    let pair = [Socket::new(kind), Socket::new(kind)];
    let identity = Identity::acting();
    for (socket, peer) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
        let mut state = socket.state.lock();
        state.phase = Phase::Connected;
        state.peer = Some(Arc::clone(peer));
        state.identity = identity;
    }
    pair
}

impl Socket {
    /// `listen`.
    ///
    /// # Errors
    /// EOPNOTSUPP; EINVAL: it has no name, or is connected.
    pub fn listen(&self, limit: u32) -> Result<(), Errno> {
        if !self.kind.connects() {
            return Err(Errno::EOPNOTSUPP);
        }
        let new_limit = limit.min(MAX_BACKLOG) as usize;
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.phase {
            Phase::Idle => {
                state.phase = Phase::Listening {
                    backlog: VecDeque::new(),
                    limit: new_limit,
                };
            }
            Phase::Listening { limit, .. } => *limit = new_limit,
            Phase::Connected => return Err(Errno::EINVAL),
        }
        state.identity = Identity::acting();
        let wanting = core::mem::take(&mut state.wanting);
        drop(state);
        tell(wanting);
        Ok(())
    }

    /// `connect`, to the socket with this name; to none, of datagrams, without one.
    ///
    /// # Errors
    /// ECONNREFUSED, EPROTOTYPE, EISCONN, EINVAL, EPERM: that one sends to another; EAGAIN: too many wait to be accepted. What
    /// the path says; a signal.
    pub fn connect(
        self: &Arc<Self>,
        to: Option<&Address>,
        place: &Place,
        nonblocking: bool,
    ) -> Result<(), Error> {
        let Some(to) = to.filter(|to| **to != Address::Unnamed) else {
            if self.kind.connects() || to.is_some() {
                return Err(Errno::EINVAL.into());
            }
            self.send_to(None)?;
            return Ok(());
        };
        if self.is_on(Switch::PassCredentials) {
            self.bind_automatically()?;
        }
        if self.kind.connects() {
            self.connect_to_listener(to, place, nonblocking)
        } else {
            let other = Self::find(to, self.kind, place)?;
            Ok(self.send_to(Some(other))?)
        }
    }

    fn connect_to_listener(
        self: &Arc<Self>,
        to: &Address,
        place: &Place,
        nonblocking: bool,
    ) -> Result<(), Error> {
        let mut far = Some(Self::new(self.kind));
        loop {
            let listener = Self::find(to, self.kind, place)?;
            let timeout = self.timeout(Timeout::Send);
            let linked = self.wait(nonblocking, timeout, || self.link(&listener, &mut far))??;
            if linked {
                listener.notifier.notify(Readiness::READABLE);
                self.notifier.notify(Readiness::WRITABLE);
                return Ok(());
            }
            // It was closed meanwhile; another may have the name now.
        }
    }

    /// Connects with `far`, which then waits at the listener to be accepted; false if that was closed, nothing if it is full.
    fn link(
        self: &Arc<Self>,
        listener: &Arc<Self>,
        far: &mut Option<Arc<Self>>,
    ) -> Option<Result<bool, Errno>> {
        let _linking = LINKING.lock();
        let mut theirs = listener.state.lock();
        if theirs.released {
            return Some(Ok(false));
        }
        let Phase::Listening { backlog, limit } = &mut theirs.phase else {
            return Some(Err(Errno::ECONNREFUSED));
        };
        let full = backlog.len() > *limit;
        if theirs.deaf {
            return Some(Err(Errno::ECONNREFUSED));
        }
        if full {
            return theirs.want(self).err().map(Err);
        }
        if Arc::ptr_eq(self, listener) {
            return Some(Err(Errno::EINVAL));
        }
        let mut own = self.state.lock();
        match own.phase {
            Phase::Idle => {}
            Phase::Connected => return Some(Err(Errno::EISCONN)),
            Phase::Listening { .. } => return Some(Err(Errno::EINVAL)),
        }
        let (name, identity) = (theirs.name.clone(), theirs.identity);
        let Phase::Listening { backlog, .. } = &mut theirs.phase else {
            return Some(Err(Errno::ECONNREFUSED));
        };
        if backlog.try_reserve(1).is_err() {
            return Some(Err(Errno::ENOMEM));
        }
        let far = far.take()?;
        far.inherit(listener);
        let mut there = far.state.lock();
        there.phase = Phase::Connected;
        there.peer = Some(Arc::clone(self));
        there.listener = Some(Arc::downgrade(listener));
        there.name = name;
        there.identity = Identity::acting();
        drop(there);
        own.phase = Phase::Connected;
        own.peer = Some(Arc::clone(&far));
        own.identity = identity;
        backlog.push_back(far);
        Some(Ok(true))
    }

    /// The first connection that waits here.
    pub(super) fn accept(&self, nonblocking: bool) -> Result<Arc<Self>, Error> {
        if !self.kind.connects() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let timeout = self.timeout(Timeout::Receive);
        let accepted = self.wait(nonblocking, timeout, || {
            let mut state = self.state.lock();
            let deaf = state.deaf;
            let Phase::Listening { backlog, .. } = &mut state.phase else {
                return Some(Err(Errno::EINVAL));
            };
            match backlog.pop_front() {
                Some(first) => Some(Ok((first, core::mem::take(&mut state.wanting)))),
                // Only who would wait is told that nobody will come.
                None => (deaf && !nonblocking).then_some(Err(Errno::EINVAL)),
            }
        })?;
        let (socket, wanting) = accepted?;
        tell(wanting);
        let listener = socket.state.lock().listener.take();
        drop(listener);
        Ok(socket)
    }

    /// A datagram socket sends to this one from now on.
    fn send_to(self: &Arc<Self>, other: Option<Arc<Self>>) -> Result<(), Errno> {
        if let Some(other) = &other
            && !other.may_be_sent_to_by(self)
        {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        state.phase = match other {
            Some(_) => Phase::Connected,
            None => Phase::Idle,
        };
        let stays = other.as_ref().is_some_and(|other| state.sends_to(other));
        let old = core::mem::replace(&mut state.peer, other);
        drop(state);
        if let Some(old) = old.filter(|_| !stays) {
            self.leave(&old);
        }
        self.notifier.notify(Readiness::WRITABLE);
        Ok(())
    }

    /// Whether others may send to it: it sends to nobody else itself.
    pub(super) fn may_be_sent_to_by(&self, sender: &Self) -> bool {
        let state = self.state.lock();
        state.peer.is_none() || state.sends_to(sender)
    }

    /// A datagram socket does not send to `old` any more. What has come from there is lost, and if it is, that one is told.
    pub(super) fn leave(&self, old: &Self) {
        if !self.purge() {
            return;
        }
        let mut other = old.state.lock();
        if !other.released && other.sends_to(self) {
            other.error = Some(Errno::ECONNRESET);
            drop(other);
            old.notifier.notify(Readiness::ERR);
        }
    }
}
