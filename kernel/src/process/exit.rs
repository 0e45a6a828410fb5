//! The end of threads and processes, and who is told.
//!
//! ```text
//!   a thread:   words in memory (robust locks, CLEARTID) ── leaves its process
//!   the last:   timers ── files ── memory ── zombie (tree) ── SIGCHLD to the parent, waits of the parent end
//! ```
//!
//! The order of the last one's is Linux's: whoever has waited for a process finds its descriptors closed and its memory gone.

use alloc::sync::Arc;

use super::signal::send_to_process;
use super::tree::{News, Times};
use super::{Ending, Process, Thread, futex, robust, with_tree};
use crate::abi::signal::{
    CLD_CONTINUED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, SA_NOCLDSTOP, SA_NOCLDWAIT, SIG_IGN, SIGCHLD,
    SIGCONT, SigInfo,
};
use crate::file::Table;
use crate::mm::uaccess::{self, on_behalf};

/// Ends `thread`, the current one: it does not come back to user mode.
pub(super) fn finish(thread: &Arc<Thread>) {
    leave_memory(thread);
    thread.set_task(None);
    let process = Arc::clone(thread.process());
    thread.note_end();
    if process.remove_thread(thread) {
        finish_process(&process, thread);
    }
    process.note_change();
}

/// What a thread has in memory that others look at is put right, as far as that takes no monitor if the thread ends. Afterwards it
/// does not touch that memory any more.
pub(super) fn leave_memory(thread: &Arc<Thread>) {
    robust::release_all(thread);
    let word = thread.take_clear_at_end();
    if let Some(word) = word {
        let process = thread.process();
        if process.thread_count() > 1 || process.mm().is_shared() {
            // A word that cannot be written is the program's own business.
            if on_behalf(|| uaccess::write(word, &0u32.to_le_bytes())).is_ok() {
                futex::wake_in(process.mm().space(), word, 1);
            }
        }
    }
    if let Some(waiter) = thread.vfork.lock().take() {
        waiter.complete();
    }
}

/// The last thread has ended.
fn finish_process(process: &Arc<Process>, last: &Thread) {
    let ending = process.settle_ending();
    process.timers.stop_all();
    process.set_files(Table::new());
    process.leave_mm();
    process.signal_readers.notify(crate::file::Readiness::IN);
    let times = process.times();
    let uid = last.credentials().user.real;
    process.note_uid(uid);
    let children = with_tree(|tree| tree.children(process.pid()).to_vec());
    let ended = with_tree(|tree| tree.end(process.pid(), ending, times, does_not_wait));
    for child in children {
        let child = with_tree(|tree| tree.get(child).cloned());
        if let Some(child) = child {
            tell_of_parents_end(&child);
        }
    }
    if let Some((parent, signal)) = &ended.tell {
        if *signal != 0 {
            let info = SigInfo {
                signal: *signal,
                ..about_end(process, ending, times, uid)
            };
            // A parent with a full queue finds the child all the same.
            let _ = send_to_process(parent, info);
        }
        parent.children_changed.wake_all();
    }
    if let Some(reaper) = &ended.inherits {
        reaper.children_changed.wake_all();
    }
    process.complete();
    for gone in &ended.gone {
        gone.note_change();
    }
    drop(ended);
}

/// Whether `parent` has said that it will not wait for children.
fn does_not_wait(parent: &Arc<Process>) -> bool {
    let action = parent.signals.actions().get(SIGCHLD);
    action.handler == SIG_IGN || action.flags & SA_NOCLDWAIT != 0
}

fn about_end(process: &Process, ending: Ending, times: Times, uid: u32) -> SigInfo {
    let (code, status) = match ending {
        Ending::Exited(status) => (CLD_EXITED, status),
        Ending::Signalled(signal) => (CLD_KILLED, signal),
    };
    let clock = |nanos: u64| nanos / super::thread::TICK;
    SigInfo::child(
        code,
        process.pid().as_u32(),
        uid,
        status.into(),
        clock(times.user),
        clock(times.system),
    )
}

/// `PR_SET_PDEATHSIG`.
fn tell_of_parents_end(child: &Arc<Process>) {
    for thread in child.threads() {
        let signal = thread
            .parent_death_signal
            .load(core::sync::atomic::Ordering::Relaxed);
        if signal != 0 {
            let info = SigInfo::sent(signal as u8, crate::abi::signal::SI_USER, 0, 0);
            let _ = super::signal::send_to_thread(&thread, info);
        }
    }
}

/// Tells the parent that a child was stopped or goes on.
pub(super) fn tell_parent(process: &Arc<Process>, news: News) {
    let Some(parent) = with_tree(|tree| tree.tell(process.pid(), news)) else {
        return;
    };
    let (code, status) = match news {
        News::Stopped(signal) => (CLD_STOPPED, signal),
        News::Continued => (CLD_CONTINUED, SIGCONT),
    };
    if parent.signals.actions().get(SIGCHLD).flags & SA_NOCLDSTOP == 0 {
        let uid = process.credentials().user.real;
        let info = SigInfo::child(code, process.pid().as_u32(), uid, status.into(), 0, 0);
        let _ = send_to_process(&parent, info);
    }
    parent.children_changed.wake_all();
}
