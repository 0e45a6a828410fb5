//! What can be said about a QEMU machine on the command line.

use clap::{Args, ValueEnum};

use crate::job::Location;
use crate::size::MemSize;

/// Options of a QEMU machine.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// What it is made of.
    #[command(flatten)]
    pub hardware: Hardware,
    /// Boot a disk image with UEFI firmware
    #[arg(long, global = true, conflicts_with = "bios", help_heading = "Machine")]
    pub uefi: bool,
    /// Boot a disk image with a BIOS
    #[arg(long, global = true, help_heading = "Machine")]
    pub bios: bool,
    /// Disk to attach read-only: a file, or one of QEMU's URLs (nbd://, rbd:, http://)
    #[arg(long, value_name = "FILE-or-URL", global = true, help_heading = "Machine")]
    pub disk: Option<Location>,
}

/// What a QEMU machine is made of.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Hardware {
    /// How instructions are executed
    #[arg(long, value_enum, default_value_t = Accel::Tcg, global = true, help_heading = "Machine")]
    pub accel: Accel,
    /// QEMU's CPU model; default: EPYC under tcg, host under kvm
    #[arg(long, value_name = "MODEL", global = true, help_heading = "Machine")]
    pub cpu: Option<String>,
    /// Number of CPUs (the kernel uses the first)
    #[arg(long, value_name = "N", default_value_t = 1, global = true, help_heading = "Machine",
          value_parser = clap::value_parser!(u32).range(1..=255))]
    pub smp: u32,
    /// Memory: MiB, or with a suffix K, M, G
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "512",
        global = true,
        value_parser = MemSize::of_machine,
        help_heading = "Machine"
    )]
    pub mem: MemSize,
    /// Count instructions, one clock tick each (tcg only); without a disk the same on every run
    #[arg(long, global = true, help_heading = "Machine")]
    pub icount: bool,
    /// Wait for a debugger; prints the line that attaches one
    #[arg(long, global = true, help_heading = "Machine")]
    pub gdb: bool,
}

/// `--accel`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accel {
    /// Emulation: works everywhere, deterministic with --icount
    Tcg,
    /// The hardware, through Linux's KVM
    Kvm,
    /// KVM where this user may use it, else TCG
    Auto,
}
