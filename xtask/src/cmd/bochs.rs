//! `cargo xtask bochs [OPTIONS] [APP [APP OPTIONS]]`

use crate::cmd::boot;
use crate::machine::bochs::{Bochs, Options};
use crate::status::Status;

/// The command's arguments.
pub type Args = boot::Args<Options>;

/// Boots in Bochs.
///
/// # Errors
/// When the machine could not be run at all.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    boot::execute(args, &Bochs::new(&args.machine), None)
}
