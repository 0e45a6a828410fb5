//! What a snapshot is told: keys of the command line.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `pages` | pages of the region | 2048 |
//! | `populate` | how many of them, from the first on, are filled before anybody writes | all |
//! | `order`, `seed` | order of the writer's stores (over and over), and seed of that and of the contents | `random`, 1 |
//! | `burst` | stores that the writer makes before it gives way | 8 |
//! | `batch`, `kill-monitor-after`, `late-save` | how the image is taken ([`ImageOptions`]) | |

use kernel::lab::order::Order;
use kernel::trace::cmdline::Cmdline;

use crate::apps::common::{ImageOptions, MAX_PAGES, order, pages, seed};
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
    /// How the image is taken.
    pub image: ImageOptions,
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
            image: ImageOptions::parse(cmdline)?,
        })
    }
}
