//! `restore`: its options.

use clap::{Args, ValueEnum};

use super::Tokens;
use super::file::{FromFile, Origin, SnapshotFile};
use crate::order::Order;

/// Options of `restore`.
#[derive(Args, Clone, Debug, Default)]
pub struct RestoreArgs {
    /// What is restored.
    #[command(flatten)]
    pub file: SnapshotFile,
    /// Order of the touches: sequential (the default), random, reverse, or a file of page numbers
    #[arg(long, value_name = "ORDER")]
    pub order: Option<Order>,
    /// Seed of the random order; default: 1
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
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
    /// What is asked of the snapshot's file.
    pub fn from_file(&self) -> FromFile<'_> {
        FromFile {
            file: &self.file,
            order: self.order.as_ref(),
            touch: self.touch,
            clones: 0,
            private: 0,
        }
    }

    /// The command line.
    pub fn tokens(&self, origin: Origin) -> Tokens {
        origin
            .tokens("restore")
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
    use crate::app::Source;

    #[test]
    fn defaults_leave_everything_to_the_kernel() {
        let origin = Origin {
            source: Source::Virtio,
            bytes: 5000,
            pages: 2,
        };
        let line = RestoreArgs::default().tokens(origin).finish();
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
        let origin = Origin {
            source: Source::Ramdisk,
            bytes: 4096,
            pages: 1,
        };
        assert_eq!(
            args.tokens(origin).finish(),
            "restore source=ramdisk snapshot-bytes=4096 digests=1 order=random seed=7 prefetch=8 touch=9 \
             kill-monitor-after=3 on-monitor-death=reattach monitor-touches-own-region=1 fail-frames-after=2"
        );
    }
}
