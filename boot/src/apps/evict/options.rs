//! What an eviction run is told: keys of the command line.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `pages` | pages of the region | 2048 |
//! | `budget` | pages of it that may take memory at a time, from 2 to one less than there are | an eighth |
//! | `staging` | how many of these may be staged: moved out of the region, not yet in the store | a quarter of the budget |
//! | `batch` | pages that are written to the store when room is needed | a quarter of the staged ones |
//! | `rounds` | how often every page is touched | 8 |
//! | `writes` | how many of a hundred touches change the page | 50 |
//! | `tasks` | workers, each with pages of its own | 2 |
//! | `seed` | of the order of touches and of the contents | 1 |
//! | `kill-monitor-after` | the pager ends after so many faults | never |
//! | `lose-write` | of the writes to the store from this one on, counted from 1, the first that matters is lost | never |
//! | `skip-room` | of the faults from this one on, counted from 1, the first that needs room gets its page without | never |

use kernel::trace::cmdline::Cmdline;

use crate::apps::AppError;
use crate::apps::common::{MAX_PAGES, seed};

const KEYS: &[&str] = &[
    "pages",
    "budget",
    "staging",
    "batch",
    "rounds",
    "writes",
    "tasks",
    "seed",
    "kill-monitor-after",
    "lose-write",
    "skip-room",
];
const PAGES: u64 = 2048;
const ROUNDS: u64 = 8;
const MAX_ROUNDS: u64 = 1 << 20;
const WRITES: u64 = 50;
const TASKS: u64 = 2;
const MAX_TASKS: u64 = 64;
/// A page must be able to be mapped while another one is staged, and a worker needs its page to itself for a moment.
const MIN_PAGES: u64 = 3;

/// An eviction run, as it is asked for.
pub struct Options {
    /// Pages of the region.
    pub pages: u64,
    /// How many of them may take memory.
    pub budget: u64,
    /// How many of those may be staged.
    pub staging: u64,
    /// Pages that are written to the store when room is needed.
    pub batch: usize,
    /// How often every page is touched.
    pub rounds: u64,
    /// How many of a hundred touches change the page.
    pub writes: u64,
    /// Workers.
    pub tasks: usize,
    /// Decides order and contents.
    pub seed: u64,
    /// When the pager ends for no reason.
    pub kill_monitor_after: Option<u64>,
    /// Which write is lost.
    pub lose_write: Option<u64>,
    /// For which fault no room is made.
    pub skip_room: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense.
    pub fn parse(cmdline: &Cmdline<'static>) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let pages = cmdline.number("pages", MIN_PAGES, MAX_PAGES)?.unwrap_or(PAGES);
        let budget = cmdline
            .number("budget", 2, pages - 1)?
            .unwrap_or((pages / 8).max(2));
        let staging = cmdline
            .number("staging", 1, budget - 1)?
            .unwrap_or((budget / 4).max(1));
        let batch = cmdline
            .number("batch", 1, staging)?
            .unwrap_or((staging / 4).max(1));
        Ok(Self {
            pages,
            budget,
            staging,
            batch: batch as usize,
            rounds: cmdline.number("rounds", 1, MAX_ROUNDS)?.unwrap_or(ROUNDS),
            writes: cmdline.number("writes", 0, 100)?.unwrap_or(WRITES),
            tasks: cmdline.number("tasks", 1, MAX_TASKS.min(pages))?.unwrap_or(TASKS) as usize,
            seed: seed(cmdline)?,
            kill_monitor_after: cmdline.number("kill-monitor-after", 0, u64::MAX)?,
            lose_write: cmdline.number("lose-write", 1, u64::MAX)?,
            skip_room: cmdline.number("skip-room", 1, u64::MAX)?,
        })
    }
}
