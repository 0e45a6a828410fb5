//! `snapshot`: its options.

use clap::Args;

use super::Tokens;
use super::imaging::Imaging;
use super::region::{Orders, Region, pages_from};
use crate::machine::Machine;

/// Options of `snapshot`.
#[derive(Args, Clone, Debug, Default)]
pub struct SnapshotArgs {
    /// How large the region is.
    #[command(flatten)]
    pub region: Region,
    /// In which order it is written.
    #[command(flatten)]
    pub orders: Orders,
    /// How many pages, from the first on, are filled before anybody writes; default: all
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true)]
    pub populate: Option<u64>,
    /// Stores that the writer makes between two turns of the sweep; default: 8
    #[arg(long, value_name = "STORES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub burst: Option<u64>,
    /// How the image is taken.
    #[command(flatten)]
    pub imaging: Imaging,
}

impl SnapshotArgs {
    /// Checks what can be checked before anything is built.
    ///
    /// # Errors
    /// What is wrong with the order file or a number.
    pub fn check(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        self.region.check_fits(2, "the region and its image", machine)?;
        self.region.check_at_most("--populate", self.populate)?;
        self.order_entry().map(drop)
    }

    /// The ramdisk's entry `order`.
    ///
    /// # Errors
    /// A usage error that names file and line.
    pub fn order_entry(&self) -> anyhow::Result<Option<String>> {
        self.orders.entry(&self.region)
    }

    /// The command line.
    pub fn tokens(&self) -> Tokens {
        let tokens = Tokens::new("snapshot")
            .opt("pages", self.region.pages)
            .opt("populate", self.populate)
            .opt("order", self.orders.token())
            .opt("seed", self.orders.seed)
            .opt("burst", self.burst);
        self.imaging.add_to(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Order;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        assert_eq!(SnapshotArgs::default().tokens().finish(), "snapshot");
        let args = SnapshotArgs {
            region: Region { pages: Some(64) },
            orders: Orders {
                order: Some(Order::Reverse),
                seed: Some(7),
            },
            populate: Some(32),
            burst: Some(2),
            imaging: Imaging {
                batch: Some(4),
                kill_monitor_after: Some(5),
                late_save: Some(6),
            },
        };
        assert_eq!(
            args.tokens().finish(),
            "snapshot pages=64 populate=32 order=reverse seed=7 burst=2 batch=4 kill-monitor-after=5 late-save=6"
        );
    }
}
