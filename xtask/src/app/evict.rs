//! `evict`: its options.

use clap::Args;

use super::Tokens;
use super::region::pages_from;
use crate::machine::Machine;
use crate::size::check_fits;
use crate::status::usage;

/// Options of `evict`.
#[derive(Args, Clone, Debug, Default)]
pub struct EvictArgs {
    /// Pages of the region; default: 2048
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(3))]
    pub pages: Option<u64>,
    /// How many pages may take memory at a time; less than there are; default: an eighth of them
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(2))]
    pub budget: Option<u64>,
    /// How many of these may be staged: moved out, not yet written to the store; default: a quarter of the budget
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub staging: Option<u64>,
    /// Pages that are written to the store when room is needed; default: a quarter of those that may be staged
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub batch: Option<u64>,
    /// How often every page is touched; default: 8
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub rounds: Option<u64>,
    /// How many of a hundred touches change the page; default: 50
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub writes: Option<u64>,
    /// Workers, at most 64, each with pages of its own; default: 2
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub tasks: Option<u64>,
    /// Seed of the order of touches, and of the contents; default: 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Kill the pager after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// Lose the first write to the store from the Nth on that would change something; the page is then found wrong
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub lose_write: Option<u64>,
    /// From the Nth fault on, bring one page without making the room that it needs; the budget is then found exceeded
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub skip_room: Option<u64>,
}

impl EvictArgs {
    /// Checks what can be checked before anything is built.
    ///
    /// # Errors
    /// What is wrong with a number.
    pub fn check(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        if let Some(pages) = self.pages {
            let budget = self.budget.unwrap_or(pages / 8);
            let what = format!("--pages {pages}: the store and the budget");
            check_fits(&what, pages.saturating_add(budget), machine.memory())?;
        }
        below("--budget", self.budget, "--pages", self.pages)?;
        below("--staging", self.staging, "--budget", self.budget)?;
        match (self.batch, self.staging) {
            (Some(batch), Some(staging)) if batch > staging => Err(usage(format!(
                "--batch {batch}: no more than --staging {staging} can be written at once"
            ))),
            _ => Ok(()),
        }
    }

    /// The command line.
    pub fn tokens(&self) -> Tokens {
        Tokens::new("evict")
            .opt("pages", self.pages)
            .opt("budget", self.budget)
            .opt("staging", self.staging)
            .opt("batch", self.batch)
            .opt("rounds", self.rounds)
            .opt("writes", self.writes)
            .opt("tasks", self.tasks)
            .opt("seed", self.seed)
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("lose-write", self.lose_write)
            .opt("skip-room", self.skip_room)
    }
}

fn below(option: &str, value: Option<u64>, limit_option: &str, limit: Option<u64>) -> anyhow::Result<()> {
    match (value, limit) {
        (Some(value), Some(limit)) if value >= limit => Err(usage(format!(
            "{option} {value}: it must be less than {limit_option} {limit}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(EvictArgs::default().tokens().finish(), "evict");
        let args = EvictArgs {
            pages: Some(64),
            budget: Some(16),
            staging: Some(8),
            batch: Some(4),
            rounds: Some(5),
            writes: Some(6),
            tasks: Some(3),
            seed: Some(7),
            kill_monitor_after: Some(9),
            lose_write: Some(10),
            skip_room: Some(11),
        };
        assert_eq!(
            args.tokens().finish(),
            "evict pages=64 budget=16 staging=8 batch=4 rounds=5 writes=6 tasks=3 seed=7 kill-monitor-after=9 \
             lose-write=10 skip-room=11"
        );
    }
}
