//! Files that are no files: memory to share, counters.

use super::open::install;
use crate::abi::errno::Errno;
use crate::file::eventfd::EventFile;
use crate::file::tmpfs;
use crate::file::{OpenFile, OpenFlags};
use crate::syscall::{Call, Error, Result, user};

/// Flags of `memfd_create` (`linux/memfd.h`).
mod memfd {
    pub const CLOEXEC: u64 = 1;
    pub const ALLOW_SEALING: u64 = 2;
    pub const HUGETLB: u64 = 4;
    pub const NOEXEC_SEAL: u64 = 8;
    pub const EXEC: u64 = 0x10;
    /// Where the logarithm of the size of huge pages stands.
    pub const SIZE_SHIFT: u32 = 26;
    /// Logarithm of the only size that there is.
    pub const SIZE: u64 = 21;
}

/// Most bytes of a name: those of a file's, less `memfd:`.
const NAME: usize = 249;

/// `memfd_create`.
pub fn memfd_create(call: &mut Call<'_>) -> Result {
    let [name, flags, ..] = call.args;
    let flags = u64::from(flags as u32);
    let huge = flags & memfd::HUGETLB != 0;
    let size = flags >> memfd::SIZE_SHIFT;
    let known = memfd::CLOEXEC | memfd::ALLOW_SEALING | memfd::HUGETLB | memfd::NOEXEC_SEAL | memfd::EXEC;
    let rest = if huge {
        flags & ((1 << memfd::SIZE_SHIFT) - 1)
    } else {
        flags
    };
    if rest & !known != 0 || flags & (memfd::EXEC | memfd::NOEXEC_SEAL) == memfd::EXEC | memfd::NOEXEC_SEAL {
        return Err(Errno::EINVAL.into());
    }
    let name = user::read_string(name, NAME + 1).map_err(|error| match error {
        Error::Errno(Errno::ENAMETOOLONG) => Errno::EINVAL.into(),
        error => error,
    })?;
    if huge && size != 0 && size != memfd::SIZE {
        return Err(Errno::ENODEV.into());
    }
    let executable = flags & memfd::NOEXEC_SEAL == 0;
    let sealable = flags & (memfd::ALLOW_SEALING | memfd::NOEXEC_SEAL) != 0;
    let open = tmpfs::memfd(&name, huge, sealable, executable)?;
    install(call, open, cloexec(flags & memfd::CLOEXEC != 0))
}

fn cloexec(is: bool) -> OpenFlags {
    if is {
        OpenFlags::CLOEXEC
    } else {
        OpenFlags::empty()
    }
}

/// `eventfd`.
pub fn eventfd(call: &mut Call<'_>) -> Result {
    make_eventfd(call, 0)
}

/// `eventfd2`.
pub fn eventfd2(call: &mut Call<'_>) -> Result {
    make_eventfd(call, call.args[1])
}

fn make_eventfd(call: &Call<'_>, flags: u64) -> Result {
    const SEMAPHORE: u64 = 1;
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
    super::only(flags, u64::from(known.bits()) | SEMAPHORE)?;
    let file = EventFile::new(call.args[0] as u32, flags & SEMAPHORE != 0);
    let status = OpenFlags::from_bits_truncate(flags as u32) & known;
    install(call, OpenFile::new(file, OpenFlags::RDWR | status), status)
}
