//! `track`: its options.

use clap::Args;

use super::Tokens;
use super::region::{Region, pages_from};
use crate::machine::Machine;
use crate::status::usage;

/// Options of `track`.
#[derive(Args, Clone, Debug, Default)]
pub struct TrackArgs {
    /// How large the region is.
    #[command(flatten)]
    pub region: Region,
    /// How many pages, from the first on, are filled before tracking begins; default: all
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true)]
    pub populate: Option<u64>,
    /// Collections of each part, at most 64; default: 8
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(2..=64))]
    pub rounds: Option<u64>,
    /// Stores that the writer makes between two collections; default: 256
    #[arg(long, value_name = "STORES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub writes: Option<u64>,
    /// Seed of the pages that are touched, and of the contents; default: 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Runs of pages that fit into the report of one scan, at most 65536; default: 64
    #[arg(long, value_name = "RUNS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub runs: Option<u64>,
    /// Let the collection of this round protect nothing again; the next one then reports pages that were not written
    #[arg(long, value_name = "ROUND", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub skip_protect: Option<u64>,
    /// Protect everything again before the collection of this round; it then misses what was written
    #[arg(long, value_name = "ROUND", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub protect_early: Option<u64>,
}

impl TrackArgs {
    /// Checks what can be checked before anything is built.
    ///
    /// # Errors
    /// What is wrong with a number.
    pub fn check(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        self.region.check_fits(2, "the region and its copy", machine)?;
        self.region.check_at_most("--populate", self.populate)?;
        match (self.rounds, self.skip_protect) {
            (Some(rounds), Some(round)) if round >= rounds => Err(usage(format!(
                "--skip-protect {round}: it takes a later round to show, and there are {rounds}"
            ))),
            _ => Ok(()),
        }
    }

    /// The command line.
    pub fn tokens(&self) -> Tokens {
        Tokens::new("track")
            .opt("pages", self.region.pages)
            .opt("populate", self.populate)
            .opt("rounds", self.rounds)
            .opt("writes", self.writes)
            .opt("seed", self.seed)
            .opt("runs", self.runs)
            .opt("skip-protect", self.skip_protect)
            .opt("protect-early", self.protect_early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(TrackArgs::default().tokens().finish(), "track");
        let args = TrackArgs {
            region: Region { pages: Some(64) },
            populate: Some(32),
            rounds: Some(5),
            writes: Some(6),
            seed: Some(7),
            runs: Some(8),
            skip_protect: Some(2),
            protect_early: Some(3),
        };
        assert_eq!(
            args.tokens().finish(),
            "track pages=64 populate=32 rounds=5 writes=6 seed=7 runs=8 skip-protect=2 protect-early=3"
        );
    }
}
