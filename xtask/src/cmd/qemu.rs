//! `cargo xtask qemu [OPTIONS] [APP [APP OPTIONS]]`

use crate::cmd::boot;
use crate::machine::qemu::{Options, Qemu};
use crate::status::Status;

/// The command's arguments.
pub type Args = boot::Args<Options>;

/// Boots in QEMU.
///
/// # Errors
/// When the machine could not be run at all.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    boot::execute(args, &Qemu::new(&args.machine)?, args.machine.disk.clone())
}
