//! What a restore is told: keys of the command line, entries of the ramdisk.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `source` | `virtio` (the first disk) or `ramdisk` (entry `snapshot`) | `virtio` |
//! | `snapshot-bytes` | size of the snapshot on the disk | the whole disk |
//! | `digests` | how many page digests the ramdisk's entry `digests` holds | as many as there are pages |
//! | `order` | `sequential`, `random`, `reverse` or `file` (entry `order`) | `sequential` |
//! | `seed` | of the random order | 1 |
//! | `touch` | how many pages the workload touches | all in the order |
//! | `prefetch` | pages that are filled along with each missing one, if absent | 0 |
//! | `kill-monitor-after` | the monitor ends after so many faults | never |
//! | `on-monitor-death` | what becomes of faults when the monitor ends ([`MonitorDeath`]) | `fail` |
//! | `monitor-touches-own-region` | the monitor first touches what it is to serve | 0 |
//! | `fail-frames-after` | allocations of frames fail after so many | never |

use kernel::lab::order::Order;
use kernel::trace::cmdline::Cmdline;
use kernel::uffd::MonitorDeath;

use crate::apps::common::{Snapshot, order};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "source",
    "snapshot-bytes",
    "digests",
    "order",
    "seed",
    "touch",
    "prefetch",
    "kill-monitor-after",
    "on-monitor-death",
    "monitor-touches-own-region",
    "fail-frames-after",
];
/// Largest prefetch: 16 MiB are read for one fault then.
const MAX_PREFETCH: u64 = 4096;

/// A restore, as it is asked for.
pub struct Options {
    /// What is restored.
    pub snapshot: Snapshot,
    /// In which order they are touched.
    pub order: Order<'static>,
    /// How many are touched.
    pub touch: usize,
    /// How many are filled along with a missing one.
    pub prefetch: usize,
    /// When the monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// What becomes of faults when the monitor ends.
    pub on_monitor_death: MonitorDeath,
    /// Whether the monitor touches what it serves.
    pub monitor_touches_own_region: bool,
    /// When frames run out.
    pub fail_frames_after: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense; a source, digests or an order that are not there or do not fit together.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        Ok(Self {
            snapshot: Snapshot::parse(cmdline, system)?,
            order: order(cmdline, system, Order::Sequential)?,
            touch: cmdline
                .number("touch", 1, u32::MAX.into())?
                .map_or(usize::MAX, |pages| pages as usize),
            prefetch: cmdline.number("prefetch", 0, MAX_PREFETCH)?.unwrap_or(0) as usize,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            on_monitor_death: cmdline
                .choice("on-monitor-death", MonitorDeath::NAMES)?
                .map_or(MonitorDeath::default(), |index| MonitorDeath::ALL[index]),
            monitor_touches_own_region: cmdline.flag("monitor-touches-own-region")?,
            fail_frames_after: cmdline.number("fail-frames-after", 0, u64::MAX - 1)?,
        })
    }
}
