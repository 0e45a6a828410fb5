//! The contents of a regular file.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;

use super::naming::{self, Naming};
use super::writers::Writers;
use crate::abi::errno::Errno;
use crate::file::allocate;
use crate::mm::cache::{AllocateError, NoPage, Object, PunchError, Quota, TruncateError, WriteError};
use crate::mm::memtype::MemType;
use crate::mm::memtype::shmem::SHMEM;
use crate::sync::SpinLock;
use crate::task::{SleepLock, WaitReason};

static FILLING: WaitReason = WaitReason::uninterruptible("the contents of a file of the initial archive");
static WRITING: WaitReason = WaitReason::uninterruptible("a write to the same file by another task");

bitflags! {
    /// What can never be done to a file again (`F_ADD_SEALS`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Seals: u32 {
        /// Sealing.
        const SEAL = 1;
        /// Making it shorter.
        const SHRINK = 2;
        /// Making it longer.
        const GROW = 4;
        /// Writing, however.
        const WRITE = 8;
        /// Writing, but through mappings that there are already.
        const FUTURE_WRITE = 0x10;
        /// Changing whether it can be executed.
        const EXEC = 0x20;
    }
}

/// The contents of a regular file.
#[derive(Debug)]
pub struct Body {
    ty: &'static MemType,
    quota: Option<Arc<Quota>>,
    /// What the file begins with.
    initial: &'static [u8],
    made: SpinLock<Option<Arc<Object>>>,
    filling: SleepLock,
    /// Held by whoever writes or changes the size.
    pub(super) writing: SleepLock,
    seals: AtomicU32,
    /// Who writes to it, or runs it.
    pub(super) writers: Writers,
    naming: Arc<Naming>,
}

impl Body {
    /// No bytes. A file of a tree cannot be sealed.
    pub(super) fn empty(quota: Option<Arc<Quota>>) -> Self {
        Self::new(&SHMEM, quota, &[], Seals::SEAL)
    }

    /// These bytes.
    pub(super) fn of_bytes(bytes: &'static [u8], quota: Option<Arc<Quota>>) -> Self {
        Self::new(&SHMEM, quota, bytes, Seals::SEAL)
    }

    pub(super) fn new(
        ty: &'static MemType,
        quota: Option<Arc<Quota>>,
        initial: &'static [u8],
        seals: Seals,
    ) -> Self {
        Self {
            ty,
            quota,
            initial,
            made: SpinLock::new(None),
            filling: SleepLock::new(&FILLING),
            writing: SleepLock::new(&WRITING),
            seals: AtomicU32::new(seals.bits()),
            writers: Writers::default(),
            naming: Arc::new(Naming::default()),
        }
    }

    pub(super) fn naming(&self) -> &Arc<Naming> {
        &self.naming
    }

    /// Bytes of a page.
    pub(super) fn granule(&self) -> u64 {
        self.ty.granule().size()
    }

    fn known(&self) -> Option<Arc<Object>> {
        self.made.lock().clone()
    }

    /// The memory object; made when it is first asked for. May sleep.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC: there is no memory for the contents.
    pub fn object(&self) -> Result<Arc<Object>, Errno> {
        if let Some(object) = self.known() {
            return Ok(object);
        }
        let _filling = self.filling.lock();
        if let Some(object) = self.known() {
            return Ok(object);
        }
        let object = match &self.quota {
            Some(quota) => Object::with_quota(self.ty, 0, Arc::clone(quota)),
            None => Object::new(self.ty, 0),
        };
        if !self.initial.is_empty() {
            object.write(0, self.initial).1.map_err(unwritten)?;
        }
        naming::list(&object, &self.naming);
        *self.made.lock() = Some(Arc::clone(&object));
        Ok(object)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.known()
            .map_or(self.initial.len() as u64, |object| object.size())
    }

    /// Bytes of memory that it takes.
    pub(super) fn resident(&self) -> u64 {
        match self.known() {
            Some(object) => object.resident(),
            None => (self.initial.len() as u64).next_multiple_of(self.granule()),
        }
    }

    /// Its seals.
    pub fn seals(&self) -> Seals {
        Seals::from_bits_truncate(self.seals.load(Ordering::Relaxed))
    }

    /// Adds seals; [`Seals::WRITE`] only if `is_written` finds no mapping through which it can be written.
    ///
    /// # Errors
    /// EPERM: it cannot be sealed. EBUSY: it is mapped so that it can be written.
    pub fn seal(&self, seals: Seals, is_written: impl FnOnce(&Arc<Object>) -> bool) -> Result<(), Errno> {
        let _writing = self.writing.lock_unless_killed().ok_or(Errno::EINTR)?;
        let old = self.seals();
        if old.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        if seals.contains(Seals::WRITE) && !old.contains(Seals::WRITE) && is_written(&self.object()?) {
            return Err(Errno::EBUSY);
        }
        self.seals.fetch_or(seals.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether nobody may write any more, other than through mappings that there are.
    pub fn is_write_sealed(&self) -> bool {
        self.seals().intersects(Seals::WRITE | Seals::FUTURE_WRITE)
    }

    /// Changes the size.
    ///
    /// # Errors
    /// EPERM: sealed. EINVAL, EFBIG.
    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
        let _writing = self.writing.lock_unless_killed().ok_or(Errno::EINTR)?;
        let (seals, old) = (self.seals(), self.size());
        if self.granule() > crate::mm::addr::PAGE_SIZE && !size.is_multiple_of(self.granule()) {
            return Err(Errno::EINVAL);
        }
        if (size < old && seals.contains(Seals::SHRINK)) || (size > old && seals.contains(Seals::GROW)) {
            return Err(Errno::EPERM);
        }
        self.object()?.truncate(size).map_err(|error| match error {
            TruncateError::TooLarge => Errno::EFBIG,
            TruncateError::FixedSize | TruncateError::Unaligned => Errno::EINVAL,
        })
    }

    /// `fallocate`.
    ///
    /// # Errors
    /// EOPNOTSUPP: no such mode. EPERM: sealed. ENOSPC, ENOMEM, EFBIG.
    pub fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let keep = mode & allocate::KEEP_SIZE != 0;
        let punches = mode & allocate::PUNCH_HOLE != 0;
        if mode & !(allocate::KEEP_SIZE | allocate::PUNCH_HOLE) != 0 || (punches && !keep) {
            return Err(Errno::EOPNOTSUPP);
        }
        let _writing = self.writing.lock_unless_killed().ok_or(Errno::EINTR)?;
        let object = self.object()?;
        if punches {
            if self.is_write_sealed() {
                return Err(Errno::EPERM);
            }
            return object.punch(offset, len).map_err(|error| match error {
                PunchError::TooLarge => Errno::EFBIG,
                PunchError::Empty | PunchError::Unaligned => Errno::EINVAL,
            });
        }
        let grows = offset.saturating_add(len) > object.size();
        if grows && self.seals().contains(Seals::GROW) {
            return Err(Errno::EPERM);
        }
        object.allocate(offset, len, keep).map_err(|error| match error {
            AllocateError::TooLarge => Errno::EFBIG,
            AllocateError::FixedSize => Errno::EOPNOTSUPP,
            AllocateError::NoPage(why) => no_page(why),
            AllocateError::Empty | AllocateError::Unaligned | AllocateError::BeyondEnd => Errno::EINVAL,
        })
    }
}

/// Why a write did not come to its end.
pub(super) fn unwritten(error: WriteError) -> Errno {
    match error {
        WriteError::NotWritable | WriteError::BeyondEnd => Errno::EINVAL,
        WriteError::TooLarge => Errno::EFBIG,
        WriteError::NoPage(why) => no_page(why),
    }
}

fn no_page(why: NoPage) -> Errno {
    match why {
        NoPage::OutOfMemory => Errno::ENOMEM,
        NoPage::PoolEmpty | NoPage::NoSpace => Errno::ENOSPC,
    }
}
