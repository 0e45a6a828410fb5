//! `cargo xtask bochs [OPTIONS] [APP [APP OPTIONS]]`

use crate::app::{App, RestoreArgs};
use crate::cmd::boot;
use crate::machine::bochs::{Bochs, Options};
use crate::status::{HELP, Status};

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = HELP, subcommand_value_name = "APP", subcommand_help_heading = "Applications")]
pub struct Args {
    #[command(flatten)]
    machine: Options,
    #[command(flatten)]
    run: boot::Options,
    #[command(subcommand)]
    app: Option<App>,
}

/// Boots in Bochs.
///
/// # Errors
/// When the machine could not be run at all.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let machine = Bochs::new(&args.machine);
    let default = App::Restore(RestoreArgs::default());
    boot::execute(args.app.as_ref().unwrap_or(&default), &machine, None, &args.run)
}
