//! What a snapshot is told: keys of the command line.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `pages` | pages of the region | 2048 |
//! | `populate` | how many of them, from the first on, are filled before anybody writes | all |
//! | `order`, `seed` | order of the writer's stores (over and over), and seed of that and of the contents | `random`, 1 |
//! | `burst` | stores that the writer makes before it gives way | 8 |
//! | `batch` | pages that the sweep saves before it gives way | 8 |
//! | `kill-monitor-after` | the monitor ends after so many faults | never |
//! | `late-save` | the page of this fault, counted from 1, is saved after the writer went on | never |

use kernel::lab::order::Order;
use kernel::trace::cmdline::Cmdline;

use crate::apps::common::{MAX_PAGES, order, pages, seed};
use crate::apps::{AppError, System};

const KEYS: &[&str] = &[
    "pages",
    "populate",
    "order",
    "seed",
    "burst",
    "batch",
    "kill-monitor-after",
    "late-save",
];
const BURST: u64 = 8;
const BATCH: u64 = 8;

/// A snapshot, as it is asked for.
pub struct Options {
    /// Pages of the region.
    pub pages: u64,
    /// How many of them are filled before anybody writes.
    pub populate: usize,
    /// The order of the writer's stores.
    pub order: Order<'static>,
    /// Decides the contents.
    pub seed: u64,
    /// Stores that the writer makes before it gives way.
    pub burst: u64,
    /// Pages that the sweep saves before it gives way.
    pub batch: usize,
    /// When the monitor ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// Which fault's page is saved too late.
    pub late_save: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense.
    pub fn parse(cmdline: &Cmdline<'static>, system: &'static System) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let (pages, populate) = pages(cmdline)?;
        let seed = seed(cmdline)?;
        Ok(Self {
            pages,
            populate,
            order: order(cmdline, system, Order::Random { seed })?,
            seed,
            burst: cmdline.number("burst", 1, MAX_PAGES)?.unwrap_or(BURST),
            batch: cmdline.number("batch", 1, MAX_PAGES)?.unwrap_or(BATCH) as usize,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            late_save: cmdline.number("late-save", 1, u64::MAX)?,
        })
    }
}
