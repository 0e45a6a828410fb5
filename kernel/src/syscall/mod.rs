//! System calls: from registers to whoever does it, and back.
//!
//! ```text
//!   call ── table: number → name, function ── function(Call): arguments decoded, then process, file, mm or uffd
//!     └──── result or error number into RAX; what a signal cut short is begun again, or answers EINTR
//! ```
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
use crate::arch::user::Registers;
use crate::mm::frame::allocator;
use crate::process::Thread;
use crate::process::signal::deliver::Interrupted;

/// A system call of the current thread.
#[derive(Debug)]
pub struct Call<'a> {
    /// The thread.
    pub thread: &'a Arc<Thread>,
    /// Its arguments, as they are in the registers.
    pub args: [u64; 6],
    /// Its registers.
    pub registers: &'a mut Registers,
    /// What else it has in the CPU.
    pub extra: &'a mut Extra,
    /// What comes afterwards; [`After::Done`] but for calls that say otherwise.
    pub after: After,
}

/// What a call comes to: the value in RAX, or why not.
pub type Result = core::result::Result<u64, Error>;

/// What comes after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The thread goes on.
    Done,
    /// It goes on, and the call may have to be begun again.
    Interrupted(Interrupted),
    /// The thread ends.
    Ended,
    /// Another task runs the thread from now on.
    Replaced,
}

/// Executes the system call that `registers` ask for.
pub fn call(thread: &Arc<Thread>, registers: &mut Registers, extra: &mut Extra) -> After {
    let number = registers.rax;
    let args = [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ];
    let Some(entry) = table::find(number) else {
        registers.rax = answer(unknown(number));
        return After::Done;
    };
    if entry.leaves_notes && allocator().is_short() {
        registers.rax = answer(Errno::ENOMEM);
        return After::Done;
    }
    let mut call = Call {
        thread,
        args,
        registers,
        extra,
        after: After::Done,
    };
    let result = (entry.call)(&mut call);
    let after = call.after;
    match result {
        Ok(value) => registers.rax = value,
        Err(Error::Errno(errno)) => registers.rax = answer(errno),
        Err(Error::Restart(restart)) => {
            // Unless it is begun again.
            registers.rax = answer(Errno::EINTR);
            return After::Interrupted(Interrupted { number, restart });
        }
    }
    after
}

/// An error number as RAX has it.
fn answer(errno: Errno) -> u64 {
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
