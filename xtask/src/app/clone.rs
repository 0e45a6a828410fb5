//! `clone`: its options.

use clap::Args;

use super::Tokens;
use super::file::{FromFile, Origin, SnapshotFile};
use super::region::{Orders, pages_from};

/// Options of `clone`.
#[derive(Args, Clone, Debug, Default)]
pub struct CloneArgs {
    /// What the clones are started from.
    #[command(flatten)]
    pub file: SnapshotFile,
    /// Address spaces that are started, at most 256; default: 8
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub clones: Option<u64>,
    /// In which order each of them touches pages.
    #[command(flatten)]
    pub orders: Orders,
    /// How many pages each clone touches; default: all
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = pages_from(1))]
    pub touch: Option<u64>,
    /// Stores that each clone makes, to random pages; default: one for 16 pages
    #[arg(long, value_name = "STORES", allow_negative_numbers = true, value_parser = pages_from(0))]
    pub writes: Option<u64>,
    /// Kill the first clone's monitor after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// Change this page under all clones when they have worked; it is then found wrong
    #[arg(long, value_name = "PAGE", allow_negative_numbers = true)]
    pub spoil: Option<u64>,
}

impl CloneArgs {
    /// What is asked of the snapshot's file. Defaults of the kernel are for the kernel to check.
    pub fn from_file(&self) -> FromFile<'_> {
        FromFile {
            file: &self.file,
            order: self.orders.order.as_ref(),
            touch: self.touch,
            clones: self.clones.unwrap_or(1),
            private: self.writes.unwrap_or(0),
        }
    }

    /// The command line.
    pub fn tokens(&self, origin: Origin) -> Tokens {
        origin
            .tokens("clone")
            .opt("clones", self.clones)
            .opt("order", self.orders.token())
            .opt("seed", self.orders.seed)
            .opt("touch", self.touch)
            .opt("writes", self.writes)
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("spoil", self.spoil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Source;
    use crate::order::Order;

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        let origin = Origin {
            source: Source::Ramdisk,
            bytes: 8192,
            pages: 2,
        };
        let args = CloneArgs {
            clones: Some(4),
            orders: Orders {
                order: Some(Order::Reverse),
                seed: Some(7),
            },
            touch: Some(5),
            writes: Some(6),
            kill_monitor_after: Some(3),
            spoil: Some(1),
            ..CloneArgs::default()
        };
        assert_eq!(
            args.tokens(origin).finish(),
            "clone source=ramdisk snapshot-bytes=8192 digests=2 clones=4 order=reverse seed=7 touch=5 writes=6 \
             kill-monitor-after=3 spoil=1"
        );
        assert_eq!(args.from_file().pages_beside(100), 24);
        assert_eq!(args.from_file().pages_beside(2), 8, "a page is private once");
    }
}
