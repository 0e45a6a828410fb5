//! Waiting for several files: poll, select, epoll.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Call, Error, Restart, Result, user};
use crate::abi::errno::Errno;
use crate::file::epoll::{EpollFile, Event, How};
use crate::file::poll::{self, Watched};
use crate::file::{OpenFile, OpenFlags, Readiness, signals};
use crate::mm::addr::{USER_TOP, VirtAddr};
use crate::process::RestartBlock;
use crate::task;

/// Bytes of a `pollfd`.
const POLLFD: usize = 8;
/// Bytes of the kernel's that waiting for one file takes: the descriptor, what is watched, its place at the file, twice where
/// a list grows.
const PER_FILE: usize = 128;
/// Bytes of an `epoll_event`, which is packed.
const EVENT: usize = 12;
/// Most events of one call.
const MAX_EVENTS: u64 = i32::MAX as u64 / EVENT as u64;
/// Most events that one call gives at once: more are given by the next.
const AT_ONCE: usize = 1024;
/// Bytes of a signal set.
const SIGSET: u64 = 8;

/// A time-out in milliseconds; negative ones are none.
fn milliseconds(word: u64) -> Option<Duration> {
    u64::try_from(word as i32).ok().map(Duration::from_millis)
}

/// The `timespec` at `at`, or the `timeval` if a unit is 1000 ns; `None` at address 0.
fn time_at(at: u64, unit: u64) -> core::result::Result<Option<Duration>, Error> {
    if at == 0 {
        return Ok(None);
    }
    let (seconds, units) = (
        user::read_u64(at)? as i64,
        user::read_u64(at.wrapping_add(8))? as i64,
    );
    if unit == 1 && !(0..1_000_000_000).contains(&units) {
        return Err(Errno::EINVAL.into());
    }
    // `select` takes more than a second of microseconds.
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let units = u64::try_from(units).map_err(|_| Errno::EINVAL)?;
    let rest = Duration::from_micros(units / 1000 * if unit == 1 { 1 } else { 1000 })
        + Duration::from_nanos(units % 1000 * unit);
    Ok(Some(Duration::from_secs(seconds).saturating_add(rest)))
}

/// Tells the caller what is left of its time; nobody minds if that cannot be written.
fn tell_rest(at: u64, began: Duration, timeout: Option<Duration>, unit: u64) {
    let Some(timeout) = timeout else { return };
    let left = timeout.saturating_sub(task::now().saturating_sub(began));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&left.as_secs().to_ne_bytes());
    bytes[8..].copy_from_slice(&(u64::from(left.subsec_nanos()) / unit).to_ne_bytes());
    let _ = user::write(at, &bytes);
}

/// The signals at `at` that are to be blocked during a wait.
fn mask_at(at: u64, size: u64) -> core::result::Result<Option<u64>, Error> {
    if at == 0 {
        return Ok(None);
    }
    if size != SIGSET {
        return Err(Errno::EINVAL.into());
    }
    Ok(Some(user::read_u64(at)?))
}

/// `poll`.
pub fn poll(call: &mut Call<'_>) -> Result {
    let [fds, count, timeout, ..] = *call.args;
    let end = milliseconds(timeout).map(|timeout| task::now().saturating_add(timeout));
    poll_until(call, fds, count, end)
}

/// Polls until a moment of the monotonic clock. What a signal cuts short goes on for the rest of the time.
fn poll_until(call: &Call<'_>, fds: u64, count: u64, end: Option<Duration>) -> Result {
    let left = end.map(|end| end.saturating_sub(task::now()));
    let polled = poll_files(call, fds, count, left);
    if !matches!(polled, Err(Error::Restart(_))) {
        return polled;
    }
    let moment = end.unwrap_or_default();
    call.thread.set_restart(RestartBlock {
        call: |call| {
            let [fds, count, has_end, seconds, nanos, _] = *call.args;
            let end = Duration::new(seconds, nanos as u32);
            poll_until(call, fds, count, (has_end != 0).then_some(end))
        },
        args: [
            fds,
            count,
            u64::from(end.is_some()),
            moment.as_secs(),
            moment.subsec_nanos().into(),
            0,
        ],
    });
    Err(Restart::Block.into())
}

/// `ppoll`.
pub fn ppoll(call: &mut Call<'_>) -> Result {
    let [fds, count, time, mask, size, _] = *call.args;
    let timeout = time_at(time, 1)?;
    let mask = mask_at(mask, size)?;
    let began = task::now();
    let polled = signals::with_mask(mask, || poll_files(call, fds, count, timeout));
    tell_rest(time, began, timeout, 1);
    polled
}

fn poll_files(call: &Call<'_>, fds: u64, count: u64, timeout: Option<Duration>) -> Result {
    let count = count as u32 as usize;
    let files = call.files;
    if count > files.limit() {
        return Err(Errno::EINVAL.into());
    }
    user::check_room(count.saturating_mul(PER_FILE))?;
    let bytes = user::read_vec(fds, count * POLLFD)?;
    let mut watched: Vec<Watched> = bytes
        .chunks_exact(POLLFD)
        .map(|fd| {
            let number = i32::from_ne_bytes([fd[0], fd[1], fd[2], fd[3]]);
            let wanted = u16::from_ne_bytes([fd[4], fd[5]]);
            watched(files, number, wanted)
        })
        .collect();
    let ready = poll::wait(&mut watched, timeout)?;
    for (at, one) in (fds..).step_by(POLLFD).zip(&watched) {
        let found = one.found.bits() as u16;
        user::write(at + 6, &found.to_ne_bytes())?;
    }
    Ok(ready as u64)
}

fn watched(files: &crate::file::Table, number: i32, wanted: u16) -> Watched {
    let mut one = Watched {
        file: None,
        wanted: Readiness::from_bits_truncate(wanted.into()) | Readiness::UNASKED,
        found: Readiness::empty(),
    };
    // A negative number is passed over.
    if let Ok(fd) = u64::try_from(number) {
        match files.get(fd) {
            Ok(file) => one.file = Some(file),
            Err(_) => one.found = Readiness::NVAL,
        }
    }
    one
}

/// What each of select's three sets waits for, as on Linux.
const SETS: [Readiness; 3] = [
    Readiness::READABLE
        .union(Readiness::RDBAND)
        .union(Readiness::HUP)
        .union(Readiness::ERR),
    Readiness::WRITABLE.union(Readiness::WRBAND).union(Readiness::ERR),
    Readiness::PRI,
];

/// `select`.
pub fn select(call: &mut Call<'_>) -> Result {
    let time = call.args[4];
    let timeout = time_at(time, 1000)?;
    let began = task::now();
    let selected = select_files(call, timeout);
    tell_rest(time, began, timeout, 1000);
    selected
}

/// `pselect6`.
pub fn pselect6(call: &mut Call<'_>) -> Result {
    let [.., time, pack] = *call.args;
    let mask = if pack == 0 {
        None
    } else {
        mask_at(user::read_u64(pack)?, user::read_u64(pack.wrapping_add(8))?)?
    };
    let timeout = time_at(time, 1)?;
    let began = task::now();
    let selected = signals::with_mask(mask, || select_files(call, timeout));
    tell_rest(time, began, timeout, 1);
    selected
}

fn select_files(call: &Call<'_>, timeout: Option<Duration>) -> Result {
    let [count, sets @ ..] = *call.args;
    let count = usize::try_from(count as i32).map_err(|_| Errno::EINVAL)?;
    let files = call.files;
    let count = count.min(files.limit());
    let words = count.div_ceil(64);
    user::check_room(count * PER_FILE)?;
    let mut asked = [const { Vec::new() }; 3];
    for (set, at) in asked.iter_mut().zip(sets) {
        *set = if at == 0 {
            vec![0; words * 8]
        } else {
            user::read_vec(at, words * 8)?
        };
    }
    let is_in = |set: &Vec<u8>, fd: usize| set[fd / 8] & (1 << (fd % 8)) != 0;
    let mut numbers = Vec::new();
    let mut watched = Vec::new();
    for fd in 0..count {
        let wanted = asked.iter().zip(SETS).filter(|(set, _)| is_in(set, fd));
        let wanted = wanted.fold(Readiness::empty(), |sum, (_, wanted)| sum | wanted);
        if !wanted.is_empty() {
            numbers.push(fd);
            watched.push(Watched {
                file: Some(files.get(fd as u64)?),
                wanted,
                found: Readiness::empty(),
            });
        }
    }
    poll::wait(&mut watched, timeout)?;
    let mut total = 0;
    for ((set, at), wanted) in asked.iter().zip(sets).zip(SETS) {
        let mut found = vec![0_u8; words * 8];
        for (one, fd) in watched.iter().zip(&numbers) {
            if is_in(set, *fd) && one.found.intersects(wanted) {
                found[fd / 8] |= 1 << (fd % 8);
                total += 1;
            }
        }
        if at != 0 {
            user::write(at, &found)?;
        }
    }
    Ok(total)
}

/// `epoll_create`.
pub fn epoll_create(call: &mut Call<'_>) -> Result {
    if call.args[0] as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    install_epoll(call, false)
}

/// `epoll_create1`.
pub fn epoll_create1(call: &mut Call<'_>) -> Result {
    let cloexec = OpenFlags::CLOEXEC.bits();
    if call.args[0] as u32 & !cloexec != 0 {
        return Err(Errno::EINVAL.into());
    }
    install_epoll(call, call.args[0] as u32 & cloexec != 0)
}

fn install_epoll(call: &Call<'_>, cloexec: bool) -> Result {
    let open = OpenFile::new(EpollFile::new(), OpenFlags::RDWR);
    Ok(call.files.install(open, cloexec)?)
}

/// `epoll_ctl`.
pub fn epoll_ctl(call: &mut Call<'_>) -> Result {
    const ADD: u32 = 1;
    const DEL: u32 = 2;
    const MOD: u32 = 3;
    let [_, operation, fd, event, ..] = *call.args;
    let operation = operation as u32;
    let interest = if operation == DEL {
        Event { events: 0, data: 0 }
    } else {
        let mut bytes = [0; EVENT];
        user::read(event, &mut bytes)?;
        let (events, data) = bytes.split_at(4);
        Event {
            events: u32::from_ne_bytes(events.try_into().map_err(|_| Errno::EFAULT)?),
            data: u64::from_ne_bytes(data.try_into().map_err(|_| Errno::EFAULT)?),
        }
    };
    let (open, file) = (call.file(0)?, call.file(2)?);
    if file.file().notifier().is_none() {
        return Err(Errno::EPERM.into());
    }
    let epoll = open.as_file::<EpollFile>();
    let epoll = epoll
        .filter(|_| !alloc::sync::Arc::ptr_eq(&open, &file))
        .ok_or(Errno::EINVAL)?;
    let how = How::from_bits_truncate(interest.events);
    if how.contains(How::EXCLUSIVE) {
        let allowed = Readiness::IN | Readiness::OUT | Readiness::UNASKED;
        let allowed = allowed.bits() | (How::EXCLUSIVE | How::WAKEUP | How::EDGE).bits();
        if operation == MOD || (operation == ADD && interest.events & !allowed != 0) {
            return Err(Errno::EINVAL.into());
        }
    }
    let fd = u64::from(fd as u32);
    match operation {
        ADD => epoll.add(fd, &file, interest)?,
        DEL => epoll.remove(fd, &file)?,
        MOD => epoll.modify(fd, &file, interest)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `epoll_wait`.
pub fn epoll_wait(call: &mut Call<'_>) -> Result {
    let timeout = milliseconds(call.args[3]);
    wait_for_events(call, timeout)
}

/// `epoll_pwait`.
pub fn epoll_pwait(call: &mut Call<'_>) -> Result {
    let [_, _, _, timeout, mask, size] = *call.args;
    let mask = mask_at(mask, size)?;
    signals::with_mask(mask, || wait_for_events(call, milliseconds(timeout)))
}

/// `epoll_pwait2`.
pub fn epoll_pwait2(call: &mut Call<'_>) -> Result {
    let [_, _, _, time, mask, size] = *call.args;
    let timeout = time_at(time, 1)?;
    let mask = mask_at(mask, size)?;
    signals::with_mask(mask, || wait_for_events(call, timeout))
}

fn wait_for_events(call: &Call<'_>, timeout: Option<Duration>) -> Result {
    let [_, at, max, ..] = *call.args;
    let open = call.file(0)?;
    let max = max as i32;
    if max <= 0 || max as u64 > MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    let end = VirtAddr::new(at).checked_add(max as u64 * EVENT as u64);
    if end.is_none_or(|end| end > USER_TOP) {
        return Err(Errno::EFAULT.into());
    }
    let epoll = open.as_file::<EpollFile>().ok_or(Errno::EINVAL)?;
    let given = epoll.wait((max as usize).min(AT_ONCE), timeout, |events| {
        let bytes: Vec<u8> = events
            .iter()
            .flat_map(|event| {
                let mut bytes = [0; EVENT];
                bytes[..4].copy_from_slice(&event.events.to_ne_bytes());
                bytes[4..].copy_from_slice(&event.data.to_ne_bytes());
                bytes
            })
            .collect();
        user::write(at, &bytes)
    })?;
    Ok(given as u64)
}
