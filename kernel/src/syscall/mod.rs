//! System calls: from registers to whoever does it, and back.
//!
//! ```text
//!   answer ── table: number → function ── function(Call): arguments decoded, then process, file, mm or uffd
//!     └────── result or error number into RAX; what a signal cut short is begun again, or answers EINTR
//! ```
//!
//! Most calls know their arguments and nothing else of user mode, and are answered during its turn ([`crate::arch::run_user`]).
//! Those that change or copy its registers, or end it, are executed between two turns ([`call`]); they have a table of their own.
//!
//! | file | what |
//! | --- | --- |
//! | [`table`] | every call that there is, a line each |
//! | [`error`] | error numbers, and calls that are to be begun again |
//! | [`user`] | arguments that are addresses |
//! | the others | the calls, by subject |

pub mod error;
mod exec;
pub mod file;
mod futex;
mod identity;
mod info;
mod memory;
mod names;
mod pidfd;
pub mod poll;
mod process;
mod scheduling;
mod signal;
mod socket;
pub mod table;
mod thread;
mod time;
mod timer;
mod uffd;
pub mod user;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

pub use error::{Error, Restart};

use crate::abi::errno::Errno;
use crate::arch::Extra;
use crate::arch::user::{Registers, Request};
use crate::file::Table;
use crate::mm::frame::allocator;
use crate::process::Thread;
use crate::process::signal::deliver::Interrupted;

/// A system call of the current thread.
#[derive(Debug)]
pub struct Call<'a> {
    /// The thread.
    pub thread: &'a Arc<Thread>,
    /// The descriptors of its process.
    pub files: &'a Arc<Table>,
    /// Its arguments, as they are in the registers.
    pub args: &'a [u64; 6],
}

/// All of the calling thread's user mode, for calls that do more to it than answer.
#[derive(Debug)]
pub struct UserMode<'a> {
    /// Its registers.
    pub registers: &'a mut Registers,
    /// What else it has in the CPU.
    pub extra: &'a mut Extra,
    /// What comes afterwards; [`After::Done`] but for calls that say otherwise.
    pub after: After,
}

/// What a call comes to: the value in RAX, or why not.
pub type Result = core::result::Result<u64, Error>;

/// What [`answer`] says to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This in RAX.
    Value(u64),
    /// The call may have to be begun again; if not, [`INTERRUPTED`] in RAX.
    Interrupted(Interrupted),
    /// It is for [`call`].
    NotYet,
}

/// What comes after a call that had all of user mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The thread goes on.
    Done,
    /// The thread ends.
    Ended,
    /// Another task runs the thread from now on.
    Replaced,
}

/// The answer to a call that a signal has cut short and that is not begun again.
pub const INTERRUPTED: u64 = answer_of(Errno::EINTR);

/// Answers a system call that needs nothing of user mode but its arguments.
#[inline]
pub fn answer(thread: &Arc<Thread>, files: &Arc<Table>, request: &Request) -> Answer {
    let Some(entry) = table::find(request.number) else {
        return Answer::NotYet;
    };
    let mut call = Call {
        thread,
        files,
        args: &request.args,
    };
    let result = match entry.leaves_notes {
        false => (entry.call)(&mut call),
        true => with_notes(entry, &mut call),
    };
    match result {
        Ok(value) => Answer::Value(value),
        Err(Error::Errno(errno)) => Answer::Value(answer_of(errno)),
        Err(Error::Restart(restart)) => Answer::Interrupted(Interrupted {
            number: request.number,
            restart,
        }),
    }
}

/// Does a call that leaves notes, if there is memory for them.
#[inline(never)]
fn with_notes(entry: &table::Entry<table::Plain>, call: &mut Call<'_>) -> Result {
    if allocator().is_short() {
        return Err(Errno::ENOMEM.into());
    }
    (entry.call)(call)
}

/// Executes a system call that has all of user mode, or is not there.
pub fn call(thread: &Arc<Thread>, files: &Arc<Table>, registers: &mut Registers, extra: &mut Extra) -> After {
    let request = Request::of(registers);
    let Some(entry) = table::find_with_user_mode(request.number) else {
        registers.rax = answer_of(unknown(request.number));
        return After::Done;
    };
    if entry.leaves_notes && allocator().is_short() {
        registers.rax = answer_of(Errno::ENOMEM);
        return After::Done;
    }
    let mut call = Call {
        thread,
        files,
        args: &request.args,
    };
    let mut user = UserMode {
        registers,
        extra,
        after: After::Done,
    };
    let result = (entry.call)(&mut call, &mut user);
    let after = user.after;
    registers.rax = match result {
        Ok(value) => value,
        Err(Error::Errno(errno)) => answer_of(errno),
        // None of them waits for anything that a signal cuts short.
        Err(Error::Restart(_)) => INTERRUPTED,
    };
    after
}

/// An error number as RAX has it.
const fn answer_of(errno: Errno) -> u64 {
    errno.number().wrapping_neg() as u64
}

/// Numbers that were said to be missing: bit n of word m is number 64 m + n. The last word is for all that are larger.
static SAID: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];

/// The answer to a call that is not there. The console says so once.
#[cold]
fn unknown(number: u64) -> Errno {
    let bit = number.min(SAID.len() as u64 * 64 - 1);
    let mask = 1 << (bit % 64);
    if SAID[(bit / 64) as usize].fetch_or(mask, Ordering::Relaxed) & mask == 0 {
        log::warn!(
            "linux: system call {number} ({}) is not there; answered ENOSYS",
            names::of(number)
        );
    }
    Errno::ENOSYS
}
