//! Options that applications with guests share.

use std::path::PathBuf;

use clap::Args;

use super::Tokens;
use crate::machine::Machine;
use crate::size::{MemSize, PAGE, check_fits};
use crate::status::usage;

/// Bytes of either memory unless something is said; the kernel's defaults.
const MEMORY: u64 = 16 << 20;
const DELEGATED: u64 = 4 << 20;
/// Most bytes of either memory.
const MAX_BYTES: u64 = 1 << 30;

/// Which guest, how large, and when it is saved.
#[derive(Args, Clone, Debug, Default)]
pub struct Guest {
    /// The guest: a static 64-bit ELF for a fixed address; default: the built-in guest
    #[arg(long, value_name = "FILE")]
    pub guest: Option<PathBuf>,
    /// The guest's command line; default: workload
    #[arg(long, value_name = "TEXT")]
    pub guest_cmdline: Option<String>,
    /// The guest's ordinary memory: MiB, or with a suffix K, M, G; at most 1G; default: 16
    #[arg(long, value_name = "SIZE")]
    pub guest_mem: Option<MemSize>,
    /// The guest's delegated memory; at most 1G; default: 4
    #[arg(long, value_name = "SIZE")]
    pub delegated: Option<MemSize>,
    /// Save the guest N ticks after its start, for guests that make no mark; default: at its mark 1
    #[arg(long, value_name = "TICKS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub mark_after: Option<u64>,
    /// Milliseconds of the machine's clock that a guest may run; default: 30000
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..=24 * 60 * 60 * 1000))]
    pub guest_deadline: Option<u64>,
}

impl Guest {
    /// Checks that the file is there and that `machine` can hold `copies` times the guest.
    ///
    /// # Errors
    /// What is wrong with the file or a size.
    pub fn check(&self, copies: u64, machine: &dyn Machine) -> anyhow::Result<()> {
        if let Some(path) = &self.guest
            && !path.metadata().is_ok_and(|about| about.is_file())
        {
            return Err(usage(format!(
                "--guest {}: there is no such regular file",
                path.display()
            )));
        }
        for (option, size) in [("--guest-mem", self.guest_mem), ("--delegated", self.delegated)] {
            if let Some(size) = size.filter(|size| size.0 > MAX_BYTES) {
                return Err(usage(format!(
                    "{option}: {size} is more than a guest can have; the most is 1 GiB"
                )));
            }
        }
        if self.guest_mem.is_none() && self.delegated.is_none() {
            // The kernel's own defaults are for the kernel to refuse.
            return Ok(());
        }
        let bytes =
            self.guest_mem.map_or(MEMORY, |size| size.0) + self.delegated.map_or(DELEGATED, |size| size.0);
        check_fits(
            "the guest and what is saved of it",
            copies * bytes.div_ceil(PAGE),
            machine.memory(),
        )
    }

    /// What of it stands on the kernel's command line.
    pub fn add_to(&self, tokens: Tokens) -> Tokens {
        tokens
            .opt("guest-mem", self.guest_mem.map(|size| size.0))
            .opt("delegated", self.delegated.map(|size| size.0))
            .opt("mark-after", self.mark_after)
            .opt("guest-deadline", self.guest_deadline)
    }
}
