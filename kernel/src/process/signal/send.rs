//! Sending signals.

use alloc::sync::Arc;

use super::action::{Action, DefaultAction, STOPPING, default_of};
use super::pending::Pending;
use super::{QueueFull, SignalSet};
use crate::abi::errno::Errno;
use crate::abi::signal::{SIG_DFL, SIGCONT, SIGKILL, SIGSTOP, SigInfo};
use crate::file::Readiness;
use crate::process::limits::Resource;
use crate::process::table::Pid;
use crate::process::{Credentials, Ending, Process, Thread, with_tree};

impl From<QueueFull> for Errno {
    fn from(_: QueueFull) -> Self {
        Self::EAGAIN
    }
}

/// Whether somebody with these credentials may send `signal` to `to`.
pub fn may_signal(from: &Credentials, from_process: &Process, to: &Process, signal: u8) -> bool {
    let to_credentials = to.credentials();
    from.may_kill()
        || from.is_one_of(&to_credentials)
        || (signal == SIGCONT && with_tree(|tree| tree.session(from_process.pid()) == tree.session(to.pid())))
}

/// Sends a signal to a process: to any of its threads.
///
/// # Errors
/// EAGAIN: too many real-time signals wait already.
pub fn send_to_process(process: &Arc<Process>, info: SigInfo) -> Result<(), Errno> {
    let leader = process.threads().into_iter().next();
    let Some(leader) = leader else { return Ok(()) };
    if !prepare(process, &leader, info.signal) {
        return Ok(());
    }
    process.signals.pending.push(info, queue_limit(process))?;
    process.set_notices();
    let taker = process
        .threads()
        .into_iter()
        .find(|thread| !thread.signals.blocked().contains(info.signal));
    if let Some(thread) = taker {
        arrived(&thread, info.signal);
    }
    process.signal_readers.notify(Readiness::IN);
    Ok(())
}

/// Sends a signal to one thread.
///
/// # Errors
/// EAGAIN: too many real-time signals wait already.
pub fn send_to_thread(thread: &Arc<Thread>, info: SigInfo) -> Result<(), Errno> {
    let process = thread.process();
    if !prepare(process, thread, info.signal) {
        return Ok(());
    }
    thread.signals.pending.push(info, queue_limit(process))?;
    thread.signals.set_notice();
    if !thread.signals.blocked().contains(info.signal) {
        arrived(thread, info.signal);
    }
    process.signal_readers.notify(Readiness::IN);
    Ok(())
}

/// Sends a signal to every process of a group that `may` allows; says how many there were, and to how many it went.
pub fn send_to_group(group: Pid, info: SigInfo, may: impl Fn(&Process) -> bool) -> (usize, usize) {
    let members: alloc::vec::Vec<_> = with_tree(|tree| tree.group_members(group).cloned().collect());
    let mut sent = 0;
    for process in &members {
        if may(process) {
            sent += 1;
            // A full queue is the receiver's.
            let _ = (info.signal != 0).then(|| send_to_process(process, info));
        }
    }
    (members.len(), sent)
}

/// A signal for what the thread itself has done: it cannot be put off. One that is blocked or ignored ends the process.
pub fn force(thread: &Arc<Thread>, info: SigInfo) {
    let (process, signal) = (thread.process(), info.signal);
    let blocked = thread.signals.blocked();
    if blocked.contains(signal) || process.signals.action(signal).ignores(signal) {
        process.signals.actions().set(signal, Action::default());
        thread.block(blocked.without(signal));
    }
    // Below the real-time signals there is always room.
    let _ = thread.signals.pending.push(info, usize::MAX);
    thread.signals.set_notice();
}

/// Says what a process does about a signal; what it did before. Pending ones that are ignored now are forgotten.
pub fn set_action(process: &Process, signal: u8, action: Action) -> Action {
    let before = process.signals.actions().set(signal, action);
    if action.ignores(signal) {
        let set = SignalSet::of(&[signal]);
        for_each_queue(process, |pending| pending.discard(set));
    }
    before
}

/// What sending does by itself; false when nothing is left to deliver.
fn prepare(process: &Arc<Process>, to: &Thread, signal: u8) -> bool {
    if signal == 0 || process.is_ending() {
        return false;
    }
    if signal == SIGKILL {
        process.begin_exit(Ending::Signalled(SIGKILL));
        return false;
    }
    if STOPPING.contains(signal) {
        for_each_queue(process, |pending| pending.discard(SignalSet::of(&[SIGCONT])));
    } else if signal == SIGCONT {
        for_each_queue(process, |pending| pending.discard(STOPPING));
        process.go_on();
    }
    let is_blocked = to.signals.blocked().contains(signal);
    is_blocked || signal == SIGSTOP || !process.signals.action(signal).ignores(signal)
}

/// A signal is pending that `thread` does not block.
fn arrived(thread: &Arc<Thread>, signal: u8) {
    let process = thread.process();
    let ends = process.signals.action(signal).handler == SIG_DFL
        && default_of(signal) == DefaultAction::Terminate
        && !thread.waits_for_signals();
    if ends {
        // Nothing else can become of it, so nobody has to wait until the thread looks: it may wait for a page.
        process.begin_exit(Ending::Signalled(signal));
    } else {
        thread.interrupt();
    }
}

fn queue_limit(process: &Process) -> usize {
    usize::try_from(process.limits().get(Resource::PendingSignals).soft).unwrap_or(usize::MAX)
}

fn for_each_queue(process: &Process, f: impl Fn(&Pending)) {
    f(&process.signals.pending);
    for thread in process.threads() {
        f(&thread.signals.pending);
    }
}
