//! Calls on descriptors of processes.

use alloc::sync::Arc;

use super::signal::{check_permission, from_caller, signal_or_none};
use super::{Call, Error, Result, user};
use crate::abi::errno::Errno;
use crate::abi::signal::{SI_TKILL, SI_USER, SIGINFO_SIZE, SigInfo};
use crate::file::pidfd::PidFile;
use crate::file::{OpenFile, OpenFlags, proc};
use crate::process::handle::Handle;
use crate::process::insight::{By, may_look_into};
use crate::process::signal::{send_to_group, send_to_process, send_to_thread};
use crate::process::{Pid, Process, find, table};

type Answer<T> = core::result::Result<T, Errno>;

/// `PIDFD_NONBLOCK`.
const NONBLOCK: u32 = OpenFlags::NONBLOCK.bits();
/// `PIDFD_THREAD`.
const THREAD: u32 = OpenFlags::EXCL.bits();
/// `PIDFD_SELF_THREAD`: stands for the calling thread.
const SELF_THREAD: i32 = -10000;
/// `PIDFD_SELF_THREAD_GROUP`: stands for the calling process.
const SELF_PROCESS: i32 = -10001;

/// `pidfd_open`.
pub fn pidfd_open(call: &mut Call<'_>) -> Result {
    let [number, flags, ..] = *call.args;
    let (number, flags) = (number as i32, flags as u32);
    if flags & !(NONBLOCK | THREAD) != 0 || number <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = Pid::new(number as u32);
    let handle = match (find(pid), table::thread(pid)) {
        (_, Some(thread)) if flags & THREAD != 0 => Handle::of_thread(&thread),
        (Some(process), _) => match flags & THREAD {
            0 => Handle::of_process(&process),
            _ => Handle::of_ended_leader(&process),
        },
        (None, Some(_)) => return Err(Errno::ENOENT.into()),
        (None, None) => return Err(Errno::ESRCH.into()),
    };
    let open = PidFile::open(handle, OpenFlags::from_bits_truncate(flags));
    Ok(call.files.install(open, true)?)
}

/// Whom `f` is about: the descriptor in argument `index`, or one of the numbers that stand for the caller.
///
/// # Errors
/// EBADF: it is no descriptor of a process.
pub(super) fn with_handle<T>(call: &Call<'_>, index: usize, f: impl FnOnce(&Handle) -> T) -> Answer<T> {
    match call.args[index] as i32 {
        SELF_THREAD => Ok(f(&Handle::of_thread(call.thread))),
        SELF_PROCESS => Ok(f(&Handle::of_process(call.thread.process()))),
        _ => {
            let open = call.files.get(call.args[index])?;
            Ok(f(handle_of(&open)?))
        }
    }
}

/// Whom a descriptor of a process is about.
///
/// # Errors
/// EBADF: it is no such descriptor.
pub(super) fn handle_of(open: &OpenFile) -> Answer<&Handle> {
    open.as_file::<PidFile>().map(PidFile::handle).ok_or(Errno::EBADF)
}

/// Who is sent a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Thread,
    Process,
    Group,
}

/// `pidfd_send_signal`: descriptor, signal, siginfo, scope. A directory of `/proc` will do as the descriptor of its process.
pub fn pidfd_send_signal(call: &mut Call<'_>) -> Result {
    let [fd, number, info, flags, ..] = *call.args;
    let scope = match flags as u32 {
        0 => None,
        1 => Some(Scope::Thread),
        2 => Some(Scope::Process),
        4 => Some(Scope::Group),
        _ => return Err(Errno::EINVAL.into()),
    };
    if fd as i32 != SELF_THREAD && fd as i32 != SELF_PROCESS {
        let open = call.files.get(fd)?;
        if let Some(process) = proc::process_of(&open) {
            let process = process?;
            return send(call, &Handle::of_process(&process), scope, number, info);
        }
        return send(call, handle_of(&open)?, scope, number, info);
    }
    with_handle(call, 0, |handle| send(call, handle, scope, number, info))?
}

fn send(call: &Call<'_>, handle: &Handle, scope: Option<Scope>, number: u64, info: u64) -> Result {
    let scope = scope.unwrap_or(match handle.is_of_thread() {
        true => Scope::Thread,
        false => Scope::Process,
    });
    let given = match info {
        0 => None,
        at => Some(read_info(call, handle, scope, number, at)?),
    };
    let signal = signal_or_none(number);
    let code = match scope {
        Scope::Thread => SI_TKILL,
        Scope::Process | Scope::Group => SI_USER,
    };
    if scope == Scope::Group {
        let signal = signal?;
        let info = given.unwrap_or_else(|| from_caller(call, signal, code));
        let may = |process: &Process| check_permission(call, process, signal).is_ok();
        return match send_to_group(handle.pid(), info, may) {
            (0, _) => Err(Errno::ESRCH.into()),
            (_, 0) => Err(Errno::EPERM.into()),
            _ => Ok(0),
        };
    }
    let process = handle.process().ok_or(Errno::ESRCH)?;
    let signal = signal?;
    check_permission(call, &process, signal)?;
    if signal != 0 {
        let info = given.unwrap_or_else(|| from_caller(call, signal, code));
        match (scope, handle.thread()) {
            (Scope::Thread, Some(thread)) => send_to_thread(&thread, info)?,
            // It has ended, and its process has not been waited for.
            (Scope::Thread, None) => {}
            _ => send_to_process(&process, info)?,
        }
    }
    Ok(0)
}

/// The siginfo at `at`, as far as it may be sent.
fn read_info(
    call: &Call<'_>,
    handle: &Handle,
    scope: Scope,
    number: u64,
    at: u64,
) -> core::result::Result<SigInfo, Error> {
    let bytes: [u8; SIGINFO_SIZE] = user::read_array(at)?;
    let named = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let info = SigInfo::from_bytes(number as u8, &bytes).ok_or(Errno::E2BIG)?;
    if named != number as u32 {
        return Err(Errno::EINVAL.into());
    }
    let is_own = handle.pid() == call.thread.tid() && scope != Scope::Group;
    if !is_own && (info.code >= 0 || info.code == SI_TKILL) {
        return Err(Errno::EPERM.into());
    }
    Ok(info)
}

/// `pidfd_getfd`: a process, one of its descriptors, no flags. It becomes one of the caller's too.
pub fn pidfd_getfd(call: &mut Call<'_>) -> Result {
    let [fd, wanted, flags, ..] = *call.args;
    if flags as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let open = call.files.get(fd)?;
    let process = handle_of(&open)?.process().ok_or(Errno::ESRCH)?;
    if !may_look_into(call.thread, &process, By::Real) {
        return Err(Errno::EPERM.into());
    }
    if process.thread_count() == 0 {
        return Err(Errno::ESRCH.into());
    }
    let file: Arc<OpenFile> = process.files().get_any(wanted)?;
    Ok(call.files.install(file, true)?)
}
