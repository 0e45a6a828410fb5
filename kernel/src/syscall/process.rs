//! Processes: made, ended, waited for, grouped.

use super::{After, Call, Result, UserMode, user};
use crate::abi::clone::{CLONE_VFORK, CLONE_VM, CSIGNAL};
use crate::abi::errno::Errno;
use crate::abi::signal::{CLD_CONTINUED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, SIGCHLD, SIGCONT, SigInfo};
use crate::abi::wait::{
    P_ALL, P_PGID, P_PID, P_PIDFD, WALL, WCLONE, WCONTINUED, WEXITED, WNOHANG, WNOTHREAD, WNOWAIT, WSTOPPED,
};
use crate::file::OpenFlags;
use crate::process::clone::{Request, clone as clone_thread};
use crate::process::tree::{Change, News, Times, Which};
use crate::process::wait::{Report, wait};
use crate::process::{Ending, Pid, TICK, find, with_tree};

fn make(call: &mut Call<'_>, user_mode: &mut UserMode<'_>, request: &Request) -> Result {
    let tid = clone_thread(call.thread, request, user_mode.registers, user_mode.extra)?;
    Ok(tid.as_u32().into())
}

/// `clone`: flags, stack, parent's word, child's word, FS.
pub fn clone(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let [flags, stack, parent_tid, child_tid, tls, _] = *call.args;
    // Flags are 32 bits wide here.
    let flags = flags & u64::from(u32::MAX);
    let request = Request {
        flags: flags & !CSIGNAL,
        exit_signal: flags & CSIGNAL,
        stack,
        parent_tid,
        child_tid,
        tls,
        pidfd: parent_tid,
    };
    make(call, user_mode, &request)
}

/// `clone3`: `struct clone_args` and its size.
pub fn clone3(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    /// The structure as it was first, and as it is known here: up to `cgroup`.
    const LEAST: usize = 64;
    const KNOWN: usize = 88;
    let [at, size, ..] = *call.args;
    let size = usize::try_from(size).map_err(|_| Errno::E2BIG)?;
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    if size < LEAST {
        return Err(Errno::EINVAL.into());
    }
    let bytes = user::read_vec(at, size)?;
    if bytes.iter().skip(KNOWN).any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    let word = |n: usize| match bytes.get(8 * n..8 * n + 8) {
        Some(word) => u64::from_le_bytes(word.try_into().expect("8 bytes")),
        None => 0,
    };
    let (stack, stack_size) = (word(5), word(6));
    let flags = word(0);
    let names_numbers = word(8) != 0 || word(9) != 0;
    if flags & CSIGNAL != 0 || (stack == 0) != (stack_size == 0) || names_numbers {
        return Err(Errno::EINVAL.into());
    }
    let request = Request {
        flags,
        exit_signal: word(4),
        stack: stack.wrapping_add(stack_size),
        pidfd: word(1),
        child_tid: word(2),
        parent_tid: word(3),
        tls: word(7),
    };
    make(call, user_mode, &request)
}

/// `fork`.
pub fn fork(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let request = Request {
        exit_signal: SIGCHLD.into(),
        ..Request::default()
    };
    make(call, user_mode, &request)
}

/// `vfork`.
pub fn vfork(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let request = Request {
        flags: CLONE_VM | CLONE_VFORK,
        exit_signal: SIGCHLD.into(),
        ..Request::default()
    };
    make(call, user_mode, &request)
}

/// `exit`: the thread ends.
pub fn exit(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    call.thread.note_exit(call.args[0] as u8);
    user_mode.after = After::Ended;
    Ok(0)
}

/// `exit_group`: the process ends.
pub fn exit_group(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let process = call.thread.process();
    process.begin_exit(Ending::Exited(call.args[0] as u8));
    user_mode.after = After::Ended;
    Ok(0)
}

/// `struct rusage` of so much CPU time.
pub(super) fn rusage(times: Times) -> [u8; 144] {
    let mut bytes = [0; 144];
    for (at, nanos) in [(0, times.user), (16, times.system)] {
        bytes[at..at + 8].copy_from_slice(&(nanos / 1_000_000_000).to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&(nanos % 1_000_000_000 / 1000).to_le_bytes());
    }
    bytes
}

/// `wait4`: which, status, options, usage.
pub fn wait4(call: &mut Call<'_>) -> Result {
    let [which, status, options, usage, ..] = *call.args;
    let options = options as u32;
    if options & !(WNOHANG | WSTOPPED | WCONTINUED | WNOTHREAD | WCLONE | WALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let which = match which as i32 {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => Which::Any,
        0 => Which::Group(group_of(call)?),
        group @ ..-1 => Which::Group(Pid::new(group.unsigned_abs())),
        pid => Which::Pid(Pid::new(pid as u32)),
    };
    let Some(report) = wait(call.thread, which, options | WEXITED)? else {
        return Ok(0);
    };
    if usage != 0 {
        user::write(usage, &rusage(times_in(report.change)))?;
    }
    if status != 0 {
        user::write_u32(status, wait_status(report.change))?;
    }
    Ok(report.pid.as_u32().into())
}

/// `waitid`: kind and number, siginfo, options, usage.
pub fn waitid(call: &mut Call<'_>) -> Result {
    let [kind, id, info, options, usage, _] = *call.args;
    let options = options as u32;
    let known = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WCLONE | WALL;
    if options & !known != 0 || options & (WEXITED | WSTOPPED | WCONTINUED) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut pidfd = None;
    let which = match (kind as u32, id as i32) {
        (P_PIDFD, id) if id >= 0 => {
            let open = call.files.get(id as u64)?;
            let handle = super::pidfd::handle_of(&open)?;
            let which = Which::Pid(handle.pid());
            pidfd = Some(open.status().contains(OpenFlags::NONBLOCK));
            which
        }
        (P_ALL, _) => Which::Any,
        (P_PID, id) if id > 0 => Which::Pid(Pid::new(id as u32)),
        (P_PGID, 0) => Which::Group(group_of(call)?),
        (P_PGID, id) if id > 0 => Which::Group(Pid::new(id as u32)),
        _ => return Err(Errno::EINVAL.into()),
    };
    // With a descriptor that does not wait, nothing to tell is an error, unless the caller does not wait either.
    let nowait = pidfd == Some(true) && options & WNOHANG == 0;
    let report = wait(call.thread, which, options | if nowait { WNOHANG } else { 0 })?;
    if nowait && report.is_none() {
        return Err(Errno::EAGAIN.into());
    }
    if usage != 0
        && let Some(report) = report
    {
        user::write(usage, &rusage(times_in(report.change)))?;
    }
    if info != 0 {
        let told = report.map_or(SigInfo::default(), |report| about(&report));
        // The known fields of a child's siginfo, and no more (as Linux).
        user::write(info, &told.to_bytes()[..12])?;
        user::write(info + 16, &told.to_bytes()[16..28])?;
    }
    Ok(0)
}

fn times_in(change: Change) -> Times {
    match change {
        Change::Ended(_, times) => times,
        Change::News(_) => Times::default(),
    }
}

/// What `wait4` stores.
fn wait_status(change: Change) -> u32 {
    match change {
        Change::Ended(ending, _) => ending.status(),
        Change::News(News::Stopped(signal)) => u32::from(signal) << 8 | 0x7f,
        Change::News(News::Continued) => 0xffff,
    }
}

/// What `waitid` stores.
fn about(report: &Report) -> SigInfo {
    let (code, status) = match report.change {
        Change::Ended(Ending::Exited(status), _) => (CLD_EXITED, status),
        Change::Ended(Ending::Signalled(signal), _) => (CLD_KILLED, signal),
        Change::News(News::Stopped(signal)) => (CLD_STOPPED, signal),
        Change::News(News::Continued) => (CLD_CONTINUED, SIGCONT),
    };
    SigInfo::child(code, report.pid.as_u32(), report.uid, status.into(), 0, 0)
}

/// The process with number `pid`, or the caller's for 0.
fn named(call: &Call<'_>, pid: u64) -> core::result::Result<Pid, Errno> {
    match pid as i32 {
        0 => Ok(call.thread.process().pid()),
        pid if pid > 0 => Ok(Pid::new(pid as u32)),
        _ => Err(Errno::ESRCH),
    }
}

fn group_of(call: &Call<'_>) -> core::result::Result<Pid, Errno> {
    let pid = call.thread.process().pid();
    with_tree(|tree| tree.group(pid)).ok_or(Errno::ESRCH)
}

/// `getpid`.
pub fn getpid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.process().pid().as_u32().into())
}

/// `getppid`.
pub fn getppid(call: &mut Call<'_>) -> Result {
    Ok(call.thread.process().parent_pid().as_u32().into())
}

/// `getpgrp`.
pub fn getpgrp(call: &mut Call<'_>) -> Result {
    Ok(group_of(call)?.as_u32().into())
}

/// `getpgid`.
pub fn getpgid(call: &mut Call<'_>) -> Result {
    let pid = named(call, call.args[0])?;
    let group = with_tree(|tree| tree.group(pid)).ok_or(Errno::ESRCH)?;
    Ok(group.as_u32().into())
}

/// `setpgid`.
pub fn setpgid(call: &mut Call<'_>) -> Result {
    let caller = call.thread.process().pid();
    let [pid, group, ..] = *call.args;
    if (group as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = named(call, pid)?;
    let group = match group as u32 {
        0 => pid,
        group => Pid::new(group),
    };
    with_tree(|tree| tree.set_group(caller, pid, group))?;
    Ok(0)
}

/// `getsid`.
pub fn getsid(call: &mut Call<'_>) -> Result {
    let pid = named(call, call.args[0])?;
    let session = with_tree(|tree| tree.session(pid)).ok_or(Errno::ESRCH)?;
    Ok(session.as_u32().into())
}

/// `setsid`.
pub fn setsid(call: &mut Call<'_>) -> Result {
    let pid = call.thread.process().pid();
    Ok(with_tree(|tree| tree.new_session(pid))?.as_u32().into())
}

/// `prlimit64`: process, resource, new limit, old limit.
pub fn prlimit64(call: &mut Call<'_>) -> Result {
    use crate::process::credentials::capability::SYS_RESOURCE;
    use crate::process::limits::{Limit, Resource};
    let [pid, resource, new, old, ..] = *call.args;
    let resource = Resource::from_number(u64::from(resource as u32))?;
    let pid = named(call, pid)?;
    let process = find(pid).ok_or(Errno::ESRCH)?;
    let new = match new {
        0 => None,
        at => {
            let bytes: [u8; 16] = user::read_array(at)?;
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
            Some(Limit {
                soft: word(0),
                hard: word(8),
            })
        }
    };
    let privileged = call.thread.credentials().can(SYS_RESOURCE);
    let before = process.limits().get(resource);
    if let Some(limit) = new {
        process.change_limits(|limits| limits.set(resource, limit, privileged))?;
        if resource == Resource::OpenFiles {
            process.files().set_limit(limit.soft as usize);
        }
    }
    if old != 0 {
        user::write_u64(old, before.soft)?;
        user::write_u64(old + 8, before.hard)?;
    }
    Ok(0)
}

/// `getrlimit`.
pub fn getrlimit(call: &mut Call<'_>) -> Result {
    let [resource, at, ..] = *call.args;
    if at == 0 {
        return Err(Errno::EFAULT.into());
    }
    prlimit64(&mut Call {
        thread: call.thread,
        files: call.files,
        args: &[0, resource, 0, at, 0, 0],
    })
}

/// `setrlimit`.
pub fn setrlimit(call: &mut Call<'_>) -> Result {
    let [resource, at, ..] = *call.args;
    if at == 0 {
        return Err(Errno::EFAULT.into());
    }
    prlimit64(&mut Call {
        thread: call.thread,
        files: call.files,
        args: &[0, resource, at, 0, 0, 0],
    })
}

/// `getrusage`.
pub fn getrusage(call: &mut Call<'_>) -> Result {
    const CHILDREN: i32 = -1;
    const SELF: i32 = 0;
    const THREAD: i32 = 1;
    let process = call.thread.process();
    let times = match call.args[0] as i32 {
        SELF => process.times(),
        CHILDREN => with_tree(|tree| tree.children_times(process.pid())),
        THREAD => Times {
            user: call.thread.ticks() * TICK,
            system: 0,
        },
        _ => return Err(Errno::EINVAL.into()),
    };
    user::write(call.args[1], &rusage(times))?;
    Ok(0)
}

/// `times`: in ticks of a hundredth of a second.
pub fn times(call: &mut Call<'_>) -> Result {
    let process = call.thread.process();
    let own = process.times();
    let children = with_tree(|tree| tree.children_times(process.pid()));
    if call.args[0] != 0 {
        for (at, nanos) in (0..).zip([own.user, own.system, children.user, children.system]) {
            user::write_u64(call.args[0] + 8 * at, nanos / TICK)?;
        }
    }
    let since_start = crate::task::now().as_nanos() as u64;
    Ok(since_start / TICK)
}
