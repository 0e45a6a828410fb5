//! What a tracking run is told: keys of the command line.
//!
//! | key | what | default |
//! | --- | --- | --- |
//! | `pages` | pages of the region | 2048 |
//! | `populate` | how many of them, from the first on, are filled before tracking begins | all |
//! | `rounds` | collections of each part | 8 |
//! | `writes` | stores that the writer makes between two collections | 256 |
//! | `seed` | of the pages that are touched, and of the contents | 1 |
//! | `runs` | runs of pages that fit into the report of one scan | 64 |
//! | `skip-protect` | the collection of this round, counted from 1, protects nothing again | never |
//! | `protect-early` | before the collection of this round everything is protected again | never |

use kernel::trace::cmdline::Cmdline;

use crate::apps::AppError;
use crate::apps::common::{MAX_PAGES, pages, seed};

const KEYS: &[&str] = &[
    "pages",
    "populate",
    "rounds",
    "writes",
    "seed",
    "runs",
    "skip-protect",
    "protect-early",
];
const ROUNDS: u64 = 8;
const WRITES: u64 = 256;
const RUNS: u64 = 64;
const MAX_ROUNDS: u64 = 64;
const MAX_RUNS: u64 = 65536;

/// A tracking run, as it is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pages of the region.
    pub pages: u64,
    /// How many of them are filled before tracking begins.
    pub populate: usize,
    /// Collections of each part.
    pub rounds: u64,
    /// Stores between two collections.
    pub writes: u64,
    /// Decides the pages and their contents.
    pub seed: u64,
    /// Runs of pages that one scan can report.
    pub runs: usize,
    /// Which collection forgets to protect.
    pub skip_protect: Option<u64>,
    /// Which collection protects before it looks.
    pub protect_early: Option<u64>,
}

impl Options {
    /// Reads and checks them.
    ///
    /// # Errors
    /// A key or value that makes no sense.
    pub fn parse(cmdline: &Cmdline<'static>) -> Result<Self, AppError> {
        cmdline.allow(KEYS)?;
        let (pages, populate) = pages(cmdline)?;
        // The last round has no later one that would show what it left behind.
        let rounds = cmdline.number("rounds", 2, MAX_ROUNDS)?.unwrap_or(ROUNDS);
        Ok(Self {
            pages,
            populate,
            rounds,
            writes: cmdline.number("writes", 1, MAX_PAGES)?.unwrap_or(WRITES),
            seed: seed(cmdline)?,
            runs: cmdline.number("runs", 1, MAX_RUNS)?.unwrap_or(RUNS) as usize,
            skip_protect: cmdline.number("skip-protect", 1, rounds - 1)?,
            protect_early: cmdline.number("protect-early", 1, rounds)?,
        })
    }
}
