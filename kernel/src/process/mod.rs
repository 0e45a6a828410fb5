//! Processes: Linux programs, their threads, and what they share.
//!
//! ```text
//!   Process ── Mm ── Space            one per program image; a vfork child shares its parent's
//!      │  ├── files, place, limits, actions
//!      └── Thread ── Task             a thread is a kernel task whose loop (`run`) runs user mode
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `process`, `thread` | the two, and what each owns |
//! | [`table`], [`tree`] | numbers; parents, groups, and who waits to be waited for |
//! | [`mm`] | a program's memory: its space, its heap, where its arguments are |
//! | [`clock`] | the clocks that programs read |
//! | [`exec`] | from an ELF file to a space and first registers |
//! | [`clone`], `exit`, [`wait`] | beginnings, ends, and waiting for them |
//! | `run` | a thread's loop: user mode, what ended its turn, signals, user mode |
//! | [`signal`] | signals |
//! | [`futex`], `robust`, `rseq` | waiting for words in memory; locks whose owner ends; restartable sequences |
//! | [`timer`] | timers of programs |
//! | `oom` | who is ended when there is no memory |
//! | [`credentials`], [`limits`] | what a thread may do, and how much a process may have |
//!
//! **Locks**, in this order: the tree, a process's threads, then everything else of processes and threads, which are taken one
//! at a time. A signal is sent with none held. Nothing here is locked while memory of a program is touched.
//!
//! **Ends.** A process that is to end is marked, and each of its tasks is killed (`Process::begin_exit`): waits end, and its
//! threads end by themselves on their way to user mode, where they give back what they have.
//!
//! This folder, `file` and `syscall` are Linux's face: they speak error numbers. What they stand on does not.

pub mod clock;
pub mod clone;
pub mod credentials;
pub mod exec;
mod exit;
pub mod futex;
pub mod handle;
pub mod insight;
pub mod limits;
pub mod mm;
mod oom;
#[expect(clippy::module_inception, reason = "the process itself")]
mod process;
mod robust;
mod rseq;
mod run;
pub mod signal;
pub mod table;
mod thread;
pub mod timer;
pub mod tree;
pub mod wait;

pub use credentials::Credentials;
pub use mm::Mm;
pub use process::{Ending, Process};
pub use run::start;
pub use table::Pid;
pub use thread::{RestartBlock, Rseq, Scheduling, TICK, Thread};

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::sync::SpinLock;
use tree::Tree;

/// All processes that have not been waited for.
static TREE: SpinLock<Tree<Arc<Process>>> = SpinLock::new(Tree::new());

/// Looks at the tree of processes, or changes it.
pub fn with_tree<R>(f: impl FnOnce(&mut Tree<Arc<Process>>) -> R) -> R {
    f(&mut TREE.lock())
}

/// The process with this number, also one that has ended.
pub fn find(pid: Pid) -> Option<Arc<Process>> {
    with_tree(|tree| tree.get(pid).cloned())
}

/// How many threads there are.
pub fn living_threads() -> usize {
    thread::living()
}

/// All processes that have not been waited for, by number.
pub fn all() -> Vec<Arc<Process>> {
    with_tree(|tree| tree.all().map(|(_, process)| Arc::clone(process)).collect())
}

/// The thread that the current task runs.
///
/// # Panics
/// It runs none.
pub fn current() -> Arc<Thread> {
    let task = crate::task::current();
    Arc::clone(task.thread().expect("only threads of processes come here"))
}
