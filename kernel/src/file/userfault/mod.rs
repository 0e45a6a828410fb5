//! The descriptor of a userfault context: what `userfaultfd(2)` gives.
//!
//! | file | what |
//! | --- | --- |
//! | this | reading messages, readiness, opening |
//! | `ioctl` | the commands |
//! | `device` | `/dev/userfaultfd` |
//!
//! The context belongs to the space that made it, for ever; whoever has the descriptor serves it. It is closed when the last
//! descriptor is, the copies of forks included.

mod device;
mod ioctl;

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

pub use device::DeviceFile;

use super::{File, Io, Notifier, OpenFile, OpenFlags, Readiness, Sink, Table, signals};
use crate::abi::errno::Errno;
use crate::abi::uffd::MESSAGE_SIZE;
use crate::mm::space::Space;
use crate::process::credentials::capability;
use crate::syscall::{Error, Restart};
use crate::task::{self, WaitReason};
use crate::uffd::linux::{self, Opener, message};
use crate::uffd::{Event, ReadError, Release, Uffd, Watcher};

static READING: WaitReason = WaitReason::new("a message of a userfault descriptor");

/// Whether everybody may watch accesses of the kernel (`vm.unprivileged_userfaultfd`).
pub static EVERYBODY_MAY: AtomicBool = AtomicBool::new(false);

/// A context, as a file.
pub struct UserfaultFile {
    uffd: Uffd,
    /// The flags that it was opened with, which a fork's context has too.
    flags: linux::OpenFlags,
    notifier: Arc<Notifier>,
}

impl Watcher for Notifier {
    fn readable(&self) {
        self.notify(Readiness::READABLE);
    }
}

impl UserfaultFile {
    /// A fresh context for the faults of `space`, with a descriptor in `files`.
    ///
    /// # Errors
    /// EPERM, EINVAL: see [`linux::open`]. EMFILE, ENOMEM.
    pub fn open(space: &Arc<Space>, files: &Table, flags: u32, opener: Opener) -> Result<u64, Errno> {
        let release = &Release::V6_18;
        let flags = linux::open(flags, opener, release)?;
        let uffd = Uffd::open(space, flags.of_context(), release).map_err(|_| Errno::EINVAL)?;
        Self::install(uffd, files, flags)
    }

    /// Gives the context a descriptor.
    fn install(uffd: Uffd, files: &Table, flags: linux::OpenFlags) -> Result<u64, Errno> {
        let notifier = Arc::new(Notifier::new(&READING));
        let watcher: Arc<dyn Watcher> = Arc::<Notifier>::clone(&notifier);
        uffd.watch(watcher);
        let file = Arc::new(Self {
            uffd,
            flags,
            notifier,
        });
        let mut status = OpenFlags::empty();
        status.set(OpenFlags::NONBLOCK, flags.contains(linux::OpenFlags::NONBLOCK));
        files.install(
            OpenFile::new(file, status),
            flags.contains(linux::OpenFlags::CLOEXEC),
        )
    }

    /// The next message, as bytes.
    #[inline]
    fn next(&self, nonblocking: bool) -> Result<[u8; MESSAGE_SIZE], Error> {
        // A fork's context needs a descriptor, or stays where it is.
        let admit = |event: &Event| !matches!(event, Event::Fork { .. }) || has_room();
        loop {
            let read = if nonblocking {
                self.uffd.try_read_event_if(admit)
            } else {
                self.uffd.read_event_if(admit)
            };
            match read {
                Ok(Event::Fork { uffd }) => {
                    let files = crate::process::current().process().files();
                    let fd = Self::install(uffd, &files, self.flags)?;
                    return Ok(message::fork(fd as u32));
                }
                Ok(event) => return Ok(message::encode(&event, |_| 0)),
                // Told of a signal that is dealt with by now.
                Err(ReadError::Interrupted) if !signals::is_pending() => {}
                Err(ReadError::Interrupted) => return Err(Restart::IfAsked.into()),
                Err(error) => return Err(linux::read(error).unwrap_or(Errno::EINVAL).into()),
            }
        }
    }
}

impl File for UserfaultFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[userfaultfd]")
    }

    /// As many messages as there is room for; only the first is waited for. One that cannot be stored is lost.
    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if !self.uffd.ctx().is_ready() {
            return Err(Errno::EINVAL.into());
        }
        let mut nonblocking = io.nonblocking;
        let ended: Result<(), Error> = loop {
            if to.left() < MESSAGE_SIZE {
                break Err(Errno::EINVAL.into());
            }
            match self.next(nonblocking) {
                Ok(message) => {
                    if let Err(errno) = to.put_record(&message) {
                        break Err(errno.into());
                    }
                }
                Err(error) => break Err(error),
            }
            nonblocking = true;
        };
        let whole = to.done() - to.done() % MESSAGE_SIZE;
        match ended {
            Err(error) if whole == 0 => Err(error),
            _ => Ok(whole),
        }
    }

    fn readiness(&self, status: OpenFlags) -> Readiness {
        let ready = self.uffd.ctx().is_ready();
        let nonblocking = status.contains(OpenFlags::NONBLOCK);
        match linux::poll(ready, nonblocking, self.uffd.is_readable()) {
            linux::Poll::Nothing => Readiness::empty(),
            linux::Poll::Readable => Readiness::IN,
            linux::Poll::Error => Readiness::ERR,
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }

    fn ioctl(&self, _open: &OpenFile, command: u32, argument: u64) -> Result<u64, Error> {
        ioctl::perform(&self.uffd, command, argument)?;
        Ok(0)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        write!(f, "{}", self.uffd.fd_info())
    }
}

/// Whether the calling process can have one more descriptor. Asked with a context's queue locked.
#[cold]
fn has_room() -> bool {
    let task = task::current();
    task.thread()
        .is_none_or(|thread| thread.process().files().has_room())
}

/// Whether everybody may.
pub fn everybody_may() -> bool {
    EVERYBODY_MAY.load(Ordering::Relaxed)
}

/// Whether the current thread may trace other processes (`CAP_SYS_PTRACE`), and so watch accesses of the kernel.
pub fn may_trace() -> bool {
    crate::process::current()
        .credentials()
        .can(capability::SYS_PTRACE)
}
