//! What a thread does about its signals on its way back to user mode, and what becomes of a call that one cut short.

use alloc::sync::Arc;

use super::action::{Action, DefaultAction, default_of};
use super::frame::{self, Frame};
use super::{force, wait};
use crate::abi::signal::{
    SA_NODEFER, SA_RESETHAND, SA_RESTART, SI_USER, SIG_DFL, SIG_IGN, SIGSEGV, SigInfo, name,
};
use crate::arch::Extra;
use crate::arch::user::Registers;
use crate::process::{Ending, Thread, rseq};
use crate::syscall::Restart;

/// Bytes of the SYSCALL instruction.
const SYSCALL_LEN: u64 = 2;
/// The number of `restart_syscall`.
const RESTART_SYSCALL: u64 = 219;

/// A system call that a signal cut short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted {
    /// Its number.
    pub number: u64,
    /// What becomes of it.
    pub restart: Restart,
}

/// Whether a thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// In user mode.
    UserMode,
    /// Not at all.
    End,
}

/// Does what `thread`, the current one, has to do before it goes back to user mode.
#[inline]
pub fn settle(
    thread: &Arc<Thread>,
    registers: &mut Registers,
    extra: &mut Extra,
    interrupted: Option<Interrupted>,
) -> Next {
    if interrupted.is_none() && !thread.signals.has_notice() {
        return Next::UserMode;
    }
    work(thread, registers, extra, interrupted)
}

#[cold]
#[inline(never)]
fn work(
    thread: &Arc<Thread>,
    registers: &mut Registers,
    extra: &mut Extra,
    mut interrupted: Option<Interrupted>,
) -> Next {
    let process = thread.process();
    loop {
        thread.signals.clear_notice();
        thread.answer_interrupt();
        if thread.must_end() {
            return Next::End;
        }
        if process.is_stopped() {
            process.stay_stopped(thread);
            continue;
        }
        if !thread.signals.is_pending(&process.signals.pending) {
            break;
        }
        let Some(info) = wait::take(thread, !thread.signals.blocked()) else {
            break;
        };
        let action = process.signals.action(info.signal);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => match default_of(info.signal) {
                DefaultAction::Ignore => {}
                DefaultAction::Stop => process.stop(info.signal),
                DefaultAction::Terminate | DefaultAction::Core => {
                    report(thread, &info, registers);
                    process.begin_exit(Ending::Signalled(info.signal));
                }
            },
            _ => {
                if let Some(call) = interrupted.take() {
                    again_after_handler(call, &action, registers);
                }
                handle(thread, &info, &action, registers, extra);
                if !thread.signals.has_notice() {
                    break;
                }
            }
        }
    }
    if let Some(call) = interrupted {
        begin_again(call, registers);
    }
    thread.unblock_after_wait();
    Next::UserMode
}

/// A signal for what `thread`, the current one, has just done in user mode, as [`force`]. With a handler, and nothing else to look
/// for, it is not queued to be taken out again: it would come first.
pub fn deliver(thread: &Arc<Thread>, info: SigInfo, registers: &mut Registers, extra: &mut Extra) {
    let action = thread.process().signals.action(info.signal);
    let is_handled = !matches!(action.handler, SIG_DFL | SIG_IGN);
    if is_handled && !thread.signals.blocked().contains(info.signal) && !thread.signals.has_notice() {
        handle(thread, &info, &action, registers, extra);
    } else {
        force(thread, info);
    }
}

/// Has the handler run next.
fn handle(
    thread: &Arc<Thread>,
    info: &SigInfo,
    action: &Action,
    registers: &mut Registers,
    extra: &mut Extra,
) {
    let (process, signals) = (thread.process(), &thread.signals);
    rseq::interrupted(thread, registers);
    if action.flags & SA_RESETHAND != 0 {
        process.signals.actions().set(
            info.signal,
            Action {
                handler: SIG_DFL,
                ..*action
            },
        );
    }
    let blocked = signals.blocked();
    let frame = Frame {
        info,
        action,
        mask: signals.take_saved().unwrap_or(blocked),
        altstack: *signals.altstack.lock(),
        trap: thread.last_trap(),
    };
    if frame::push(&frame, thread, registers, extra).is_err() {
        // As Linux: a handler that cannot be called for want of a stack is not asked about that.
        if info.signal == SIGSEGV {
            process.signals.actions().set(SIGSEGV, Action::default());
        }
        force(thread, SigInfo::kernel(SIGSEGV));
        return;
    }
    let more = match action.flags & SA_NODEFER {
        0 => action.mask.with(info.signal),
        _ => action.mask,
    };
    thread.block(blocked | more);
}

/// A handler runs before the call ends.
fn again_after_handler(call: Interrupted, action: &Action, registers: &mut Registers) {
    let again = match call.restart {
        Restart::Always => true,
        Restart::IfAsked => action.flags & SA_RESTART != 0,
        Restart::UnlessHandled | Restart::Block => false,
    };
    if again {
        registers.rax = call.number;
        registers.rip -= SYSCALL_LEN;
    }
}

/// No handler runs: the call goes on.
fn begin_again(call: Interrupted, registers: &mut Registers) {
    registers.rax = match call.restart {
        Restart::Block => RESTART_SYSCALL,
        _ => call.number,
    };
    registers.rip -= SYSCALL_LEN;
}

/// Says on the console what ends the process.
fn report(thread: &Thread, info: &SigInfo, registers: &Registers) {
    let process = thread.process();
    let (pid, bytes, signal) = (process.pid(), thread.name_bytes(), name(info.signal));
    let program = bytes.escape_ascii();
    if info.is_from_kernel() && default_of(info.signal) == DefaultAction::Core {
        log::warn!(
            "linux: process {pid} ({program}) is ended by {signal}, code {}, address {:#x}; rip {:#x}, rsp {:#x}",
            info.code,
            info.words[0],
            registers.rip,
            registers.rsp
        );
    } else if info.code <= SI_USER {
        log::info!(
            "linux: process {pid} ({program}) is ended by {signal} of process {}",
            info.words[0] as u32
        );
    } else {
        log::info!("linux: process {pid} ({program}) is ended by {signal}");
    }
}
