//! What the programs of `guest-tests` are written in.
//!
//! ```text
//!   programs      one file each: what is tried, and what Linux 6.18 answers
//!      │
//!   transcript    the lines that are compared
//!   uffd  attempt  region  touch  job  child  locker  signal  proc     what they are made of
//!      │
//!   sys  errno    system calls as the kernel answers them: a value or an errno
//! ```
//!
//! A transcript holds nothing that differs between two runs on one kernel: no addresses (regions have names, and places
//! are told relative to them), no process identifiers, no times.

pub mod attempt;
pub mod child;
pub mod errno;
pub mod job;
pub mod locker;
pub mod proc;
pub mod region;
pub mod signal;
pub mod sys;
pub mod touch;
pub mod transcript;
pub mod uffd;
