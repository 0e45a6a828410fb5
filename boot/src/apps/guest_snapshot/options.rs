//! What the live snapshot of a guest is told: keys of the command line, besides those of every guest
//! ([`Guest`]).
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `after-mark` | ticks between the guest's mark 1 and the snapshot | 0 |
//! | `batch`, `kill-monitor-after`, `late-save` | how the image is taken ([`ImageOptions`]) | |

use kernel::trace::cmdline::Cmdline;

use crate::apps::common::ImageOptions;
use crate::apps::guest::{Guest, SavePoint};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "guest-mem",
    "delegated",
    "mark-after",
    "guest-deadline",
    "after-mark",
    "batch",
    "kill-monitor-after",
    "late-save",
];

/// What the built-in guest does unless it is told otherwise.
const WORKLOAD: &str = "workload";

/// A snapshot, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The guest, and when its snapshot is armed.
    pub guest: Guest,
    /// How the image is taken.
    pub image: ImageOptions,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense, alone or with another; no guest in the ramdisk.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let mut guest = Guest::parse(cmdline, system, WORKLOAD)?;
        if let Some(ticks) = cmdline.number("after-mark", 0, u64::MAX)? {
            match &mut guest.point {
                SavePoint::Mark { then } => *then = ticks,
                SavePoint::Ticks(_) => {
                    return Err(AppError::usage("after-mark and mark-after exclude each other"));
                }
            }
        }
        Ok(Self {
            guest,
            image: ImageOptions::parse(cmdline)?,
        })
    }
}
