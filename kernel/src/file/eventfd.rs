//! Event counters: what is written is added, and a read takes all of it, or one.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{File, Io, Notifier, OpenFlags, Readiness, Sink, Source};
use crate::abi::errno::Errno;
use crate::sync::SpinLock;
use crate::syscall::Error;
use crate::task::WaitReason;

/// The largest count.
const MAX: u64 = u64::MAX - 1;

static WAITING: WaitReason = WaitReason::new("an event counter");

/// An event counter.
pub struct EventFile {
    id: u64,
    count: SpinLock<u64>,
    /// A read takes one.
    is_semaphore: bool,
    notifier: Notifier,
}

impl EventFile {
    /// A counter that begins at `count`.
    pub fn new(count: u32, is_semaphore: bool) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            count: SpinLock::new(count.into()),
            is_semaphore,
            notifier: Notifier::new(&WAITING),
        })
    }

    fn take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = match *count {
            0 => return None,
            _ if self.is_semaphore => 1,
            all => all,
        };
        *count -= taken;
        Some(taken)
    }

    fn add(&self, more: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(more).filter(|sum| *sum <= MAX)?;
        Some(())
    }
}

impl File for EventFile {
    fn label(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        f.write_str("anon_inode:[eventfd]")
    }

    fn read(&self, io: &mut Io, to: &mut Sink<'_>) -> Result<usize, Error> {
        if to.left() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let taken = self.notifier.wait_unless(io.nonblocking, || self.take())?;
        self.notifier.notify(Readiness::WRITABLE);
        to.put(&taken.to_ne_bytes())?;
        Ok(8)
    }

    fn write(&self, io: &mut Io, from: &mut Source<'_>) -> Result<usize, Error> {
        let mut bytes = [0; 8];
        from.take_exactly(&mut bytes)?;
        let more = u64::from_ne_bytes(bytes);
        if more > MAX {
            return Err(Errno::EINVAL.into());
        }
        self.notifier.wait_unless(io.nonblocking, || self.add(more))?;
        self.notifier.notify(Readiness::READABLE);
        Ok(8)
    }

    fn readiness(&self, _status: OpenFlags) -> Readiness {
        let count = *self.count.lock();
        let mut ready = Readiness::empty();
        ready.set(Readiness::IN, count > 0);
        ready.set(Readiness::OUT, count < MAX);
        ready
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.notifier)
    }

    fn describe(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(f, "eventfd-count: {:16x}", *self.count.lock())?;
        writeln!(f, "eventfd-id: {}", self.id)?;
        writeln!(f, "eventfd-semaphore: {}", u8::from(self.is_semaphore))
    }
}
