//! `restore`: its options.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Tokens;
use crate::order::Order;

/// Options of `restore`.
#[derive(Args, Clone, Debug, Default)]
pub struct RestoreArgs {
    /// The file to restore; default: the kernel's own ELF image
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// Order of the touches: sequential (the default), random, reverse, or a file of page numbers
    #[arg(long, value_name = "ORDER")]
    pub order: Option<Order>,
    /// Seed of the random order; default: 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Where the monitor reads pages from; default: virtio where the machine has it
    #[arg(long)]
    pub source: Option<Source>,
    /// Pages to fetch beyond each missing one, resolved in one call, at most 4096; default: 0
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(..=4096))]
    pub prefetch: Option<u64>,
    /// How many pages the workload touches; default: all
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub touch: Option<u64>,
    /// Kill the monitor after it has served N faults
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub kill_monitor_after: Option<u64>,
    /// What becomes of faults when the monitor dies; default: fail
    #[arg(long, value_name = "POLICY")]
    pub on_monitor_death: Option<MonitorDeath>,
    /// Let the monitor touch the region it serves
    #[arg(long, hide = true)]
    pub monitor_touches_own_region: bool,
    /// Let allocations of frames fail after N of them
    #[arg(long, value_name = "N", hide = true)]
    pub fail_frames_after: Option<u64>,
    /// Compute the digests from another file than the one that is restored
    #[arg(long, value_name = "FILE", hide = true)]
    pub digests_from: Option<PathBuf>,
    /// Let the disk answer with an I/O error at this 512-byte sector
    #[arg(long, value_name = "SECTOR", hide = true)]
    pub inject_error: Option<u64>,
    /// Start even when the snapshot does not fit into the machine's memory
    #[arg(long, hide = true)]
    pub no_memory_check: bool,
}

/// `--source`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A virtio-blk disk.
    Virtio,
    /// The initial ramdisk, for small files.
    Ramdisk,
}

impl Source {
    const fn token(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Ramdisk => "ramdisk",
        }
    }
}

/// `--on-monitor-death`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum MonitorDeath {
    /// Waiting and later touches fail.
    Fail,
    /// They wait, for ever.
    Hang,
    /// Their pages are poisoned.
    Poison,
    /// The task that touches is ended.
    Kill,
    /// Missing pages are zeros, as on Linux.
    Zero,
    /// They wait for a new monitor, which is started.
    Reattach,
}

impl MonitorDeath {
    const fn token(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Hang => "hang",
            Self::Poison => "poison",
            Self::Kill => "kill",
            Self::Zero => "zero",
            Self::Reattach => "reattach",
        }
    }
}

impl RestoreArgs {
    /// The command line for a snapshot of `bytes` bytes in `pages` pages.
    pub fn tokens(&self, source: Source, bytes: u64, pages: u64) -> Tokens {
        Tokens::new("restore")
            .opt("source", Some(source.token()))
            .opt("snapshot-bytes", Some(bytes))
            .opt("digests", Some(pages))
            .opt("order", self.order.as_ref().map(Order::token))
            .opt("seed", self.seed)
            .opt("prefetch", self.prefetch)
            .opt("touch", self.touch)
            .opt("kill-monitor-after", self.kill_monitor_after)
            .opt("on-monitor-death", self.on_monitor_death.map(MonitorDeath::token))
            .flag("monitor-touches-own-region", self.monitor_touches_own_region)
            .opt("fail-frames-after", self.fail_frames_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_leave_everything_to_the_kernel() {
        let line = RestoreArgs::default().tokens(Source::Virtio, 5000, 2).finish();
        assert_eq!(line, "restore source=virtio snapshot-bytes=5000 digests=2");
    }

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        let args = RestoreArgs {
            order: Some(Order::Random),
            seed: Some(7),
            prefetch: Some(8),
            touch: Some(9),
            kill_monitor_after: Some(3),
            on_monitor_death: Some(MonitorDeath::Reattach),
            monitor_touches_own_region: true,
            fail_frames_after: Some(2),
            ..RestoreArgs::default()
        };
        assert_eq!(
            args.tokens(Source::Ramdisk, 4096, 1).finish(),
            "restore source=ramdisk snapshot-bytes=4096 digests=1 order=random seed=7 prefetch=8 touch=9 \
             kill-monitor-after=3 on-monitor-death=reattach monitor-touches-own-region=1 fail-frames-after=2"
        );
    }
}
