//! Signals that are read.

use alloc::sync::Arc;
use core::fmt;

use super::{File, Io, Notifier, OpenFlags, Readiness, Sink};
use crate::abi::errno::Errno;
use crate::abi::signal::{SIGCHLD, SigInfo};
use crate::process::signal::{self, SignalSet};
use crate::process::{self, Process};
use crate::sync::SpinLock;
use crate::syscall::Error;

/// Bytes of a `signalfd_siginfo`.
const SIZE: usize = 128;

/// Signals of whoever reads, as far as they are in a set. They are blocked as a rule, or they would be delivered.
pub struct SignalFile {
    /// Those who wait are told by the signals of the process that made it.
    readers: Arc<Notifier>,
    set: SpinLock<SignalSet>,
}

impl SignalFile {
    /// The signals of `set`.
    pub fn new(maker: &Arc<Process>, set: SignalSet) -> Arc<Self> {
        Arc::new(Self {
            readers: Arc::clone(&maker.signal_readers),
            set: SpinLock::new(set - SignalSet::UNSTOPPABLE),
        })
    }

    /// Has it read these from now on.
    pub fn set(&self, set: SignalSet) {
        *self.set.lock() = set - SignalSet::UNSTOPPABLE;
        self.readers.notify(Readiness::IN);
    }

    fn wanted(&self) -> SignalSet {
        *self.set.lock()
    }
}

/// A signal as programs read it.
fn bytes_of(info: &SigInfo) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, word: &[u8]| bytes[at..at + word.len()].copy_from_slice(word);
    put(0, &u32::from(info.signal).to_ne_bytes());
    put(4, &info.errno.to_ne_bytes());
    put(8, &info.code.to_ne_bytes());
    let [first, second, third, fourth] = info.words;
    if info.is_from_kernel() && info.signal != SIGCHLD {
        put(72, &first.to_ne_bytes());
        return bytes;
    }
    // Process and user; then what a child came to, or what the sender gave.
    put(12, &first.to_ne_bytes());
    if info.signal == SIGCHLD && info.is_from_kernel() {
        put(40, &(second as u32).to_ne_bytes());
        put(56, &third.to_ne_bytes());
        put(64, &fourth.to_ne_bytes());
    } else {
        put(44, &(second as u32).to_ne_bytes());
        put(48, &second.to_ne_bytes());
    }
    bytes
}

impl File for SignalFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[signalfd]")
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() < SIZE {
            return Err(Errno::EINVAL.into());
        }
        let thread = process::current();
        let readers = &thread.process().signal_readers;
        let mut ended = Ok(());
        while to.left() >= SIZE && ended.is_ok() {
            let nonblocking = io.nonblocking || to.done() > 0;
            let taken = readers.wait_unless(nonblocking, || signal::wait::take(&thread, self.wanted()));
            ended = taken.and_then(|info| Ok(to.put(&bytes_of(&info))?));
        }
        to.outcome(ended)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let thread = process::current();
        let pending = thread.signals.pending.set() | thread.process().signals.pending.set();
        if (pending - self.wanted()).bits() == pending.bits() {
            Readiness::empty()
        } else {
            Readiness::IN
        }
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.readers)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "sigmask:\t{:016x}", self.wanted().bits())
    }
}
