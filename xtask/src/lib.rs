//! The library half of xtask: everything between "a person typed a command" and "an emulator ran and was judged".
//!
//! ```text
//!   cmd/        one file per command, typed by clap
//!    │
//!   app ─── snapshot, cpio      what the kernel is asked to do: command line, ramdisk, disk
//!    │
//!   elf, image ── setup/        the kernel ELF, disk images, and the tools they need
//!    │
//!   machine/    one file per emulator: how it is started, where its output comes out
//!    │
//!   session     starts it, follows its output, enforces limits, kills it
//!    │
//!   protocol ── verdict ── report, symbolize
//!    │
//!   program/    Linux programs: what is packed, their streams, how they ended
//!   selftests/  Linux's own tests, here and on Faultline
//! ```
//!
//! The tests in `tests/` use this library to boot the same image that the commands boot.

extern crate alloc;

// The very file that the kernel compiles, so the two sides cannot drift apart. Taking the file and not the crate lets
// xtask build, and name the build's failure, when the kernel does not compile.
#[path = "../../kernel/src/trace/record.rs"]
pub mod record;
// Likewise: one stream of random numbers for all.
#[path = "../../kernel/src/lab/rng.rs"]
pub mod rng;

pub mod app;
pub mod cmd;
pub mod cpio;
pub mod diff;
pub mod elf;
pub mod fetch;
pub mod image;
pub mod interrupt;
pub mod job;
pub mod machine;
pub mod order;
pub mod paths;
pub mod process;
pub mod program;
pub mod protocol;
pub mod report;
pub mod rungs;
pub mod selftests;
pub mod session;
pub mod setup;
pub mod size;
pub mod snapshot;
pub mod status;
pub mod symbolize;
pub mod ui;
pub mod verdict;
