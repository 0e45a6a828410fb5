//! Sending and receiving.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::endpoint::{Identity, State};
use super::name::Address;
use super::options::{Switch, Timeout};
use super::passed::Passed;
use super::{Kind, OVERHEAD, Socket};
use crate::abi::errno::Errno;
use crate::file::{OpenFile, PIECE, Place, Readiness, Sink, Source, signals};
use crate::mm::frame::allocator;
use crate::syscall::Error;

/// What the headers of a message take from the room for it, as on Linux.
const HEADERS: usize = 32;

/// What one write has sent, or what is left of it.
pub(super) struct Queued {
    pub sender: Arc<Socket>,
    bytes: Vec<u8>,
    start: usize,
    files: Passed,
    identity: Option<Identity>,
}

impl Queued {
    /// Bytes that nobody has read.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// What goes with the bytes.
#[derive(Debug, Default)]
pub struct Message<'a> {
    /// Open files.
    pub files: Vec<Arc<OpenFile>>,
    /// Who the sender says it is; that has been looked at.
    pub identity: Option<Identity>,
    /// To whom it goes, if not to the peer: a name, and from where paths are walked.
    pub to: Option<(Address, &'a Place)>,
    /// No SIGPIPE.
    pub quiet: bool,
}

/// How a message is received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receive {
    /// Fail rather than wait.
    pub nonblocking: bool,
    /// It stays.
    pub peek: bool,
    /// Wait until the buffer is full.
    pub all: bool,
}

/// What came beside the bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// Files that were in the message.
    pub files: Vec<Arc<OpenFile>>,
    /// The message was longer than the buffer; its length.
    pub cut: Option<usize>,
    /// Who sent it, if that was to be told.
    pub identity: Option<Identity>,
    /// The name of the socket that sent it.
    pub from: Option<Arc<Address>>,
}

/// How far one look at the line has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There was nothing.
    Nothing,
    /// What comes next may be read with it.
    More,
    /// That was all.
    End,
}

impl Socket {
    /// Sends bytes, in one message or in as many pieces as it takes; what goes with them goes with the first.
    ///
    /// # Errors
    /// EPIPE, of a stream after a SIGPIPE. ENOTCONN, EISCONN, EOPNOTSUPP, EMSGSIZE, EAGAIN, ENOMEM, ECONNREFUSED, ECONNRESET,
    /// EPERM, ETOOMANYREFS; a signal.
    pub fn send(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        mut message: Message<'_>,
        nonblocking: bool,
    ) -> Result<usize, Error> {
        let to = message.to.take();
        let sent = match self.kind {
            Kind::Stream => self.send_stream(from, &mut message, to.is_some(), nonblocking),
            Kind::Datagram | Kind::SeqPacket => self.send_whole(from, &mut message, to, nonblocking),
        };
        let broken = sent == Err(Error::Errno(Errno::EPIPE)) && self.kind == Kind::Stream;
        if broken && from.done() == 0 && !message.quiet {
            signals::broken_pipe();
        }
        from.outcome(sent)
    }

    fn send_stream(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        message: &mut Message<'_>,
        named: bool,
        nonblocking: bool,
    ) -> Result<(), Error> {
        let state = self.state.lock();
        let (peer, connected, dumb) = (state.peer.clone(), state.is_connected(), state.dumb);
        drop(state);
        if named {
            let errno = if connected {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            };
            return Err(errno.into());
        }
        let peer = peer.ok_or(Errno::ENOTCONN)?;
        if dumb {
            return Err(Errno::EPIPE.into());
        }
        if from.left() == 0 {
            return Ok(());
        }
        let mut files = Passed::to(&peer, core::mem::take(&mut message.files))?;
        while from.left() > 0 {
            let len = from.left().min(self.options.room() / 4);
            let piece = self.fill(from, len, &mut files, message.identity)?;
            let put = self.put(&peer, piece, nonblocking);
            if put.is_err() {
                from.give_back(len);
            }
            put?;
        }
        Ok(())
    }

    fn send_whole(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        message: &mut Message<'_>,
        to: Option<(Address, &Place)>,
        nonblocking: bool,
    ) -> Result<(), Error> {
        let state = self.state.lock();
        let (peer, connected) = (state.peer.clone(), state.is_connected());
        drop(state);
        if self.kind == Kind::SeqPacket
            && let Some(error) = self.take_error()
        {
            return Err(error.into());
        }
        // Of a connection, the name is not looked at.
        let to = to.filter(|_| self.kind == Kind::Datagram);
        if (to.is_none() && peer.is_none()) || (self.kind == Kind::SeqPacket && !connected) {
            return Err(Errno::ENOTCONN.into());
        }
        if self.is_on(Switch::PassCredentials) {
            self.bind_automatically()?;
        }
        let len = from.left();
        if len > self.options.room() - HEADERS {
            return Err(Errno::EMSGSIZE.into());
        }
        if let Some(error) = self.take_error() {
            return Err(error.into());
        }
        if self.state.lock().dumb {
            return Err(Errno::EPIPE.into());
        }
        let receiver = match (&to, peer) {
            (Some((name, place)), _) => Self::find(name, self.kind, place)?,
            (None, Some(peer)) => peer,
            (None, None) => return Err(Errno::ENOTCONN.into()),
        };
        let mut files = Passed::to(&receiver, core::mem::take(&mut message.files))?;
        let piece = self.fill(from, len, &mut files, message.identity)?;
        let put = self.put(&receiver, piece, nonblocking);
        if put.is_err() {
            from.give_back(len);
        }
        if put == Err(Error::Errno(Errno::ECONNREFUSED)) && to.is_none() {
            self.forget_closed(&receiver);
        }
        put
    }

    /// The one that a datagram socket sends to is closed: it sends to nobody from now on.
    fn forget_closed(&self, receiver: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.sends_to(receiver) {
            return;
        }
        let old = state.peer.take();
        state.phase = super::endpoint::Phase::Idle;
        drop(state);
        if let Some(old) = old {
            self.leave(&old);
        }
    }

    /// A message with the next bytes.
    fn fill(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        len: usize,
        files: &mut Passed,
        identity: Option<Identity>,
    ) -> Result<Queued, Error> {
        if allocator().is_short() || !allocator().can_spare(len) {
            return Err(Errno::ENOMEM.into());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(len, 0);
        let (taken, read) = from.take(&mut bytes);
        if let Err(error) = read {
            from.give_back(taken);
            return Err(error.into());
        }
        Ok(Queued {
            sender: Arc::clone(self),
            bytes,
            start: 0,
            files: core::mem::take(files),
            identity,
        })
    }

    /// Puts a message into the line of `receiver`, when there is room.
    fn put(self: &Arc<Self>, receiver: &Arc<Self>, message: Queued, nonblocking: bool) -> Result<(), Error> {
        let mut message = Some(message);
        let timeout = self.timeout(Timeout::Send);
        let put = self.wait(nonblocking, timeout, || {
            if self.state.lock().dumb {
                return Some(Err(Errno::EPIPE));
            }
            let mut other = receiver.state.lock();
            if let Some(refused) = self.refused_by(&other) {
                return Some(Err(refused));
            }
            let to_stranger = !core::ptr::eq(&**receiver, &**self) && !other.sends_to(self);
            if self.kind == Kind::Datagram && to_stranger && other.is_full() {
                return other.want(self).err().map(Err);
            }
            let len = message.as_ref().map_or(0, Queued::left);
            if other.line.try_reserve(1).is_err() {
                return Some(Err(Errno::ENOMEM));
            }
            if !self.count(len + OVERHEAD) {
                return None;
            }
            let tells = self.is_on(Switch::PassCredentials) || receiver.is_on(Switch::PassCredentials);
            if let Some(message) = message
                .as_mut()
                .filter(|message| tells && message.identity.is_none())
            {
                message.identity = Some(Identity::real());
            }
            other.bytes += len;
            other.line.extend(message.take());
            Some(Ok(()))
        });
        put??;
        receiver.notifier.notify(Readiness::READABLE);
        Ok(())
    }

    /// Why a socket takes nothing from this one, if it does not.
    fn refused_by(&self, other: &State) -> Option<Errno> {
        if other.released && self.kind == Kind::Datagram {
            return Some(Errno::ECONNREFUSED);
        }
        if other.deaf {
            return Some(Errno::EPIPE);
        }
        let sends_elsewhere = other.peer.is_some() && !other.sends_to(self);
        (self.kind == Kind::Datagram && sends_elsewhere).then_some(Errno::EPERM)
    }

    /// Counts what it sends, if there is any room left (as on Linux).
    fn count(&self, counted: usize) -> bool {
        let room = self.options.room();
        let counts = |sent: usize| (sent < room).then_some(sent + counted);
        let sent = &self.sent;
        sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counts)
            .is_ok()
    }

    /// Receives bytes of a stream, or a message.
    ///
    /// # Errors
    /// EINVAL, ENOTCONN: it is not connected. ECONNRESET, EAGAIN, EFAULT; a signal.
    pub fn receive(&self, to: &mut Sink<'_>, how: Receive) -> Result<Received, Error> {
        if self.kind.connects() && !self.state.lock().is_connected() {
            return Err(match self.kind {
                Kind::Stream => Errno::EINVAL.into(),
                _ => Errno::ENOTCONN.into(),
            });
        }
        let mut received = Received::default();
        loop {
            let wants_more = to.done() == 0 || (how.all && to.left() > 0 && received.files.is_empty());
            if !wants_more {
                return Ok(received);
            }
            match self.wait_for_message(how.nonblocking) {
                Ok(true) => {}
                Ok(false) => return Ok(received),
                Err(_) if to.done() > 0 => return Ok(received),
                Err(error) => return Err(error),
            }
            let _reading = self.reading.lock_unless_killed().ok_or(Errno::EINTR)?;
            let moved = match self.kind {
                Kind::Stream => self.receive_bytes(to, how.peek, &mut received),
                Kind::Datagram | Kind::SeqPacket => self.receive_message(to, how.peek, &mut received),
            };
            match moved {
                // Somebody was faster.
                Ok(Step::Nothing) | Ok(Step::More) => {}
                Ok(Step::End) => return Ok(received),
                Err(_) if to.done() > 0 => return Ok(received),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something has come; false when nothing will.
    fn wait_for_message(&self, nonblocking: bool) -> Result<bool, Error> {
        let timeout = self.timeout(Timeout::Receive);
        let found = self.wait(nonblocking, timeout, || {
            let mut state = self.state.lock();
            // What went wrong comes before the messages, and after the bytes.
            if (self.kind != Kind::Stream || state.line.is_empty())
                && let Some(error) = state.error.take()
            {
                return Some(Err(error));
            }
            if !state.line.is_empty() {
                return Some(Ok(true));
            }
            // Only who would wait is told that no datagram will come.
            let ended = state.deaf && !(nonblocking && self.kind == Kind::Datagram);
            ended.then_some(Ok(false))
        })?;
        Ok(found?)
    }

    /// Moves bytes up to the end of a message with files, or to one from somebody else if that is to be told.
    fn receive_bytes(&self, to: &mut Sink<'_>, peek: bool, received: &mut Received) -> Result<Step, Errno> {
        let tells = self.is_on(Switch::PassCredentials);
        let mut piece = [0; PIECE];
        let mut step = Step::Nothing;
        while step == Step::Nothing || to.left() > 0 {
            let want = to.left().min(PIECE);
            let mut state = self.state.lock();
            let Some(message) = state.line.front_mut() else {
                return Ok(step);
            };
            if tells && to.done() > 0 && message.identity != received.identity {
                return Ok(Step::End);
            }
            let rest = &message.bytes[message.start..];
            let len = rest.len().min(want);
            piece[..len].copy_from_slice(&rest[..len]);
            let files = if peek {
                message.files.seen()
            } else {
                message.files.arrive()
            };
            let had_files = !files.is_empty();
            received.files.extend(files);
            received.identity = message.identity;
            let sender = Arc::clone(&message.sender);
            drop(state);
            received.from = Some(sender.name());
            let before = to.done();
            let put = to.put(&piece[..len]);
            if !peek {
                self.consume(to.done() - before);
            }
            put?;
            if peek || had_files {
                return Ok(Step::End);
            }
            step = Step::More;
        }
        Ok(Step::End)
    }

    /// Takes bytes of the first message of a stream.
    fn consume(&self, len: usize) {
        let mut state = self.state.lock();
        let Some(message) = state.line.front_mut() else {
            return;
        };
        message.start += len;
        let sender = Arc::clone(&message.sender);
        let gone = (message.left() == 0).then(|| state.line.pop_front());
        state.bytes -= len;
        drop(state);
        let overhead = if gone.is_some() { OVERHEAD } else { 0 };
        drop(gone);
        sender.was_read(len + overhead);
    }

    /// Moves a message, or as much of it as has room.
    fn receive_message(&self, to: &mut Sink<'_>, peek: bool, received: &mut Received) -> Result<Step, Errno> {
        let mut state = self.state.lock();
        let Some(first) = state.line.front_mut() else {
            return Ok(Step::Nothing);
        };
        received.identity = first.identity;
        let sender = Arc::clone(&first.sender);
        let bytes = if peek {
            received.files = first.files.seen();
            first.bytes.clone()
        } else {
            received.files = first.files.arrive();
            core::mem::take(&mut first.bytes)
        };
        let mut wanting = Vec::new();
        let gone = if peek { None } else { state.line.pop_front() };
        if gone.is_some() {
            state.bytes -= bytes.len();
            wanting = core::mem::take(&mut state.wanting);
        }
        drop(state);
        received.from = Some(sender.name());
        if gone.is_some() {
            sender.was_read(bytes.len() + OVERHEAD);
            super::endpoint::tell(wanting);
        }
        drop(gone);
        received.cut = (bytes.len() > to.left()).then_some(bytes.len());
        to.put(&bytes)?;
        Ok(Step::End)
    }
}
