//! Files that are no files: memory to share, counters, timers, signals.

use super::open::install;
use crate::abi::errno::Errno;
use crate::file::eventfd::EventFile;
use crate::file::secret::SecretFile;
use crate::file::signalfd::SignalFile;
use crate::file::timerfd::TimerFile;
use crate::file::tmpfs;
use crate::file::{OpenFile, OpenFlags};
use crate::process::clock::{Clock, TimeSpec};
use crate::process::signal::SignalSet;
use crate::process::timer::Setting;
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
    let [name, flags, ..] = *call.args;
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

/// `memfd_secret`.
pub fn memfd_secret(call: &mut Call<'_>) -> Result {
    let flags = call.args[0];
    super::only(flags, u64::from(OpenFlags::CLOEXEC.bits()))?;
    let status = OpenFlags::from_bits_truncate(flags as u32);
    let open = OpenFile::new(SecretFile::new(), OpenFlags::RDWR | OpenFlags::LARGEFILE);
    install(call, open, status)
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

/// `timerfd_create`.
pub fn timerfd_create(call: &mut Call<'_>) -> Result {
    const BOOTTIME: u64 = 7;
    const REALTIME_ALARM: u64 = 8;
    const BOOTTIME_ALARM: u64 = 9;
    let [number, flags, ..] = *call.args;
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
    super::only(flags, u64::from(known.bits()))?;
    let clock = match u64::from(number as u32) {
        0 | REALTIME_ALARM => Clock::Realtime,
        1 | BOOTTIME | BOOTTIME_ALARM => Clock::Monotonic,
        _ => return Err(Errno::EINVAL.into()),
    };
    let status = OpenFlags::from_bits_truncate(flags as u32) & known;
    let file = TimerFile::new(clock, number as u32);
    install(call, OpenFile::new(file, OpenFlags::RDWR | status), status)
}

/// An `itimerspec`.
fn setting_at(at: u64) -> core::result::Result<Setting, Error> {
    let mut bytes = [0; 2 * TimeSpec::SIZE];
    user::read(at, &mut bytes)?;
    let (interval, value) = bytes.split_at(TimeSpec::SIZE);
    let time = |bytes: &[u8]| {
        let bytes = bytes.try_into().map_err(|_| Errno::EFAULT)?;
        TimeSpec::from_bytes(bytes).duration()
    };
    Ok(Setting {
        interval: time(interval)?,
        value: time(value)?,
    })
}

fn give_setting(at: u64, setting: Setting) -> core::result::Result<(), Error> {
    let times = [setting.interval, setting.value];
    user::write(
        at,
        times.map(|time| TimeSpec::from(time).to_bytes()).as_flattened(),
    )
}

/// `timerfd_settime`.
pub fn timerfd_settime(call: &mut Call<'_>) -> Result {
    const ABSOLUTE: u64 = 1;
    const CANCEL_ON_SET: u64 = 2;
    let [_, flags, new, old, ..] = *call.args;
    let setting = setting_at(new)?;
    super::only(flags, ABSOLUTE | CANCEL_ON_SET)?;
    let open = call.file(0)?;
    let timer = open.as_file::<TimerFile>().ok_or(Errno::EINVAL)?;
    let before = timer.set(setting, flags & ABSOLUTE != 0, flags as u32)?;
    if old != 0 {
        give_setting(old, before)?;
    }
    Ok(0)
}

/// `timerfd_gettime`.
pub fn timerfd_gettime(call: &mut Call<'_>) -> Result {
    let open = call.file(0)?;
    let timer = open.as_file::<TimerFile>().ok_or(Errno::EINVAL)?;
    give_setting(call.args[1], timer.get())?;
    Ok(0)
}

/// `signalfd`.
pub fn signalfd(call: &mut Call<'_>) -> Result {
    make_signalfd(call, 0)
}

/// `signalfd4`.
pub fn signalfd4(call: &mut Call<'_>) -> Result {
    make_signalfd(call, call.args[3])
}

fn make_signalfd(call: &Call<'_>, flags: u64) -> Result {
    let [fd, set, size, ..] = *call.args;
    if size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let set = SignalSet::from_bits(user::read_u64(set)?);
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK;
    super::only(flags, u64::from(known.bits()))?;
    if fd as u32 == u32::MAX {
        let status = OpenFlags::from_bits_truncate(flags as u32) & known;
        let file = SignalFile::new(call.thread.process(), set);
        return install(call, OpenFile::new(file, OpenFlags::RDWR | status), status);
    }
    let open = call.file(0)?;
    open.as_file::<SignalFile>().ok_or(Errno::EINVAL)?.set(set);
    Ok(u64::from(fd as u32))
}
