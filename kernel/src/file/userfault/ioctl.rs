//! The commands of a context: arguments are copied in, checked and copied out in Linux's order.
//!
//! | | fills: COPY, ZEROPAGE, CONTINUE, POISON, MOVE | WRITEPROTECT | the others |
//! | --- | --- | --- | --- |
//! | a layout change is not read of | EAGAIN, also in the field; before the argument is read | EAGAIN, before | no matter |
//! | the argument cannot be read | EFAULT | EFAULT | EFAULT |
//! | it is wrong in itself, or the space is gone | the field stays as it is | | |
//! | otherwise | bytes done, or the error, in the field | | |
//! | the answer cannot be stored | EFAULT; what was done stays, and nobody is woken | | EFAULT; REGISTER stays, API is not made |

use crate::abi::errno::Errno;
use crate::abi::uffd::ioctl;
use crate::mm::addr::VirtAddr;
use crate::mm::memtype::Modes;
use crate::mm::range::VirtRange;
use crate::mm::space::Space;
use crate::syscall::Error;
use crate::syscall::user;
use crate::task;
use crate::uffd::api::Handshake;
use crate::uffd::linux::{self, WriteProtectMode};
use crate::uffd::ops::MoveMode;
use crate::uffd::{Features, FillMode, Outcome, Release, Uffd};

type Done = Result<(), Error>;

/// Performs `command`.
pub(super) fn perform(uffd: &Uffd, command: u32, argument: u64) -> Done {
    if command == ioctl::API {
        return api(uffd, argument);
    }
    if !uffd.ctx().is_ready() {
        return Err(Errno::EINVAL.into());
    }
    match command {
        ioctl::COPY => fill(uffd, argument, linux::fill, |words| Ok(copy(uffd, words))),
        ioctl::ZEROPAGE => fill(uffd, argument, linux::fill, |words| {
            on_range(words, |range, mode| uffd.zeropage(range, mode))
        }),
        ioctl::CONTINUE => fill(uffd, argument, linux::cont, |words| {
            on_range(words, |range, mode| uffd.cont(range, mode))
        }),
        ioctl::POISON => fill(uffd, argument, linux::fill, |words| {
            on_range(words, |range, mode| uffd.poison(range, mode))
        }),
        ioctl::MOVE => fill(uffd, argument, linux::fill, |words| move_pages(uffd, words)),
        ioctl::WRITEPROTECT => write_protect(uffd, argument),
        ioctl::WAKE => {
            let [start, len] = user::read_words(argument)?;
            let range = range(start, len)?;
            Ok(uffd.wake(range).map_err(linux::wake)?)
        }
        ioctl::REGISTER => register(uffd, argument),
        ioctl::UNREGISTER => {
            let [start, len] = user::read_words(argument)?;
            let range = range(start, len)?;
            Ok(uffd.unregister(range).map_err(linux::unregister)?)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// A range, if its end is an address; what else it has to be, the operations check.
fn range(start: u64, len: u64) -> Result<VirtRange, Errno> {
    VirtRange::from_len(VirtAddr::new(start), len).ok_or(Errno::EINVAL)
}

fn api(uffd: &Uffd, argument: u64) -> Done {
    let [api, features, _ioctls] = user::read_words(argument)?;
    let wanted = Handshake {
        api,
        features: Features::from_bits_retain(features),
        may_trace: super::may_trace(),
    };
    let store = |answer: &linux::ApiAnswer| {
        let words = answer.argument.map(u64::to_le_bytes);
        user::write(argument, words.as_flattened())
    };
    let agreed = Release::V6_18.negotiate(wanted);
    let answer = linux::api(agreed);
    store(&answer)?;
    answer.result?;
    let concluded = agreed.and_then(|agreement| uffd.conclude(&agreement).map(|()| agreement));
    if concluded.is_err() {
        let answer = linux::api(concluded);
        store(&answer)?;
        answer.result?;
    }
    Ok(())
}

fn register(uffd: &Uffd, argument: u64) -> Done {
    let [start, len, mode] = user::read_words(argument)?;
    let modes = u8::try_from(mode).ok().and_then(Modes::from_bits);
    let modes = modes.ok_or(Errno::EINVAL)?;
    let range = range(start, len)?;
    let registered = uffd.register_areas(range, modes).map_err(linux::register)?;
    let ioctls = linux::register_ioctls(&Release::V6_18, modes, registered.basic);
    user::write(argument + 24, &ioctls.bits().to_le_bytes())
}

fn write_protect(uffd: &Uffd, argument: u64) -> Done {
    if uffd.is_changing() {
        return Err(Errno::EAGAIN.into());
    }
    let [start, len, mode] = user::read_words(argument)?;
    let range = range(start, len)?;
    let done = match linux::write_protect_mode(mode)? {
        WriteProtectMode::Protect => uffd.write_protect(range),
        WriteProtectMode::Remove(mode) => uffd.remove_write_protection(range, mode),
    };
    Ok(done.map_err(linux::write_protect)?)
}

/// What a fill of `len` bytes from `start` on came to, with nobody woken yet.
struct Filled {
    start: VirtAddr,
    len: u64,
    outcome: Outcome,
    /// Whether those who wait are to be woken.
    wakes: bool,
}

/// One of the fills, whose argument is N words and the output field. Waiters are woken once the field is stored.
#[inline]
fn fill<const N: usize>(
    uffd: &Uffd,
    argument: u64,
    answer: impl FnOnce(Outcome, u64) -> linux::Answer,
    operation: impl FnOnce([u64; N]) -> Result<Filled, Errno>,
) -> Done {
    let field = argument.wrapping_add(8 * N as u64);
    let store = |value: i64| user::write(field, &value.to_le_bytes());
    if uffd.is_changing() {
        store(-Errno::EAGAIN.number())?;
        return Err(Errno::EAGAIN.into());
    }
    let filled = operation(user::read_words(argument)?)?;
    let Filled { start, len, .. } = filled;
    let bytes = filled.outcome.bytes(len);
    let answer = answer(filled.outcome, len);
    if let Some(value) = answer.field {
        store(value)?;
    }
    if filled.wakes && bytes > 0 {
        uffd.ctx().stir(VirtRange::new(start, start + bytes));
    }
    Ok(answer.result?)
}

/// The mode with [`FillMode::DONTWAKE`], and whether it was without.
fn quietly(mode: u64) -> (FillMode, bool) {
    let mode = FillMode::from_bits_retain(mode);
    (mode | FillMode::DONTWAKE, !mode.contains(FillMode::DONTWAKE))
}

/// A fill of the range of `len` bytes from `start` on.
#[inline]
fn on_range(
    [start, len, mode]: [u64; 3],
    operation: impl FnOnce(VirtRange, FillMode) -> Outcome,
) -> Result<Filled, Errno> {
    let (mode, wakes) = quietly(mode);
    let range = range(start, len)?;
    Ok(Filled {
        start: range.start,
        len,
        outcome: operation(range, mode),
        wakes,
    })
}

fn copy(uffd: &Uffd, [dst, src, len, mode]: [u64; 4]) -> Filled {
    let (mode, wakes) = quietly(mode);
    let start = VirtAddr::new(dst);
    Filled {
        start,
        len,
        outcome: uffd.copy_from_task(start, VirtAddr::new(src), len, mode),
        wakes,
    }
}

fn move_pages(uffd: &Uffd, [dst, src, len, mode]: [u64; 4]) -> Result<Filled, Errno> {
    let current = task::current();
    let caller: Option<&Space> = current.space().map(|space| &**space);
    let caller = caller.ok_or(Errno::EINVAL)?;
    let mode = MoveMode::from_bits_retain(mode);
    let (start, src) = (VirtAddr::new(dst), VirtAddr::new(src));
    Ok(Filled {
        start,
        len,
        outcome: uffd.move_pages(caller, start, src, len, mode | MoveMode::DONTWAKE),
        wakes: !mode.contains(MoveMode::DONTWAKE),
    })
}
