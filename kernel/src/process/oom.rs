//! When there is no memory: the process that has most of it is ended, so that the others can go on.
//!
//! One at a time: while a process that is to end has not given back what it has, whoever finds no memory waits for that.

use alloc::sync::Arc;

use super::{Ending, Process, Thread, all, with_tree};
use crate::abi::signal::SIGKILL;
use crate::task;

/// `thread`, the current one, has touched a page that there is no memory for. It is ended, or there may be memory when this
/// returns.
pub(super) fn out_of_memory(thread: &Thread) {
    let processes = all();
    if !processes.iter().any(is_on_its_way_out)
        && let Some(largest) = processes.iter().max_by_key(|process| size(process))
    {
        let threads = largest.threads();
        let name = threads.first().map(|thread| thread.name()).unwrap_or_default();
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
