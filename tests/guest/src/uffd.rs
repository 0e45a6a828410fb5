//! userfaultfd(2): the descriptor, its commands with the field that each gives back, and the messages.

use std::fmt;
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::region::{PAGE, Region, place};
use crate::sys::{self, Answer};

/// Commands, as `ioctl` takes them.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod command {
    pub const API: usize = 0xc018_aa3f;
    pub const REGISTER: usize = 0xc020_aa00;
    pub const UNREGISTER: usize = 0x8010_aa01;
    pub const WAKE: usize = 0x8010_aa02;
    pub const COPY: usize = 0xc028_aa03;
    pub const ZEROPAGE: usize = 0xc020_aa04;
    pub const MOVE: usize = 0xc028_aa05;
    pub const WRITEPROTECT: usize = 0xc018_aa06;
    pub const CONTINUE: usize = 0xc020_aa07;
    pub const POISON: usize = 0xc020_aa08;
    /// On /dev/userfaultfd.
    pub const NEW: usize = 0xaa00;
}

/// Features.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod feature {
    pub const EVENT_FORK: u64 = 0x2;
    pub const EVENT_REMAP: u64 = 0x4;
    pub const EVENT_REMOVE: u64 = 0x8;
    pub const EVENT_UNMAP: u64 = 0x40;
    pub const SIGBUS: u64 = 0x80;
    pub const THREAD_ID: u64 = 0x100;
    pub const EXACT_ADDRESS: u64 = 0x800;
    pub const WP_UNPOPULATED: u64 = 0x2000;
    pub const WP_ASYNC: u64 = 0x8000;
    /// All of Linux 6.18.
    pub const ALL: u64 = 0x1ffff;
}

/// Modes of REGISTER.
pub const MISSING: u64 = 1;
/// Writes to protected pages.
pub const WP: u64 = 2;
/// Pages that are cached but not mapped.
pub const MINOR: u64 = 4;

/// Mode of every fill: wakes nobody.
pub const DONTWAKE: u64 = 1;
/// Mode of COPY and CONTINUE: the page is write-protected.
pub const FILL_WP: u64 = 2;
/// Mode of WRITEPROTECT: protects.
pub const PROTECT: u64 = 1;
/// Mode of WRITEPROTECT: does not wake.
pub const PROTECT_DONTWAKE: u64 = 2;
/// Mode of MOVE: holes of the source count as moved.
pub const ALLOW_SRC_HOLES: u64 = 2;

/// Flag of userfaultfd(2): faults of user mode alone.
pub const USER_MODE_ONLY: i32 = 1;

/// What stands in an output field before the call.
pub const UNTOUCHED: i64 = 0x5a5a_5a5a;

/// How long a message may take.
const IN_TIME: Duration = Duration::from_secs(5);

/// A userfaultfd.
pub struct Uffd {
    /// The descriptor.
    pub fd: i32,
}

/// What a fill answers: the call, and the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// The call's answer.
    pub answer: Answer,
    /// `copy`, `zeropage`, `mapped`, `updated` or `move`.
    pub field: i64,
}

impl fmt::Display for Fill {
    /// `ok 2p`, `ENOENT field -ENOENT`, `EAGAIN field 1p`, `EINVAL field untouched`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer {
            Ok(0) => f.write_str("ok")?,
            Ok(other) => write!(f, "answer {other}")?,
            Err(errno) => write!(f, "{errno} field")?,
        }
        match self.field {
            UNTOUCHED => f.write_str(" untouched"),
            field if field < 0 && field > -4096 => write!(f, " -{}", Errno(-field as i32)),
            field if field % PAGE as i64 == 0 => write!(f, " {}p", field / PAGE as i64),
            field => write!(f, " {field:#x}"),
        }
    }
}

impl Uffd {
    /// userfaultfd(2).
    pub fn open(flags: i32) -> Answer<Self> {
        sys::call(libc::SYS_userfaultfd, &[flags as usize]).map(|fd| Self { fd: fd as i32 })
    }

    /// A descriptor that does not block, initialised with `features`.
    pub fn with(features: u64) -> Self {
        let uffd = Self::open(libc::O_CLOEXEC | libc::O_NONBLOCK).expect("userfaultfd works");
        uffd.api(features).expect("the features are there");
        uffd
    }

    /// As [`with`](Self::with), for faults of user mode alone.
    pub fn user_mode(features: u64) -> Self {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
        let uffd = Self::open(flags).expect("userfaultfd works");
        uffd.api(features).expect("the features are there");
        uffd
    }

    /// A command with the argument at an address.
    pub fn ioctl(&self, command: usize, argument: usize) -> Answer {
        sys::call(libc::SYS_ioctl, &[self.fd as usize, command, argument])
    }

    /// A command with the words of its argument; answers the call, and the words are as the kernel left them.
    pub fn words(&self, command: usize, words: &mut [u64]) -> Answer {
        self.ioctl(command, words.as_mut_ptr() as usize)
    }

    /// API; answers features and ioctls.
    pub fn api(&self, features: u64) -> Answer<(u64, u64)> {
        let mut words = [0xaa, features, 0];
        self.words(command::API, &mut words)?;
        Ok((words[1], words[2]))
    }

    /// REGISTER; answers the mask of ioctls.
    pub fn register(&self, start: usize, len: usize, mode: u64) -> Answer<u64> {
        let mut words = [start as u64, len as u64, mode, 0];
        self.words(command::REGISTER, &mut words)?;
        Ok(words[3])
    }

    /// Registers the whole region.
    pub fn watch(&self, region: &Region, mode: u64) {
        self.register(region.start, region.len, mode)
            .expect("the region can be registered");
    }

    /// Protects the whole region, which is registered.
    pub fn protect(&self, region: &Region) {
        self.writeprotect(region.start, region.len, PROTECT)
            .expect("it is registered");
    }

    /// UNREGISTER.
    pub fn unregister(&self, start: usize, len: usize) -> Answer {
        self.words(command::UNREGISTER, &mut [start as u64, len as u64])
    }

    /// WAKE.
    pub fn wake(&self, start: usize, len: usize) -> Answer {
        self.words(command::WAKE, &mut [start as u64, len as u64])
    }

    /// COPY.
    pub fn copy(&self, dst: usize, src: usize, len: usize, mode: u64) -> Fill {
        self.fill(
            command::COPY,
            &mut [dst as u64, src as u64, len as u64, mode, UNTOUCHED as u64],
        )
    }

    /// ZEROPAGE.
    pub fn zeropage(&self, start: usize, len: usize, mode: u64) -> Fill {
        self.fill(
            command::ZEROPAGE,
            &mut [start as u64, len as u64, mode, UNTOUCHED as u64],
        )
    }

    /// CONTINUE.
    pub fn cont(&self, start: usize, len: usize, mode: u64) -> Fill {
        self.fill(
            command::CONTINUE,
            &mut [start as u64, len as u64, mode, UNTOUCHED as u64],
        )
    }

    /// POISON.
    pub fn poison(&self, start: usize, len: usize, mode: u64) -> Fill {
        self.fill(
            command::POISON,
            &mut [start as u64, len as u64, mode, UNTOUCHED as u64],
        )
    }

    /// MOVE.
    pub fn move_pages(&self, dst: usize, src: usize, len: usize, mode: u64) -> Fill {
        self.fill(
            command::MOVE,
            &mut [dst as u64, src as u64, len as u64, mode, UNTOUCHED as u64],
        )
    }

    /// WRITEPROTECT.
    pub fn writeprotect(&self, start: usize, len: usize, mode: u64) -> Answer {
        self.words(command::WRITEPROTECT, &mut [start as u64, len as u64, mode])
    }

    /// A fill whose last word is its field.
    pub fn fill(&self, command: usize, words: &mut [u64]) -> Fill {
        let answer = self.words(command, words);
        Fill {
            answer,
            field: *words.last().expect("an argument has words") as i64,
        }
    }

    /// poll(2) for `milliseconds`; answers `revents`.
    pub fn poll(&self, milliseconds: i32) -> Answer<i16> {
        let mut fd = libc::pollfd {
            fd: self.fd,
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        sys::call(libc::SYS_poll, &[&raw mut fd as usize, 1, milliseconds as usize])?;
        Ok(fd.revents)
    }

    /// read(2) of one message; blocks where the descriptor does.
    pub fn read(&self) -> Answer<Message> {
        let mut message = Message([0; 4]);
        match sys::call(
            libc::SYS_read,
            &[self.fd as usize, message.0.as_mut_ptr() as usize, 32],
        )? {
            32 => Ok(message),
            other => panic!("a read of {other} bytes"),
        }
    }

    /// The next message, waited for: `None` when there is none in time. Time is what counts, not tries: one that was there to
    /// be polled may be taken back before it is read.
    pub fn next(&self) -> Option<Message> {
        let begin = Instant::now();
        loop {
            let _ = self.poll(100);
            if let Ok(message) = self.read() {
                return Some(message);
            }
            if begin.elapsed() > IN_TIME {
                return None;
            }
        }
    }

    /// The next message in words, waited for.
    pub fn told(&self) -> String {
        self.next()
            .map_or("no message".into(), |message| message.to_string())
    }

    /// What a read says at this moment: a message, or the errno.
    pub fn now(&self) -> String {
        match self.read() {
            Ok(message) => message.to_string(),
            Err(errno) => errno.to_string(),
        }
    }

    /// The descriptor's lines of /proc/self/fdinfo that are userfaultfd's own.
    pub fn fdinfo(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd)).unwrap_or_default();
        let ours = ["pending:", "total:", "API:"];
        let lines = text
            .lines()
            .filter(|line| ours.iter().any(|key| line.starts_with(key)));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Drop for Uffd {
    fn drop(&mut self) {
        let _ = sys::call(libc::SYS_close, &[self.fd as usize]);
    }
}

/// A message, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message(pub [u64; 4]);

impl Message {
    /// Which event.
    pub fn event(&self) -> u8 {
        self.0[0] as u8
    }

    /// The address of a fault.
    pub fn address(&self) -> usize {
        self.0[2] as usize
    }

    /// The flags of a fault.
    pub fn flags(&self) -> u64 {
        self.0[1]
    }

    /// The descriptor of a fork.
    pub fn descriptor(&self) -> i32 {
        self.0[1] as i32
    }

    /// What that descriptor is: the child's userfaultfd.
    pub fn forked(&self) -> Uffd {
        Uffd {
            fd: self.descriptor(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |word: usize| place(self.0[word] as usize);
        match self.event() {
            0x12 => {
                write!(f, "fault flags {} at {}", self.0[1], at(2))?;
                if self.0[3] != 0 {
                    f.write_str(" with thread")
                } else {
                    Ok(())
                }
            }
            0x13 => f.write_str("fork"),
            0x14 => write!(
                f,
                "remap {} to {} of {}",
                at(1),
                at(2),
                crate::region::pages(self.0[3] as usize)
            ),
            0x15 => write!(f, "remove {} to {}", at(1), at(2)),
            0x16 => write!(f, "unmap {} to {}", at(1), at(2)),
            other => write!(f, "event {other:#x}"),
        }
    }
}
