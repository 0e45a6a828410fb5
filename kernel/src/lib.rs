//! Faultline's kernel, as a library.
//!
//! One subject: **delegated page faults**. A task touches memory that is missing; it stops; a monitor task is
//! told over a userfault channel; the monitor fills the page; the task goes on.
//!
//! ```text
//!            boot (the bare-metal image, applications)
//!              │
//!   process ── syscall                 Linux programs: the only rooms that speak error numbers
//!     └──────┬──────┘
//!   task ── uffd ── mm ── drivers      trace (log, records for the host side)
//!     └──────┴──────┴───────┘
//!              │
//!            sync, cpu
//!              │
//!            arch  (x86_64 on bare metal; host: a software machine for tests)
//! ```
//!
//! The library builds for `x86_64-unknown-none` and for the host. On the host `arch::host` stands in for the
//! hardware: an arena for physical memory, a walker as MMU and a TLB that keeps stale entries, so that the memory
//! manager and the channel are tested by plain `cargo test`.
//!
//! Lock order, outermost first (see each module's header for what the locks protect):
//! `Space::vmas` → `Space::table` → a guest's stage-2 tables → an object's cache → `uffd::Ctx` queue → task wait queues
//! → run queue → heap → frame allocator.
#![no_std]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod abi;
pub mod arch;
pub mod bootinfo;
pub mod cpu;
pub mod drivers;
pub mod file;
pub mod guest;
pub mod lab;
pub mod mm;
pub mod process;
pub mod sync;
pub mod syscall;
pub mod task;
pub mod trace;
pub mod uffd;
