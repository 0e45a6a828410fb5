//! Children that lock a file when they are told to, and whether they wait for it.

use crate::child::{Child, fork};
use crate::errno::Errno;
use crate::job::until;
use crate::proc::process_state;
use crate::signal;
use crate::sys::{self, Answer, call};

/// A path by which everybody opens the file.
pub const FILE: &str = "file";

/// `struct flock`.
pub fn structure(kind: i32, whence: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: whence as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// A lock, from the beginning.
pub fn lock(fd: i32, command: i32, kind: i32, start: i64, len: i64) -> Answer {
    let mut lock = structure(kind, 0, start, len);
    sys::fcntl(fd, command, &raw mut lock as usize)
}

/// flock(2).
pub fn flock(fd: i32, how: i32) -> Answer {
    call(libc::SYS_flock, &[fd as usize, how as usize])
}

/// A child that does what it is told, one thing after the other.
pub struct Peer {
    /// The process.
    pub child: Child,
    /// Where it is told, and where it reads that.
    tell: (i32, i32),
    /// Where it answers.
    hear: i32,
}

/// What it can be told.
#[derive(Clone, Copy)]
pub enum Deed {
    /// Opens the file; the answer is a descriptor.
    Open,
    /// Closes a descriptor.
    Close(i32),
    /// A record lock: descriptor, command, type, start, length.
    Lock(i32, i32, i32, i64, i64),
    /// flock(2): descriptor, operation.
    Flock(i32, i32),
    /// Catches SIGUSR1 with these flags.
    Catch(i32),
}

impl Deed {
    fn words(self) -> [i64; 6] {
        match self {
            Self::Open => [0; 6],
            Self::Close(fd) => [1, fd.into(), 0, 0, 0, 0],
            Self::Lock(fd, command, kind, start, len) => {
                [2, fd.into(), command.into(), kind.into(), start, len]
            }
            Self::Flock(fd, how) => [3, fd.into(), how.into(), 0, 0, 0],
            Self::Catch(flags) => [4, flags.into(), 0, 0, 0, 0],
        }
    }

    fn done([deed, fd, a, b, start, len]: [i64; 6]) -> i64 {
        let fd = fd as i32;
        let answer = match deed {
            0 => sys::open(FILE, libc::O_RDWR).map(|fd| fd as usize),
            1 => sys::close(fd),
            2 => lock(fd, a as i32, b as i32, start, len),
            3 => flock(fd, a as i32),
            _ => {
                signal::catch(libc::SIGUSR1, fd, &[]);
                Ok(0)
            }
        };
        answer.map_or_else(|errno| -i64::from(errno.0), |value| value as i64)
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self::new()
    }
}

impl Peer {
    /// Forks it.
    pub fn new() -> Self {
        let tell = sys::pipe2(0).expect("a pipe can be made");
        let hear = sys::pipe2(0).expect("a pipe can be made");
        let child = fork(|| {
            let _ = sys::close(tell.1);
            let mut words = [0u8; 48];
            while sys::read(tell.0, &mut words) == Ok(48) {
                let word = |at: usize| i64::from_le_bytes(words[8 * at..][..8].try_into().expect("8 bytes"));
                let done = Deed::done(std::array::from_fn(word));
                let _ = sys::write(hear.1, &done.to_le_bytes());
            }
            0
        });
        let _ = sys::close(hear.1);
        Self {
            child,
            tell: (tell.1, tell.0),
            hear: hear.0,
        }
    }

    /// Has it do something, and says what came of it: a value, an error, or `waits`.
    pub fn does(&self, deed: Deed) -> String {
        let mut bytes = [0u8; 48];
        for (at, word) in deed.words().into_iter().enumerate() {
            bytes[8 * at..][..8].copy_from_slice(&word.to_le_bytes());
        }
        sys::write(self.tell.0, &bytes).expect("a pipe takes bytes");
        self.answers()
    }

    /// What came of what it was told: it waits if it has read that, sleeps, and has not answered.
    pub fn answers(&self) -> String {
        let mut asleep = 0;
        let answered = || sys::poll(self.hear, libc::POLLIN, 0) == Ok(libc::POLLIN);
        until(|| {
            let untold = sys::poll(self.tell.1, libc::POLLIN, 0) == Ok(libc::POLLIN);
            let sleeps = !untold && matches!(process_state(self.child.pid), Some('S' | 'D'));
            asleep = if sleeps { asleep + 1 } else { 0 };
            answered() || asleep > 3
        });
        if !answered() {
            return "waits".into();
        }
        self.comes_to()
    }

    /// What comes of it in the end.
    pub fn comes_to(&self) -> String {
        let mut bytes = [0u8; 8];
        if sys::poll(self.hear, libc::POLLIN, 5000) != Ok(libc::POLLIN) {
            return "waits still".into();
        }
        let _ = sys::read(self.hear, &mut bytes);
        match i64::from_le_bytes(bytes) {
            error @ ..0 => Errno(-error as i32).to_string(),
            value => value.to_string(),
        }
    }

    /// Opens the file.
    pub fn opens(&self) -> i32 {
        self.does(Deed::Open).parse().expect("it can be opened")
    }

    /// Lets it end.
    pub fn ends(self) -> String {
        let _ = sys::close(self.tell.0);
        let _ = sys::close(self.tell.1);
        let _ = sys::close(self.hear);
        self.child.wait()
    }
}

/// Several of them.
pub fn peers<const N: usize>() -> [Peer; N] {
    std::array::from_fn(|_| Peer::new())
}

/// Lets several end: the last one first, as it has the pipes of those that were made before it.
pub fn end(peers: impl IntoIterator<Item = Peer>) {
    let mut all: Vec<Peer> = peers.into_iter().collect();
    while let Some(last) = all.pop() {
        last.ends();
    }
}
