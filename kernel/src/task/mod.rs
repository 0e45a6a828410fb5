//! Tasks: what runs, what waits, and who runs next.
//!
//! ```text
//!   spawn ──► runnable ──► running ──► ended ──► (reaper frees the stack, join returns)
//!                ▲            │
//!                └── unpark ──┴── park        parked: one word in the task (park), one reason (wait)
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@park`] | the word behind `park` and `unpark`: a token that cannot be lost or doubled |
//! | [`mod@wait`], [`completion`] | wait queues, one-shot events |
//! | [`sleep_lock`] | a lock whose holder may sleep |
//! | [`mod@sleep`], [`timers`] | timed waits; what is to happen at a time |
//! | [`mod@spawn`], [`mod@exit`] | the beginning and the end of a task, `join`, hooks |
//! | [`signal`] | what cuts waits short: being killed, being interrupted |
//! | [`table`] | all tasks, for diagnosis |
//! | `watch` | looks for faults that nobody resolves |
//! | `sched`, `switch`, `reaper`, `idle` | bare metal: run queue, direct switch, stacks, what to do when nothing runs |
//! | `threads` | host builds: a task is a thread, so that the kernel's code runs under `cargo test` |
//!
//! **Waiting.** Everything that blocks ends in [`park`](park()); a token makes the next `park` return at once, and a token only
//! says "look again": whoever parks does it in a loop around the condition. Nothing blocks while preemption or
//! interrupts are off; doing so panics and names the place.
//!
//! **Direct switch.** [`Task::unpark`] from a task puts the woken task into its CPU's *hand-off slot*; when the waker
//! then parks, the CPU goes straight on with the task in the slot, without the run queue and its lock. A faulting task
//! and its monitor so cost two bare switches. The pair lives on one time slice: when the tick ends it, the task in the
//! slot goes to the run queue like the one that ran.

pub mod completion;
mod current;
pub mod exit;
#[cfg(target_os = "none")]
pub mod idle;
pub mod link;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod park;
#[cfg(target_os = "none")]
mod reaper;
#[cfg(target_os = "none")]
mod sched;
pub mod signal;
pub mod sleep;
pub mod sleep_lock;
pub mod spawn;
#[cfg(target_os = "none")]
mod switch;
pub mod table;
#[expect(clippy::module_inception, reason = "the task itself")]
mod task;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(not(target_os = "none"))]
mod threads;
pub mod timers;
pub mod wait;
#[cfg(target_os = "none")]
pub mod watch;

// What differs between bare metal and threads; `engine` is the same list of functions on both.
#[cfg(target_os = "none")]
use sched as engine;
#[cfg(not(target_os = "none"))]
use threads as engine;

pub use completion::Completion;
pub use current::{Current, current, current_arc, current_name};
pub(crate) use exit::EndHook;
pub use exit::{Ending, Outcome, exit};
pub use link::{FaultAdapter, FutexAdapter, WaitAdapter};
pub use park::{park, park_on};
pub use sleep::{now, sleep, wait_told};
pub use sleep_lock::{SleepGuard, SleepLock};
pub use spawn::{SpawnError, spawn, spawn_thread};
pub use table::{TaskInfo, for_each, look_at_each};
pub use task::{NAME_LEN, State, Switches, Task, TaskId, TaskName};
pub use wait::{WaitQueue, WaitReason};

#[cfg(target_os = "none")]
pub use sched::{CpuSched, Stats, init, on_tick, preempt, stats};

/// Gives way to the next runnable task.
#[track_caller]
pub fn yield_now() {
    engine::yield_now();
}
