//! Options of what starts from a snapshot file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Tokens;
use crate::order::Order;

/// Which file, and where the kernel reads it.
#[derive(Args, Clone, Debug, Default)]
pub struct SnapshotFile {
    /// The snapshot's file; default: the kernel's own ELF image
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// Where monitors read pages from; default: virtio where the machine has it
    #[arg(long)]
    pub source: Option<Source>,
    /// Compute the digests from another file than the one that is read
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
    /// The value of the kernel's `source=` token.
    const fn token(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Ramdisk => "ramdisk",
        }
    }
}

/// What an application that starts from a snapshot file asks for.
#[derive(Clone, Copy, Debug)]
pub struct FromFile<'a> {
    /// The file.
    pub file: &'a SnapshotFile,
    /// In which order its pages are touched.
    pub order: Option<&'a Order>,
    /// How many of them.
    pub touch: Option<u64>,
    /// How many address spaces may have pages to themselves ...
    pub clones: u64,
    /// ... and how many each.
    pub private: u64,
}

impl FromFile<'_> {
    /// The most pages that are needed besides the snapshot's `pages`.
    pub fn pages_beside(&self, pages: u64) -> u64 {
        self.clones.saturating_mul(self.private.min(pages))
    }
}

/// A snapshot as the kernel is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Where its pages are read from.
    pub source: Source,
    /// Its size.
    pub bytes: u64,
    /// Its pages, the last one filled up.
    pub pages: u64,
}

impl Origin {
    /// A command line of `app` that begins with what is known of the snapshot.
    pub fn tokens(self, app: &str) -> Tokens {
        Tokens::new(app)
            .opt("source", Some(self.source.token()))
            .opt("snapshot-bytes", Some(self.bytes))
            .opt("digests", Some(self.pages))
    }
}
