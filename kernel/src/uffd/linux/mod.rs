//! Linux's side of the channel: what its system calls answer for each outcome of the typed interface, and how they lay
//! things out in memory. Pure functions, and the only place with error numbers.
//!
//! | file | what |
//! | --- | --- |
//! | `open` | who may open a context, and with which flags |
//! | `api` | the handshake |
//! | `register` | registering, and the ioctls that it names |
//! | `ops` | fills, WRITEPROTECT, WAKE: error numbers and the signed output field |
//! | [`message`] | the 32 bytes that read gives |
//! | `read` | what read and poll say when there is none |
//! | `fdinfo` | the lines of `/proc/pid/fdinfo` |
//! | `access` | what an access that fails becomes: a signal, or the error of a system call |
//!
//! Checked against Linux 6.18.

mod access;
mod api;
mod fdinfo;
pub mod message;
mod open;
mod ops;
mod read;
mod register;

pub use access::{OnBehalf, Signal, on_behalf, scan, signal};
pub use api::{ApiAnswer, api};
pub use fdinfo::FdInfo;
pub use open::{OpenFlags, Opener, Way, open};
pub use ops::{
    Answer, WriteProtectMode, cont, fill, refusal, unreadable, unwritable, wake, write_protect,
    write_protect_mode,
};
pub use read::{Poll, poll, read};
pub use register::{register, register_ioctls, unregister};
