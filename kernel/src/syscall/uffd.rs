//! `userfaultfd`.

use super::{Call, Result};
use crate::file::userfault::{self, UserfaultFile};
use crate::uffd::linux::{Opener, Way};

/// `userfaultfd`.
pub fn userfaultfd(call: &mut Call<'_>) -> Result {
    let opener = Opener {
        way: Way::Syscall,
        may_trace: userfault::may_trace(),
        everybody_may: userfault::everybody_may(),
    };
    let process = call.thread.process();
    let flags = call.args[0] as u32;
    Ok(UserfaultFile::open(
        process.mm().space(),
        &process.files(),
        flags,
        opener,
    )?)
}
