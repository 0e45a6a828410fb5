//! When there is no memory: the process that has most of it is ended, so that the others can go on.
//!
//! One at a time: while a process that is to end has not given back what it has, whoever finds no memory waits for that.

use alloc::sync::Arc;

use super::{Ending, Process, Thread, all, with_tree};
use crate::abi::signal::SIGKILL;
use crate::task;

/// The current task has touched a page that there is no memory for, or the kernel has on its behalf. True when there may be memory
/// now; false when the task runs no thread, or one that is to end, which goes no further.
pub(super) fn make_room() -> bool {
    let task = task::current();
    let Some(thread) = task.thread().filter(|thread| !thread.must_end()) else {
        return false;
    };
    out_of_memory(thread);
    true
}

/// Ends the largest process, unless one is on its way out, and lets it.
fn out_of_memory(thread: &Thread) {
    let processes = all();
    if !processes.iter().any(is_on_its_way_out)
        && let Some(largest) = processes.iter().max_by_key(|process| size(process))
    {
        let threads = largest.threads();
        let name = threads
            .first()
            .map(|thread| thread.name_bytes())
            .unwrap_or_default();
        let name = name.escape_ascii();
        log::error!("linux: out of memory: ended process {} ({name})", largest.pid());
        largest.begin_exit(Ending::Signalled(SIGKILL));
    }
    drop(processes);
    if !thread.must_end() {
        task::yield_now();
    }
}

/// Whether a process is ending, and has not ended.
fn is_on_its_way_out(process: &Arc<Process>) -> bool {
    process.is_ending() && !with_tree(|tree| tree.is_zombie(process.pid()))
}

/// Pages that its end gives back, about.
fn size(process: &Arc<Process>) -> u64 {
    process.mm().space().mapped_pages()
}
