//! `fcntl`, `ioctl`.

use alloc::sync::Arc;

use super::locks::{self, Sharing};
use crate::abi::errno::Errno;
use crate::abi::stat::{S_IFMT, S_IFREG};
use crate::file::pipe::PipeFile;
use crate::file::tmpfs::{RegularFile, Seals};
use crate::file::{OpenFile, OpenFlags};
use crate::mm::cache::Object;
use crate::mm::vma::{Vma, VmaFlags};
use crate::process;
use crate::syscall::{Call, Result, user};

/// Commands of `fcntl` (`asm-generic/fcntl.h`, `linux/fcntl.h`).
mod command {
    pub const DUPFD: u64 = 0;
    pub const GETFD: u64 = 1;
    pub const SETFD: u64 = 2;
    pub const GETFL: u64 = 3;
    pub const SETFL: u64 = 4;
    pub const GETLK: u64 = 5;
    pub const SETLK: u64 = 6;
    pub const SETLKW: u64 = 7;
    pub const SETOWN: u64 = 8;
    pub const GETOWN: u64 = 9;
    pub const SETSIG: u64 = 10;
    pub const GETSIG: u64 = 11;
    pub const OFD_GETLK: u64 = 36;
    pub const OFD_SETLK: u64 = 37;
    pub const OFD_SETLKW: u64 = 38;
    pub const DUPFD_QUERY: u64 = 1027;
    pub const DUPFD_CLOEXEC: u64 = 1030;
    pub const SETPIPE_SZ: u64 = 1031;
    pub const GETPIPE_SZ: u64 = 1032;
    pub const ADD_SEALS: u64 = 1033;
    pub const GET_SEALS: u64 = 1034;
}

/// `FD_CLOEXEC`.
const FD_CLOEXEC: u64 = 1;

/// `fcntl`.
pub fn fcntl(call: &mut Call<'_>) -> Result {
    use command::*;
    let [fd, command, argument, ..] = *call.args;
    let command = u64::from(command as u32);
    let open = call.any_file(0)?;
    let allowed_for_names = matches!(
        command,
        DUPFD | DUPFD_CLOEXEC | DUPFD_QUERY | GETFD | SETFD | GETFL
    );
    if open.status().contains(OpenFlags::PATH) && !allowed_for_names {
        return Err(Errno::EBADF.into());
    }
    let files = call.files;
    match command {
        DUPFD | DUPFD_CLOEXEC => {
            let lowest = usize::try_from(argument as u32 as i32).map_err(|_| Errno::EINVAL)?;
            if lowest >= files.limit() {
                return Err(Errno::EINVAL.into());
            }
            Ok(files.install_from(lowest, open, command == DUPFD_CLOEXEC)?)
        }
        DUPFD_QUERY => {
            let other = files.get_any(argument)?;
            Ok(u64::from(Arc::ptr_eq(&open, &other)))
        }
        GETFD => Ok(u64::from(files.closes_on_exec(fd)?)),
        SETFD => {
            files.set_closes_on_exec(fd, argument & FD_CLOEXEC != 0)?;
            Ok(0)
        }
        GETFL => Ok(u64::from(open.status().bits())),
        SETFL => {
            open.set_status(OpenFlags::from_bits_retain(argument as u32));
            Ok(0)
        }
        GETLK => locks::show(call, &open, Sharing::Table, argument),
        SETLK => locks::set(call, &open, Sharing::Table, argument, false),
        SETLKW => locks::set(call, &open, Sharing::Table, argument, true),
        OFD_GETLK => locks::show(call, &open, Sharing::Description, argument),
        OFD_SETLK => locks::set(call, &open, Sharing::Description, argument, false),
        OFD_SETLKW => locks::set(call, &open, Sharing::Description, argument, true),
        SETOWN | SETSIG | GETOWN | GETSIG => Ok(0),
        SETPIPE_SZ => {
            let pipe = open.as_file::<PipeFile>().ok_or(Errno::EBADF)?;
            Ok(pipe.pipe().set_capacity(argument as u32 as usize)? as u64)
        }
        GETPIPE_SZ => {
            let pipe = open.as_file::<PipeFile>().ok_or(Errno::EBADF)?;
            Ok(pipe.pipe().capacity() as u64)
        }
        ADD_SEALS => add_seals(&open, argument),
        GET_SEALS => {
            let file = open.as_file::<RegularFile>().ok_or(Errno::EINVAL)?;
            Ok(u64::from(file.body().seals().bits()))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn add_seals(open: &OpenFile, argument: u64) -> Result {
    let file = open.as_file::<RegularFile>().ok_or(Errno::EINVAL)?;
    open.must_write().map_err(|_| Errno::EPERM)?;
    let seals = Seals::from_bits(argument as u32).ok_or(Errno::EINVAL)?;
    file.body().seal(seals, is_shared_to_write)?;
    Ok(0)
}

/// Whether any process has the object mapped so that stores reach it, now or after `mprotect`.
fn is_shared_to_write(object: &Arc<Object>) -> bool {
    let maps = |area: &Vma| {
        let backing = area.backing.as_ref();
        backing.is_some_and(|backing| Arc::ptr_eq(&backing.object, object))
            && area.is_shared()
            && !area.flags.contains(VmaFlags::READ_ONLY)
    };
    let processes = process::all();
    let mut spaces = processes.iter().map(|process| process.mm());
    spaces.any(|mm| mm.space().each_area().any(|area| maps(&area)))
}

const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIOASYNC: u32 = 0x5452;

/// `ioctl`.
pub fn ioctl(call: &mut Call<'_>) -> Result {
    let [fd, command, argument, ..] = *call.args;
    let open = call.file_at_hand(0)?;
    match command as u32 {
        FIOCLEX | FIONCLEX => {
            call.files.set_closes_on_exec(fd, command as u32 == FIOCLEX)?;
            Ok(0)
        }
        FIONBIO => {
            open.set_nonblocking(user::read_u32(argument)? != 0);
            Ok(0)
        }
        FIOASYNC => {
            user::read_u32(argument)?;
            Err(Errno::ENOTTY.into())
        }
        FIONREAD if open.stat().mode & S_IFMT == S_IFREG => {
            let left = open.file().end().wrapping_sub(open.position());
            user::write(argument, &(left as u32).to_ne_bytes())?;
            Ok(0)
        }
        command => open.file().ioctl(&open, command, argument),
    }
}
