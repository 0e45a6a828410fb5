//! Processes: Linux programs, their threads, and what they share.
//!
//! ```text
//!   Process ── Mm ── Space            one per program image; a vfork child shares its parent's
//!      │
//!      └── Thread ── Task             a thread is a kernel task whose loop (`run`) runs user mode
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `process`, `thread` | the two, and what each owns |
//! | [`table`] | process and thread numbers |
//! | [`mm`] | a program's memory: its space, its heap, where its arguments are |
//! | [`clock`] | the clocks that programs read |
//! | [`exec`] | from an ELF file to a space and first registers |
//! | `run` | a thread's loop: user mode, what ended its turn, signals, user mode |
//!
//! This folder, `file` and `syscall` are Linux's face: they speak error numbers. What they stand on does not.

pub mod clock;
pub mod exec;
pub mod mm;
#[expect(clippy::module_inception, reason = "the process itself")]
mod process;
#[cfg(target_os = "none")]
mod run;
pub mod table;
mod thread;

pub use mm::Mm;
pub use process::{Ending, Process};
pub use table::Pid;
pub use thread::Thread;

#[cfg(target_os = "none")]
pub use run::start;

use alloc::sync::Arc;

/// The thread that the current task runs.
///
/// # Panics
/// It runs none.
pub fn current() -> Arc<Thread> {
    let task = crate::task::current();
    Arc::clone(task.thread().expect("only threads of processes come here"))
}
