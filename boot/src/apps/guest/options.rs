//! What every application with guests is told: keys of the command line, entries of the ramdisk.
//!
//! | key, entry | what | default |
//! | --- | --- | --- |
//! | entry `guest` | the guest's ELF | |
//! | entry `guest-cmdline` | its command line | `workload`, for clones with `writes=10` |
//! | `guest-mem` | bytes of its ordinary memory | 16 MiB |
//! | `delegated` | bytes of its delegated memory | 4 MiB |
//! | `mark-after` | it is saved so many ticks after its start | at its mark 1 |
//! | `guest-deadline` | milliseconds that each guest may run | 30000 |

use core::str;

use kernel::mm::addr::PAGE_SIZE;
use kernel::trace::cmdline::Cmdline;

use super::layout::{Layout, MAX_BYTES};
use super::{Limit, SavePoint};
use crate::apps::common::entry;
use crate::apps::{AppError, System};

const MEMORY: u64 = 16 << 20;
const DELEGATED: u64 = 4 << 20;
const DEADLINE_MS: u64 = 30_000;
/// Longest deadline: a day.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// A guest, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its ELF.
    pub elf: &'static [u8],
    /// Its command line.
    pub cmdline: &'static str,
    /// Where its memory lies.
    pub layout: Layout,
    /// When it is saved.
    pub point: SavePoint,
    /// How long it may run, to that point and from there.
    pub limit: Limit,
}

impl Guest {
    /// Reads and checks it. Unless it is told otherwise, it does `workload`.
    ///
    /// # Errors
    /// A value that makes no sense, or no guest in the ramdisk.
    pub fn parse(
        cmdline: &Cmdline<'static>,
        system: &'static System,
        workload: &'static str,
    ) -> Result<Self, AppError> {
        let pages = |key, default| -> Result<u64, AppError> {
            let bytes = cmdline.number(key, PAGE_SIZE, MAX_BYTES)?.unwrap_or(default);
            Ok(bytes.div_ceil(PAGE_SIZE))
        };
        let text = match system.ramdisk.file("guest-cmdline") {
            Some(text) => {
                str::from_utf8(text).map_err(|_| AppError::usage("the guest's command line is not UTF-8"))?
            }
            None => workload,
        };
        let point = match cmdline.number("mark-after", 1, u64::MAX)? {
            Some(ticks) => SavePoint::Ticks(ticks),
            None => SavePoint::Mark { then: 0 },
        };
        let ms = cmdline
            .number("guest-deadline", 1, MAX_MS)?
            .unwrap_or(DEADLINE_MS);
        Ok(Self {
            elf: entry(system, "guest")?,
            cmdline: text.trim(),
            layout: Layout::new(pages("guest-mem", MEMORY)?, pages("delegated", DELEGATED)?),
            point,
            limit: Limit::ms(ms),
        })
    }
}
