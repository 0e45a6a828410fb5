//! Waiting for children.

use alloc::sync::Arc;

use super::table::Pid;
use super::tree::{Change, Looked, Which};
use super::{Thread, with_tree};
use crate::abi::errno::Errno;
use crate::abi::wait::WNOHANG;
use crate::syscall::{Error, Restart};

/// A child with something to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Who.
    pub pid: Pid,
    /// Whose process it is.
    pub uid: u32,
    /// What.
    pub change: Change,
}

/// Looks for a child of `thread`'s process as `which` and `options` (of `waitid`) say, and waits for one to have something to
/// tell; `None` if it is not to wait.
///
/// # Errors
/// ECHILD: there is no such child. A signal: [`Restart::IfAsked`].
pub fn wait(thread: &Arc<Thread>, which: Which, options: u32) -> Result<Option<Report>, Error> {
    let process = thread.process();
    let look = || {
        let looked = with_tree(|tree| tree.look(process.pid(), which, options));
        match looked {
            Looked::Found(pid, change, gone) => {
                if let Some(process) = &gone {
                    process.note_change();
                }
                let report = Report {
                    pid,
                    uid: gone.map_or(0, |process| process.uid_at_end()),
                    change,
                };
                Some(Ok(Some(report)))
            }
            Looked::NoChild => Some(Err(Errno::ECHILD.into())),
            Looked::NotYet if options & WNOHANG != 0 => Some(Ok(None)),
            Looked::NotYet => thread.signal_is_pending().then_some(Err(Restart::IfAsked.into())),
        }
    };
    process.children_changed.wait_until(look)
}
