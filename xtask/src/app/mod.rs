//! The applications of the image, as typed subcommands, and their translation to the kernel's command line.
//!
//! The kernel takes `app key=value ...`; a key is named like the option it comes from, without the dashes, so the two
//! sides can be read against each other. Only what the user asked for is passed on: defaults are the kernel's.

use clap::{Args, Subcommand};

use crate::machine::Machine;

mod clone;
mod evict;
mod file;
mod guest;
mod guest_clone;
mod guest_restore;
mod guest_snapshot;
mod imaging;
mod region;
mod restore;
mod snapshot;
mod track;

pub use clone::CloneArgs;
pub use evict::EvictArgs;
pub use file::{FromFile, Origin, SnapshotFile, Source};
pub use guest::Guest;
pub use guest_clone::GuestCloneArgs;
pub use guest_restore::GuestRestoreArgs;
pub use guest_snapshot::GuestSnapshotArgs;
pub use restore::{MonitorDeath, RestoreArgs};
pub use snapshot::SnapshotArgs;
pub use track::TrackArgs;

/// What the kernel is asked to do.
#[derive(Subcommand, Clone, Debug)]
pub enum App {
    /// Restore a snapshot lazily: each page is fetched when it is first touched; this is the default
    Restore(RestoreArgs),
    /// Take a consistent snapshot of a region by write protection while a writer goes on
    Snapshot(SnapshotArgs),
    /// Track which pages are written with WP_ASYNC, against writes that are known
    Track(TrackArgs),
    /// Work on a region larger than its memory: cold pages are moved out and back
    Evict(EvictArgs),
    /// Start address spaces from one snapshot: pages that they do not change are in memory once
    Clone(CloneArgs),
    /// Restore a guest lazily: its memory comes page by page, served by its own monitor or from outside
    GuestRestore(GuestRestoreArgs),
    /// Take a consistent snapshot of a guest by write protection while it runs; restore it and compare
    GuestSnapshot(GuestSnapshotArgs),
    /// Start guests from one snapshot: pages that they do not change are in memory once
    GuestClone(GuestCloneArgs),
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
            Self::Snapshot(_) => "snapshot",
            Self::Track(_) => "track",
            Self::Evict(_) => "evict",
            Self::Clone(_) => "clone",
            Self::GuestRestore(_) => "guest-restore",
            Self::GuestSnapshot(_) => "guest-snapshot",
            Self::GuestClone(_) => "guest-clone",
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

    /// What is asked of a snapshot file, by an application that starts from one.
    pub fn from_file(&self) -> Option<FromFile<'_>> {
        match self {
            Self::Restore(args) => Some(args.from_file()),
            Self::Clone(args) => Some(args.from_file()),
            _ => None,
        }
    }

    /// Checks the options of an application that starts from no file.
    ///
    /// # Errors
    /// What is wrong with a number or a file.
    pub fn check(&self, machine: &dyn Machine) -> anyhow::Result<()> {
        match self {
            Self::Snapshot(args) => args.check(machine),
            Self::Track(args) => args.check(machine),
            Self::Evict(args) => args.check(machine),
            Self::GuestRestore(args) => args.check(machine),
            Self::GuestSnapshot(args) => args.check(machine),
            Self::GuestClone(args) => args.check(machine),
            _ => Ok(()),
        }
    }

    /// The guest that finds itself in the ramdisk, if guests are run.
    pub fn guest(&self) -> Option<Guest> {
        match self {
            Self::GuestRestore(args) => Some(args.guest.clone()),
            Self::GuestSnapshot(args) => Some(args.guest.clone()),
            Self::GuestClone(args) => Some(args.guest.clone()),
            Self::Test(_) => Some(Guest::default()),
            _ => None,
        }
    }

    /// Whether a success without a report would be no success.
    pub const fn reports(&self) -> bool {
        matches!(
            self,
            Self::Restore(_)
                | Self::Snapshot(_)
                | Self::Track(_)
                | Self::Evict(_)
                | Self::Clone(_)
                | Self::GuestRestore(_)
                | Self::GuestSnapshot(_)
                | Self::GuestClone(_)
                | Self::Cost(_)
                | Self::Info
        )
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
    fn options_become_the_tokens_of_their_names() {
        assert_eq!(CostArgs::default().tokens().finish(), "cost");
        assert_eq!(CostArgs { pages: Some(8) }.tokens().finish(), "cost pages=8");
        let test = TestArgs {
            filter: Some("uffd".into()),
            skip: vec!["a::b".into(), "c".into()],
        };
        assert_eq!(test.tokens().finish(), "test filter=uffd skip=a::b,c");
    }
}
