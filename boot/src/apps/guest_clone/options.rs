//! What cloning a guest is told: keys of the command line, besides those of every guest ([`Guest`]).
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `clones` | guests that are started | 4 |
//! | `corrupt-page` | a byte of this delegated page is changed in what they are started from | none |

use kernel::trace::cmdline::Cmdline;

use crate::apps::guest::Guest;
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "guest-mem",
    "delegated",
    "mark-after",
    "guest-deadline",
    "clones",
    "corrupt-page",
];
const CLONES: u64 = 4;
const MAX_CLONES: u64 = 64;

/// What the built-in guest does unless it is told otherwise.
const WORKLOAD: &str = "workload writes=10";

/// A number of clones, as they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What they are clones of.
    pub guest: Guest,
    /// How many.
    pub clones: u64,
    /// Which delegated page is changed under all of them.
    pub corrupt: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense; no guest in the ramdisk.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let guest = Guest::parse(cmdline, system, WORKLOAD)?;
        Ok(Self {
            guest,
            clones: cmdline.number("clones", 1, MAX_CLONES)?.unwrap_or(CLONES),
            corrupt: cmdline.number("corrupt-page", 0, guest.layout.delegated.pages() - 1)?,
        })
    }
}
