//! The commands, a file each.

use clap::{Parser, Subcommand};

use crate::program::Ending;
use crate::status::{HELP, Status};

pub mod bochs;
pub mod boot;
pub mod diff;
pub mod image;
pub mod qemu;
pub mod run;

pub mod selftests;
pub mod setup;
pub mod test;

/// Builds, runs and tests Faultline
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Boot in QEMU and run an application; default: restore, on the kernel's own ELF image
    Qemu(qemu::Args),
    /// Boot in Bochs and run an application; default: restore, from the ramdisk
    Bochs(bochs::Args),
    /// Run a Linux program
    Run(run::Args),
    /// Leave disk images for real machines
    Image(image::Args),
    /// Run programs here and on Faultline, and compare what they print
    Diff(diff::Args),
    /// Run Linux's own tests of userfaultfd here and on Faultline
    Selftests(selftests::Args),
    /// Run every test there is
    Test(test::Args),
    /// Install everything that any command needs, up front
    Setup(setup::Args),
}

impl Cli {
    /// Runs the command; returns what xtask ends with.
    ///
    /// # Errors
    /// What [`crate::status::of_error`] turns into a status.
    pub fn run(self) -> anyhow::Result<u8> {
        let status = match self.command {
            // Its statuses are the program's.
            Command::Run(args) => return Ok(run::run(&args)),
            Command::Qemu(args) => qemu::run(&args),
            Command::Bochs(args) => bochs::run(&args),
            Command::Image(args) => image::run(&args),
            Command::Diff(args) => diff::run(&args),
            Command::Selftests(args) => selftests::run(&args),
            Command::Test(args) => test::run(&args),
            Command::Setup(args) => setup::run(&args),
        };
        status.map(Status::code)
    }
}

/// The exit status for a command line that was not understood, or that asked for help. `run` keeps 2 for its program.
pub fn status_of_usage(error: &clap::Error, command: Option<&str>) -> u8 {
    match error.exit_code() {
        0 => Status::Success.code(),
        _ if command == Some("run") => Ending::Failed(String::new()).code(),
        _ => Status::Usage.code(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_after_the_application() {
        for line in [
            "xtask qemu",
            "xtask qemu --mem 1G restore --order random --seed 3",
            "xtask qemu restore --order random --mem 1G --icount",
            "xtask qemu cost --icount --pages 100 --json --timeout 9",
            "xtask bochs restore --snapshot x",
            "xtask bochs guest-restore --delivery ve --guest x --mark-after 5",
            "xtask qemu guest-snapshot --guest-mem 16M --after-mark 5 --mem 1G",
            "xtask run --icount --mem 1G --file a:/b --file c --env K=V --libs --timeout 9 ./prog --icount -x --",
            "xtask run -- ./prog",
            "xtask selftests --json --icount move",
            "xtask image cost",
            "xtask test uffd::copy --rung kernel --machine bochs",
            "xtask setup --yes",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn unknown_words_are_wrong_usage() {
        for (line, kind) in [
            ("xtask", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("xtask qeum", ErrorKind::InvalidSubcommand),
            ("xtask qemu restroe", ErrorKind::InvalidSubcommand),
            ("xtask qemu restore --snapshto x", ErrorKind::UnknownArgument),
            ("xtask qemu cost --snapshot x", ErrorKind::UnknownArgument),
            ("xtask qemu cost --pages many", ErrorKind::ValueValidation),
            ("xtask qemu restore --source tape", ErrorKind::InvalidValue),
            (
                "xtask qemu guest-restore --delivery post",
                ErrorKind::InvalidValue,
            ),
            (
                "xtask qemu guest-snapshot --after-mark 1 --mark-after 2",
                ErrorKind::ArgumentConflict,
            ),
            ("xtask run --timeout 0 x", ErrorKind::ValueValidation),
            ("xtask run --snapshot x", ErrorKind::UnknownArgument),
            ("xtask setup --yes --no-install", ErrorKind::ArgumentConflict),
            ("xtask test --rung moon", ErrorKind::InvalidValue),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), i32::from(Status::Usage.code()), "{line}");
        }
    }
}
