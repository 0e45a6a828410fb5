//! Options of what takes an image while others write.

use clap::Args;

use super::Tokens;
use super::region::pages_from;

/// How the image is taken.
#[derive(Args, Clone, Debug, Default)]
pub struct Imaging {
    /// Pages that the sweep saves, and unprotects in one call, before it gives way to whoever writes; default: 8
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub batch: Option<u64>,
    /// Kill the monitor after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// Let the monitor save the page of the Nth fault only after the store was made; the image is then found wrong
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub late_save: Option<u64>,
}

impl Imaging {
    /// `tokens` with these options.
    pub fn add_to(&self, tokens: Tokens) -> Tokens {
        tokens
            .opt("batch", self.batch)
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("late-save", self.late_save)
    }
}
