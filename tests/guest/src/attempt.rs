//! Accesses to memory that a userfaultfd watches, each in a thread of its own.

use crate::job::{self, Job};
use crate::touch::{peek, poke};
use crate::uffd::Uffd;

/// A thread that reads the byte at `address`.
pub fn read(address: usize) -> Job {
    job::start(move || peek(address))
}

/// A thread that writes `value` to `address`.
pub fn write(address: usize, value: u8) -> Job {
    job::start(move || poke(address, value))
}

/// What became of a job: the message that it waits for an answer to, or what it returned. Messages that belong to nobody
/// who waits, and waiting without a message, are said so.
pub fn outcome(uffd: &Uffd, job: &Job) -> String {
    let settled = job.settle();
    match (settled.starts_with("blocked"), uffd.read()) {
        (true, Ok(message)) => message.to_string(),
        (true, Err(errno)) => format!("{settled}, a read says {errno}"),
        (false, Ok(message)) => format!("{settled}, and {message}"),
        (false, Err(_)) => settled,
    }
}

/// Reads the byte at `address` in a thread, and says what became of it; the thread may stay behind.
pub fn reading(uffd: &Uffd, address: usize) -> String {
    outcome(uffd, &read(address))
}

/// Writes a byte to `address` in a thread, and says what became of it; the thread may stay behind.
pub fn writing(uffd: &Uffd, address: usize) -> String {
    outcome(uffd, &write(address, 0x77))
}
