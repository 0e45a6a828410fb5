//! Signals.

use alloc::sync::Arc;

use super::{Call, Result, UserMode, user};
use crate::abi::errno::Errno;
use crate::abi::signal::{
    SI_TKILL, SI_USER, SIGACTION_SIZE, SIGINFO_SIZE, SIGKILL, SIGNALS, SIGSEGV, SIGSTOP, STACK_SIZE, SigInfo,
};
use crate::process::clock::TimeSpec;
use crate::process::signal::{
    Action, AltStack, SignalSet, force, frame, may_signal, send_to_process, send_to_thread, set_action, wait,
};
use crate::process::{Pid, Process, Thread, find, table, with_tree};

/// Bytes of a set of signals, which calls are told.
const SET_SIZE: u64 = 8;

fn check_size(size: u64) -> core::result::Result<(), Errno> {
    if size == SET_SIZE {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn read_set(at: u64) -> core::result::Result<SignalSet, super::Error> {
    Ok(SignalSet::from_bits(user::read_u64(at)?))
}

/// A signal's number; 0 is none.
pub(super) fn signal_or_none(number: u64) -> core::result::Result<u8, Errno> {
    let number = number as u32;
    u8::try_from(number)
        .ok()
        .filter(|number| *number <= SIGNALS)
        .ok_or(Errno::EINVAL)
}

fn signal(number: u64) -> core::result::Result<u8, Errno> {
    signal_or_none(number).and_then(|signal| {
        if signal == 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(signal)
        }
    })
}

/// `rt_sigaction`: signal, new action, old action, size of sets.
pub fn rt_sigaction(call: &mut Call<'_>) -> Result {
    let [number, new, old, size, ..] = *call.args;
    check_size(size)?;
    let action = match new {
        0 => None,
        at => Some(Action::from_bytes(&user::read_array::<SIGACTION_SIZE>(at)?)),
    };
    let signal = signal(number)?;
    let process = call.thread.process();
    let before = match action {
        Some(_) if signal == SIGKILL || signal == SIGSTOP => return Err(Errno::EINVAL.into()),
        Some(action) => set_action(process, signal, action),
        None => process.signals.actions().get(signal),
    };
    if old != 0 {
        user::write(old, &before.to_bytes())?;
    }
    Ok(0)
}

/// `rt_sigprocmask`: how, set, old set, size of sets.
pub fn rt_sigprocmask(call: &mut Call<'_>) -> Result {
    const BLOCK: u32 = 0;
    const UNBLOCK: u32 = 1;
    const SET: u32 = 2;
    let [how, set, old, size, ..] = *call.args;
    check_size(size)?;
    let signals = &call.thread.signals;
    let before = signals.blocked();
    if set != 0 {
        let set = read_set(set)?;
        let after = match how as u32 {
            BLOCK => before | set,
            UNBLOCK => before - set,
            SET => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        call.thread.block(after);
    }
    if old != 0 {
        user::write_u64(old, before.bits())?;
    }
    Ok(0)
}

/// `rt_sigpending`.
pub fn rt_sigpending(call: &mut Call<'_>) -> Result {
    let [at, size, ..] = *call.args;
    if size > SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let (thread, process) = (call.thread, call.thread.process());
    let pending = thread.signals.pending.set() | process.signals.pending.set();
    let bits = (pending & thread.signals.blocked()).bits().to_le_bytes();
    user::write(at, &bits[..size as usize])?;
    Ok(0)
}

/// `rt_sigsuspend`.
pub fn rt_sigsuspend(call: &mut Call<'_>) -> Result {
    let [set, size, ..] = *call.args;
    check_size(size)?;
    let set = read_set(set)?;
    call.thread.block_for_wait(set);
    Err(wait::suspend(call.thread))
}

/// `pause`.
pub fn pause(call: &mut Call<'_>) -> Result {
    Err(wait::suspend(call.thread))
}

/// `rt_sigtimedwait`: set, siginfo, timeout, size of sets.
pub fn rt_sigtimedwait(call: &mut Call<'_>) -> Result {
    let [set, info_at, timeout, size, ..] = *call.args;
    check_size(size)?;
    let set = read_set(set)?;
    let timeout = match timeout {
        0 => None,
        at => Some(TimeSpec::from_bytes(&user::read_array(at)?).duration()?),
    };
    let info = wait::wait_for(call.thread, set, timeout)?;
    if info_at != 0 {
        user::write(info_at, &info.to_bytes())?;
    }
    Ok(info.signal.into())
}

/// `sigaltstack`.
pub fn sigaltstack(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let [new, old, ..] = *call.args;
    let pointer = user_mode.registers.rsp;
    let new = match new {
        0 => None,
        at => Some(AltStack::from_bytes(&user::read_array::<STACK_SIZE>(at)?)),
    };
    let mut stack = call.thread.signals.altstack.lock();
    let before = stack.seen_from(pointer);
    if let Some(new) = new {
        *stack = stack.replaced_by(new, pointer)?;
    }
    drop(stack);
    if old != 0 {
        user::write(old, &before.to_bytes())?;
    }
    Ok(0)
}

/// `rt_sigreturn`.
pub fn rt_sigreturn(call: &mut Call<'_>, user_mode: &mut UserMode<'_>) -> Result {
    let (thread, registers) = (call.thread, &mut *user_mode.registers);
    if frame::pop(thread, registers, user_mode.extra).is_err() {
        force(thread, SigInfo::kernel(SIGSEGV));
    }
    // The value of the call is whatever RAX was.
    Ok(registers.rax)
}

/// A signal from the caller.
pub(super) fn from_caller(call: &Call<'_>, signal: u8, code: i32) -> SigInfo {
    let uid = call.thread.credentials().user.real;
    SigInfo::sent(signal, code, call.thread.process().pid().as_u32(), uid)
}

pub(super) fn check_permission(call: &Call<'_>, to: &Process, signal: u8) -> core::result::Result<(), Errno> {
    let from = call.thread.process();
    let is_own = from.pid() == to.pid();
    if is_own || may_signal(&call.thread.credentials(), from, to, signal) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// `kill`.
pub fn kill(call: &mut Call<'_>) -> Result {
    let pid = call.args[0] as i32;
    let own = call.thread.process().pid();
    if pid > 0 {
        let number = Pid::new(pid as u32);
        // A thread's number stands for its process.
        let process = find(number).or_else(|| Some(Arc::clone(table::thread(number)?.process())));
        let is_init = number == Pid::INIT;
        let signal = signal_or_none(call.args[1])?;
        if is_init && process.is_none() {
            return Ok(0);
        }
        let process = process.ok_or(Errno::ESRCH)?;
        check_permission(call, &process, signal)?;
        if signal != 0 {
            send_to_process(&process, from_caller(call, signal, SI_USER))?;
        }
        return Ok(0);
    }
    let targets: alloc::vec::Vec<Arc<Process>> = with_tree(|tree| match pid {
        -1 => tree
            .all()
            .filter(|(number, _)| *number != own)
            .map(|(_, process)| Arc::clone(process))
            .collect(),
        i32::MIN => alloc::vec::Vec::new(),
        group => {
            let group = match group {
                0 => tree.group(own).unwrap_or(own),
                group => Pid::new(group.unsigned_abs()),
            };
            tree.group_members(group).cloned().collect()
        }
    });
    let signal = signal_or_none(call.args[1])?;
    let mut answer = Err(Errno::ESRCH);
    for process in &targets {
        match check_permission(call, process, signal) {
            Ok(()) => {
                answer = Ok(0);
                if signal != 0 {
                    // A full queue is the receiver's.
                    let _ = send_to_process(process, from_caller(call, signal, SI_USER));
                }
            }
            Err(error) if answer.is_err() => answer = Err(error),
            Err(_) => {}
        }
    }
    Ok(answer?)
}

fn thread_of(tid: u64) -> core::result::Result<Arc<Thread>, Errno> {
    match tid as i32 {
        ..=0 => Err(Errno::EINVAL),
        tid => table::thread(Pid::new(tid as u32)).ok_or(Errno::ESRCH),
    }
}

fn send_one(call: &Call<'_>, group: Option<u64>, tid: u64, number: u64, info: Option<SigInfo>) -> Result {
    if group.is_some_and(|group| group as i32 <= 0) || tid as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let thread = thread_of(tid)?;
    if group.is_some_and(|group| thread.process().pid().as_u32() != group as u32) {
        return Err(Errno::ESRCH.into());
    }
    let signal = signal_or_none(number)?;
    check_permission(call, thread.process(), signal)?;
    if signal != 0 {
        let info = info.unwrap_or_else(|| from_caller(call, signal, SI_TKILL));
        send_to_thread(&thread, info)?;
    }
    Ok(0)
}

/// `tkill`.
pub fn tkill(call: &mut Call<'_>) -> Result {
    send_one(call, None, call.args[0], call.args[1], None)
}

/// `tgkill`.
pub fn tgkill(call: &mut Call<'_>) -> Result {
    let [group, tid, number, ..] = *call.args;
    send_one(call, Some(group), tid, number, None)
}

/// The siginfo at `at`, which somebody may send to process `pid`.
fn read_info(call: &Call<'_>, number: u64, at: u64, pid: u64) -> core::result::Result<SigInfo, super::Error> {
    let bytes: [u8; SIGINFO_SIZE] = user::read_array(at)?;
    let info = SigInfo::from_bytes(number as u8, &bytes).ok_or(Errno::E2BIG)?;
    let claims_kernel = info.code >= 0 || info.code == SI_TKILL;
    if claims_kernel && pid as u32 != call.thread.process().pid().as_u32() {
        return Err(Errno::EPERM.into());
    }
    Ok(info)
}

/// `rt_sigqueueinfo`: process, signal, siginfo.
pub fn rt_sigqueueinfo(call: &mut Call<'_>) -> Result {
    let [pid, number, at, ..] = *call.args;
    let info = read_info(call, number, at, pid)?;
    let signal = signal_or_none(number)?;
    let process = find(Pid::new(pid as u32)).ok_or(Errno::ESRCH)?;
    check_permission(call, &process, signal)?;
    if signal != 0 {
        send_to_process(&process, info)?;
    }
    Ok(0)
}

/// `rt_tgsigqueueinfo`: process, thread, signal, siginfo.
pub fn rt_tgsigqueueinfo(call: &mut Call<'_>) -> Result {
    let [group, tid, number, at, ..] = *call.args;
    if group as i32 <= 0 || tid as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let info = read_info(call, number, at, group)?;
    send_one(call, Some(group), tid, number, Some(info))
}
