//! Pairs of connected sockets (`socketpair`): bytes or messages both ways, with open files in them if wanted.
//!
//! ```text
//!   SocketFile 0 ── writes ──► End 1: line of messages ── reads ──► SocketFile 1, and the other way round
//! ```
//!
//! What waits for an end, to read or to write, is told by that end's notifier. Files in a message that nobody reads are closed
//! with the pair, one after the other however many pairs are in each other's messages. Rings of pairs, which would stay for
//! ever, are not made: a pair that is itself on its way in a message carries no sockets (Linux makes them, and looks for them).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::tree::{Entry, Inode};
use super::{File, Io, Notifier, OpenFile, OpenFlags, PIECE, Readiness, Seeking, Sink, Source, signals};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFSOCK, Stat, StatFs};
use crate::mm::frame::allocator;
use crate::sync::SpinLock;
use crate::syscall::{Error, user};
use crate::task::{SleepLock, WaitReason};

/// Bytes that wait at one end at most (Linux: `net.core.wmem_default`).
const ROOM: usize = 212_992;
/// What a message counts beside its bytes, about as on Linux: lines of empty ones have an end too.
const OVERHEAD: usize = 768;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

static WAITING: WaitReason = WaitReason::new("the other end of a socket pair");
static READING: WaitReason = WaitReason::uninterruptible("another reader of the same socket");

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
    files: Passed,
}

/// Open files on their way in a message.
#[derive(Default)]
struct Passed(Vec<Arc<OpenFile>>);

impl Passed {
    /// Sends `files` on their way through `carrier`.
    ///
    /// # Errors
    /// ETOOMANYREFS: there could be a ring.
    fn through(carrier: &Pair, files: Vec<Arc<OpenFile>>) -> Result<Self, Errno> {
        static PASSING: SpinLock<()> = SpinLock::new(());
        let _passing = PASSING.lock();
        let mut pairs = files.iter().filter_map(|file| pair_of(file));
        let is_on_its_way = carrier.on_the_way.load(Ordering::Relaxed) > 0;
        if pairs.any(|pair| is_on_its_way || core::ptr::eq(pair, carrier)) {
            return Err(Errno::ETOOMANYREFS);
        }
        for pair in files.iter().filter_map(|file| pair_of(file)) {
            pair.on_the_way.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Self(files))
    }

    /// They have come.
    fn arrive(&mut self) -> Vec<Arc<OpenFile>> {
        for pair in self.0.iter().filter_map(|file| pair_of(file)) {
            pair.on_the_way.fetch_sub(1, Ordering::Relaxed);
        }
        core::mem::take(&mut self.0)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        close(self.arrive());
    }
}

fn pair_of(open: &OpenFile) -> Option<&Pair> {
    open.as_file::<SocketFile>().map(|socket| &*socket.pair)
}

/// Closes files that nobody has received. A socket among them may have others in its messages, and those again: whoever comes
/// first closes them all, on a stack that does not grow.
fn close(files: Vec<Arc<OpenFile>>) {
    static CLOSING: SpinLock<(Vec<Arc<OpenFile>>, bool)> = SpinLock::new((Vec::new(), false));
    if files.is_empty() {
        return;
    }
    let mut closing = CLOSING.lock();
    closing.0.extend(files);
    if core::mem::replace(&mut closing.1, true) {
        return;
    }
    while let Some(file) = closing.0.pop() {
        drop(closing);
        drop(file);
        closing = CLOSING.lock();
    }
    closing.1 = false;
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

impl State {
    /// What the messages in line count.
    fn counted(&self) -> usize {
        self.bytes + self.line.len() * OVERHEAD
    }
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
    /// How often one of the two is on its way in a message.
    on_the_way: AtomicUsize,
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
            on_the_way: AtomicUsize::new(0),
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
    /// EPIPE, after a SIGPIPE unless `quiet`. EMSGSIZE, EAGAIN, ENOMEM, ECONNREFUSED, ETOOMANYREFS; a signal.
    pub fn send(
        &self,
        from: &mut Source<'_>,
        files: Vec<Arc<OpenFile>>,
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
        let mut files = Passed::through(&self.pair, files)?;
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
        files: &mut Passed,
        nonblocking: bool,
    ) -> Result<(), Error> {
        if let Some(errno) = self.refusal(&self.peer().state.lock()) {
            return Err(errno.into());
        }
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
            if !peer.line.is_empty() && peer.counted() + len + OVERHEAD > ROOM {
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
            let _reading = self.own().reading.lock_unless_killed().ok_or(Errno::EINTR)?;
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
            if moved && !message.files.0.is_empty() {
                break;
            }
            let rest = &message.bytes[message.start..];
            let len = rest.len().min(want);
            piece[..len].copy_from_slice(&rest[..len]);
            let files = if peek {
                message.files.0.clone()
            } else {
                message.files.arrive()
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
            let first = state.line.front();
            first.map(|message| (message.bytes.clone(), message.files.0.clone()))
        } else {
            let first = state.line.pop_front();
            first.map(|mut message| (core::mem::take(&mut message.bytes), message.files.arrive()))
        };
        let Some((bytes, files)) = message else {
            return Ok(false);
        };
        if !peek {
            state.bytes -= bytes.len();
        }
        drop(state);
        if !peek {
            self.peer().notifier.notify(Readiness::WRITABLE);
        }
        received.cut = (bytes.len() > to.left()).then_some(bytes.len());
        received.files = files;
        to.put(&bytes)?;
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
        ready.set(writable, peer.counted() * 4 <= ROOM);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::arch::host::{Config, Running, SoftMachine};

    fn machine() -> Running {
        SoftMachine::start(Config { memory: 1 << 20 })
    }

    fn send(socket: &OpenFile, files: Vec<Arc<OpenFile>>) -> Result<usize, Error> {
        let socket: &SocketFile = socket.as_file().expect("a socket");
        socket.send(&mut Source::kernel(b""), files, true, true)
    }

    #[test]
    fn a_line_of_empty_messages_has_an_end() {
        let _machine = machine();
        let [one, other] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
        let sent = (0..10_000).take_while(|_| send(&one, Vec::new()).is_ok()).count();
        assert_eq!(sent, ROOM / OVERHEAD);
        assert!(!one.readiness().contains(Readiness::OUT));
        drop(other);
    }

    #[test]
    fn pairs_in_each_others_messages_are_closed_without_a_deep_stack() {
        let _machine = machine();
        let [mut inner, first] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
        let watched = Arc::downgrade(&first);
        assert!(send(&inner, Vec::new()).is_ok());
        drop(core::mem::replace(&mut inner, first));
        for _ in 0..100_000 {
            let [from, to] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
            assert_eq!(send(&from, alloc::vec![inner]), Ok(0));
            inner = to;
        }
        drop(inner);
        // Somebody else may be closing them.
        while watched.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn rings_of_pairs_are_not_made() {
        let _machine = machine();
        let too_many = Err(Error::Errno(Errno::ETOOMANYREFS));
        let [a, a_end] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
        let [b, b_end] = SocketFile::pair(Kind::Datagram, OpenFlags::empty());
        assert_eq!(send(&a, alloc::vec![Arc::clone(&a_end)]), too_many);
        assert_eq!(send(&a, alloc::vec![Arc::clone(&b_end)]), Ok(0));
        assert_eq!(send(&b, alloc::vec![Arc::clone(&a_end)]), too_many);
        let receiver: &SocketFile = a_end.as_file().expect("a socket");
        let mut bytes = [0; 1];
        let how = Receive::default();
        let received = receiver.receive(&mut Sink::kernel(&mut bytes), how);
        assert!(received.is_ok_and(|received| received.files.len() == 1));
        assert_eq!(
            send(&b, alloc::vec![a_end]),
            Ok(0),
            "it is not on its way any more"
        );
        drop(b_end);
    }
}
