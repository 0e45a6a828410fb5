//! Pairs of connected sockets (`socketpair`): bytes or messages both ways, with open files in them if wanted.
//!
//! ```text
//!   SocketFile 0 ── writes ──► End 1: line of messages ── reads ──► SocketFile 1, and the other way round
//! ```
//!
//! What waits for an end, to read or to write, is told by that end's notifier. Files in a message that nobody reads are closed
//! with the pair; a pair that is in one of its own messages stays for ever (Linux looks for such rings).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::tree::{Entry, Inode};
use super::{File, Io, Notifier, OpenFile, OpenFlags, PIECE, Readiness, Seeking, Sink, Source, signals};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFSOCK, Stat, StatFs};
use crate::sync::SpinLock;
use crate::syscall::{Error, user};
use crate::task::{SleepLock, WaitReason};

/// Bytes that wait at one end at most (Linux: `net.core.wmem_default`).
const ROOM: usize = 212_992;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

static WAITING: WaitReason = WaitReason("the other end of a socket pair");
static READING: WaitReason = WaitReason("another reader of the same socket");

/// What a pair carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages.
    Datagram,
    /// Messages, and an end.
    SeqPacket,
}

/// What one write has sent, or what is left of it.
struct Message {
    bytes: Vec<u8>,
    start: usize,
    files: Vec<Arc<OpenFile>>,
}

/// What is on its way to one of the two.
struct End {
    state: SpinLock<State>,
    notifier: Notifier,
    reading: SleepLock,
}

struct State {
    line: VecDeque<Message>,
    bytes: usize,
    /// Its file is open.
    open: bool,
    /// It reads no more (`SHUT_RD`).
    deaf: bool,
    /// The other one writes no more.
    ended: bool,
}

impl End {
    fn new() -> Self {
        Self {
            state: SpinLock::new(State {
                line: VecDeque::new(),
                bytes: 0,
                open: true,
                deaf: false,
                ended: false,
            }),
            notifier: Notifier::new(&WAITING),
            reading: SleepLock::new(&READING),
        }
    }
}

struct Pair {
    kind: Kind,
    ino: u64,
    ends: [End; 2],
}

/// One of two sockets.
pub struct SocketFile {
    pair: Arc<Pair>,
    side: usize,
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
}

impl SocketFile {
    /// Two sockets that are connected.
    pub fn pair(kind: Kind, flags: OpenFlags) -> [Arc<OpenFile>; 2] {
        static NEXT: AtomicU64 = AtomicU64::new(5000);
        let pair = Arc::new(Pair {
            kind,
            ino: NEXT.fetch_add(1, Ordering::Relaxed),
            ends: [End::new(), End::new()],
        });
        [0, 1].map(|side| {
            let file = Arc::new(Self {
                pair: Arc::clone(&pair),
                side,
            });
            let number = pair.ino + side as u64;
            let label = alloc::format!("socket:[{number}]");
            let entry = Entry::unnamed(Arc::new(SocketInode(number)), label.as_bytes());
            let status = (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR;
            OpenFile::named(file, entry, status)
        })
    }

    /// What it carries.
    pub fn kind(&self) -> Kind {
        self.pair.kind
    }

    fn own(&self) -> &End {
        &self.pair.ends[self.side]
    }

    fn peer(&self) -> &End {
        &self.pair.ends[1 - self.side]
    }

    /// Whether nobody will read what it writes, and the error then.
    fn refusal(&self, peer: &State) -> Option<Errno> {
        if peer.ended {
            return Some(Errno::EPIPE);
        }
        match self.pair.kind {
            Kind::Datagram if !peer.open => Some(Errno::ECONNREFUSED),
            _ if !peer.open || peer.deaf => Some(Errno::EPIPE),
            _ => None,
        }
    }

    /// Sends bytes, in one message or in as many pieces as it takes; the files go with the first.
    ///
    /// # Errors
    /// EPIPE, after a SIGPIPE unless `quiet`. EMSGSIZE, EAGAIN, ENOMEM, ECONNREFUSED; a signal.
    pub fn send(
        &self,
        from: &mut Source<'_>,
        mut files: Vec<Arc<OpenFile>>,
        nonblocking: bool,
        quiet: bool,
    ) -> Result<usize, Error> {
        let whole = self.pair.kind != Kind::Stream;
        if whole && from.left() > ROOM {
            return Err(Errno::EMSGSIZE.into());
        }
        if !whole && from.left() == 0 {
            return Ok(0);
        }
        let mut first = true;
        let mut ended = Ok(());
        while first || from.left() > 0 {
            let len = if whole {
                from.left()
            } else {
                from.left().min(ROOM / 4)
            };
            let sent = self.send_piece(from, len, &mut files, nonblocking);
            first = false;
            if let Err(error) = sent {
                if error == Error::Errno(Errno::EPIPE) && from.done() == 0 && !quiet {
                    signals::broken_pipe();
                }
                ended = Err(error);
                break;
            }
        }
        from.outcome(ended)
    }

    fn send_piece(
        &self,
        from: &mut Source<'_>,
        len: usize,
        files: &mut Vec<Arc<OpenFile>>,
        nonblocking: bool,
    ) -> Result<(), Error> {
        if let Some(errno) = self.refusal(&self.peer().state.lock()) {
            return Err(errno.into());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        bytes.resize(len, 0);
        let (taken, read) = from.take(&mut bytes);
        if let Err(error) = read {
            from.give_back(taken);
            return Err(error.into());
        }
        let mut message = Some(Message {
            bytes,
            start: 0,
            files: core::mem::take(files),
        });
        let put = self.own().notifier.wait_unless(nonblocking, || {
            let mut peer = self.peer().state.lock();
            if let Some(errno) = self.refusal(&peer) {
                return Some(Err(errno));
            }
            if peer.bytes > 0 && peer.bytes + len > ROOM {
                return None;
            }
            if peer.line.try_reserve(1).is_err() {
                return Some(Err(Errno::ENOMEM));
            }
            peer.bytes += len;
            peer.line.extend(message.take());
            Some(Ok(()))
        });
        let put = put.and_then(|put| put.map_err(Error::from));
        if put.is_err() {
            from.give_back(taken);
        }
        put?;
        self.peer().notifier.notify(Readiness::READABLE);
        Ok(())
    }

    /// Receives bytes of a stream, or a message.
    ///
    /// # Errors
    /// EAGAIN, EFAULT; a signal.
    pub fn receive(&self, to: &mut Sink<'_>, how: Receive) -> Result<Received, Error> {
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
            let _reading = self.own().reading.lock();
            let moved = match self.pair.kind {
                Kind::Stream => self.receive_bytes(to, how.peek, &mut received),
                Kind::Datagram | Kind::SeqPacket => self.receive_message(to, how.peek, &mut received),
            };
            match moved {
                // Somebody was faster.
                Ok(false) => {}
                Ok(true) if how.peek || self.pair.kind != Kind::Stream => return Ok(received),
                Ok(true) if to.left() == 0 => return Ok(received),
                Ok(true) => {}
                Err(_) if to.done() > 0 => return Ok(received),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something has come; false when nothing will.
    fn wait_for_message(&self, nonblocking: bool) -> Result<bool, Error> {
        self.own().notifier.wait_unless(nonblocking, || {
            let state = self.own().state.lock();
            if !state.line.is_empty() {
                return Some(true);
            }
            let ended = state.ended && self.pair.kind != Kind::Datagram;
            (ended || state.deaf).then_some(false)
        })
    }

    /// Moves bytes up to the next message with files; false when there were none.
    fn receive_bytes(&self, to: &mut Sink<'_>, peek: bool, received: &mut Received) -> Result<bool, Errno> {
        let mut piece = [0; PIECE];
        let mut moved = false;
        while to.left() > 0 {
            let want = to.left().min(PIECE);
            let mut state = self.own().state.lock();
            let Some(message) = state.line.front_mut() else {
                break;
            };
            if moved && !message.files.is_empty() {
                break;
            }
            let rest = &message.bytes[message.start..];
            let len = rest.len().min(want);
            piece[..len].copy_from_slice(&rest[..len]);
            let files = if peek {
                message.files.clone()
            } else {
                core::mem::take(&mut message.files)
            };
            let had_files = !files.is_empty();
            received.files.extend(files);
            drop(state);
            moved = true;
            let before = to.done();
            let put = to.put(&piece[..len]);
            if !peek {
                self.consume(to.done() - before);
            }
            put?;
            if peek || had_files {
                break;
            }
        }
        Ok(moved)
    }

    /// Takes bytes of the first message of a stream.
    fn consume(&self, len: usize) {
        let mut state = self.own().state.lock();
        state.bytes -= len;
        let mut gone = None;
        if let Some(message) = state.line.front_mut() {
            message.start += len;
            if message.start == message.bytes.len() {
                gone = state.line.pop_front();
            }
        }
        drop(state);
        drop(gone);
        self.peer().notifier.notify(Readiness::WRITABLE);
    }

    /// Moves a message, or as much of it as has room; false when there was none.
    fn receive_message(&self, to: &mut Sink<'_>, peek: bool, received: &mut Received) -> Result<bool, Errno> {
        let mut state = self.own().state.lock();
        let message = if peek {
            state.line.front().map(|message| Message {
                bytes: message.bytes.clone(),
                start: 0,
                files: message.files.clone(),
            })
        } else {
            state.line.pop_front()
        };
        let Some(message) = message else { return Ok(false) };
        if !peek {
            state.bytes -= message.bytes.len();
        }
        drop(state);
        if !peek {
            self.peer().notifier.notify(Readiness::WRITABLE);
        }
        received.cut = (message.bytes.len() > to.left()).then_some(message.bytes.len());
        received.files = message.files;
        to.put(&message.bytes)?;
        Ok(true)
    }

    /// `shutdown`: reads no more, writes no more.
    pub fn shut_down(&self, reads: bool, writes: bool) {
        if reads {
            self.own().state.lock().deaf = true;
        }
        if writes {
            self.peer().state.lock().ended = true;
        }
        let all = Readiness::ALWAYS | Readiness::HUP | Readiness::RDHUP;
        self.own().notifier.notify(all);
        self.peer().notifier.notify(all);
    }
}

impl File for SocketFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "socket:[{}]", self.pair.ino + self.side as u64)
    }

    fn seeking(&self) -> Seeking {
        Seeking::Never
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() == 0 && self.pair.kind == Kind::Stream {
            return Ok(0);
        }
        let how = Receive {
            nonblocking: io.nonblocking,
            ..Receive::default()
        };
        // Files that nobody asked for are closed.
        self.receive(to, how)?;
        Ok(to.done())
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        if from.left() == 0 && self.pair.kind == Kind::Stream {
            return Ok(0);
        }
        self.send(from, Vec::new(), io.nonblocking, false)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let own = self.own().state.lock();
        let (some, deaf, ended) = (!own.line.is_empty(), own.deaf, own.ended);
        drop(own);
        let peer = self.peer().state.lock();
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, some || deaf || ended);
        ready.set(Readiness::RDHUP, deaf || ended);
        ready.set(Readiness::HUP, (deaf || ended) && (peer.deaf || peer.ended));
        let writable = Readiness::WRITABLE | Readiness::WRBAND;
        ready.set(writable, peer.bytes * 4 <= ROOM);
        ready
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.own().notifier)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        if command != FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        let bytes = self.own().state.lock().bytes as u32;
        user::write(argument, &bytes.to_ne_bytes())?;
        Ok(0)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let mut own = self.own().state.lock();
        own.open = false;
        let unread = core::mem::take(&mut own.line);
        own.bytes = 0;
        drop(own);
        drop(unread);
        if self.pair.kind == Kind::Datagram {
            // The other one is not told, as on Linux, but may wait for room.
            self.peer().notifier.notify(Readiness::WRITABLE);
        } else {
            self.shut_down(true, true);
        }
    }
}

/// A socket as a file of a file system: it can be looked at, and not opened again.
struct SocketInode(u64);

impl Inode for SocketInode {
    fn stat(&self) -> Stat {
        Stat {
            dev: crate::abi::stat::DeviceNumber::new(0, 8),
            ino: self.0,
            mode: S_IFSOCK | 0o777,
            nlink: 1,
            block_size: 4096,
            ..Stat::default()
        }
    }

    fn stat_fs(&self) -> StatFs {
        StatFs {
            magic: 0x534f_434b,
            block_size: 4096,
            ..StatFs::default()
        }
    }

    fn open(&self, _entry: &Arc<Entry>, _flags: OpenFlags) -> Result<Arc<dyn File>, Error> {
        Err(Errno::ENXIO.into())
    }
}
