//! The applications of the image, as typed subcommands, and their translation to the kernel's command line.
//!
//! The kernel takes `app key=value ...`; a key is named like the option it comes from, without the dashes, so the two
//! sides can be read against each other. Only what the user asked for is passed on: defaults are the kernel's.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::order::Order;

/// What the kernel is asked to do.
#[derive(Subcommand, Clone, Debug)]
pub enum App {
    /// Restore a snapshot lazily: each page is fetched when it is first touched; this is the default
    Restore(RestoreArgs),
    /// Measure the bare path of a delegated fault, from the touch to the next instruction
    Cost(CostArgs),
    /// Print what the machine is: memory, PCI functions, disks, ramdisk
    Info,
    /// Panic, to see it reported
    #[command(hide = true)]
    Panic,
    /// Die by a triple fault, to see it told from a panic
    #[command(hide = true)]
    TripleFault,
    /// Hang, to see it told from death
    #[command(hide = true)]
    Hang,
    /// List the tests of the image
    #[command(hide = true)]
    TestList,
    /// Run the tests of the image
    #[command(hide = true)]
    Test(TestArgs),
    /// Pass a kernel command line as it stands
    #[command(hide = true)]
    Raw {
        /// The application and its key=value tokens
        tokens: Vec<String>,
    },
}

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

/// Options of `cost`.
#[derive(Args, Clone, Debug, Default)]
pub struct CostArgs {
    /// How many faults each measurement takes; default: 1024
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub pages: Option<u64>,
}

/// Options of the in-kernel test runner.
#[derive(Args, Clone, Debug, Default)]
pub struct TestArgs {
    /// Only tests whose name contains this
    #[arg(long)]
    pub filter: Option<String>,
    /// Names of tests to leave out
    #[arg(long, value_delimiter = ',')]
    pub skip: Vec<String>,
}

impl App {
    /// The name on the kernel's command line, in reports and in file names.
    pub fn name(&self) -> &str {
        match self {
            Self::Restore(_) => "restore",
            Self::Cost(_) => "cost",
            Self::Info => "info",
            Self::Panic => "panic",
            Self::TripleFault => "triple-fault",
            Self::Hang => "hang",
            Self::TestList => "test-list",
            Self::Test(_) => "test",
            Self::Raw { tokens } => tokens
                .first()
                .map_or("raw", |token| token.split('=').next().unwrap_or("raw")),
        }
    }

    /// Whether a success without a report would be no success.
    pub const fn reports(&self) -> bool {
        matches!(self, Self::Restore(_) | Self::Cost(_) | Self::Info)
    }
}

/// A kernel command line in the making.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokens(String);

impl Tokens {
    /// Starts with the application's name.
    pub fn new(app: &str) -> Self {
        Self(app.to_owned())
    }

    /// Adds `key=value` if there is a value.
    #[must_use]
    pub fn opt(self, key: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => Self(format!("{} {key}={value}", self.0)),
            None => self,
        }
    }

    /// Adds `key=1` if the flag is set.
    #[must_use]
    pub fn flag(self, key: &str, set: bool) -> Self {
        self.opt(key, set.then_some(1))
    }

    /// The command line.
    pub fn finish(self) -> String {
        self.0
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
            .flag("monitor-touches-own-region", self.monitor_touches_own_region)
            .opt("fail-frames-after", self.fail_frames_after)
    }
}

impl CostArgs {
    /// The command line.
    pub fn tokens(&self) -> Tokens {
        Tokens::new("cost").opt("pages", self.pages)
    }
}

impl TestArgs {
    /// The command line.
    pub fn tokens(&self) -> Tokens {
        let skip = (!self.skip.is_empty()).then(|| self.skip.join(","));
        Tokens::new("test")
            .opt("filter", self.filter.as_ref())
            .opt("skip", skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_leave_everything_to_the_kernel() {
        let line = RestoreArgs::default().tokens(Source::Virtio, 5000, 2).finish();
        assert_eq!(line, "restore source=virtio snapshot-bytes=5000 digests=2");
        assert_eq!(CostArgs::default().tokens().finish(), "cost");
    }

    #[test]
    fn every_option_becomes_the_token_of_its_name() {
        let args = RestoreArgs {
            order: Some(Order::Random),
            seed: Some(7),
            prefetch: Some(8),
            touch: Some(9),
            kill_monitor_after: Some(3),
            monitor_touches_own_region: true,
            fail_frames_after: Some(2),
            ..RestoreArgs::default()
        };
        assert_eq!(
            args.tokens(Source::Ramdisk, 4096, 1).finish(),
            "restore source=ramdisk snapshot-bytes=4096 digests=1 order=random seed=7 prefetch=8 touch=9 \
             kill-monitor-after=3 monitor-touches-own-region=1 fail-frames-after=2"
        );
        let test = TestArgs {
            filter: Some("uffd".into()),
            skip: vec!["a::b".into(), "c".into()],
        };
        assert_eq!(test.tokens().finish(), "test filter=uffd skip=a::b,c");
    }
}
