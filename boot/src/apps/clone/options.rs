//! What cloning is told: keys of the command line, entries of the ramdisk.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `source`, `snapshot-bytes`, `digests` | the snapshot, as for `restore` | |
//! | `clones` | address spaces that are started | 8 |
//! | `order`, `seed` | in which order each touches pages; a random order is another for each | `random`, 1 |
//! | `touch` | how many pages each touches | all in the order |
//! | `writes` | stores that each makes, to random pages | one for 16 pages |
//! | `kill-monitor-after` | the first clone's monitor ends after so many faults | never |
//! | `spoil` | this page is changed in the object when all have worked | none |

use kernel::lab::order::Order;
use kernel::trace::cmdline::Cmdline;

use crate::apps::common::{MAX_PAGES, Snapshot, order, seed};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "source",
    "snapshot-bytes",
    "digests",
    "clones",
    "order",
    "seed",
    "touch",
    "writes",
    "kill-monitor-after",
    "spoil",
];
const CLONES: u64 = 8;
const MAX_CLONES: u64 = 256;

/// A number of clones, as they are asked for.
pub struct Options {
    /// What they are started from.
    pub snapshot: Snapshot,
    /// How many.
    pub clones: u64,
    /// In which order each touches pages.
    pub order: Order<'static>,
    /// Decides the stores.
    pub seed: u64,
    /// How many pages each touches.
    pub touch: usize,
    /// Stores that each makes.
    pub writes: u64,
    /// When the first clone's monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// Which page is changed under all of them.
    pub spoil: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense; a source, digests or an order that are not there or do not fit together.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let snapshot = Snapshot::parse(cmdline, system)?;
        let (pages, seed) = (snapshot.source.pages(), seed(cmdline)?);
        Ok(Self {
            snapshot,
            clones: cmdline.number("clones", 1, MAX_CLONES)?.unwrap_or(CLONES),
            order: order(cmdline, system, Order::Random { seed })?,
            seed,
            touch: cmdline
                .number("touch", 1, MAX_PAGES)?
                .map_or(usize::MAX, |pages| pages as usize),
            writes: cmdline
                .number("writes", 0, MAX_PAGES)?
                .unwrap_or(pages.div_ceil(16)),
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            spoil: cmdline.number("spoil", 0, pages - 1)?,
        })
    }
}
