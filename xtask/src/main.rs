//! The command line of xtask: parses, runs one command, ends with its status.

use std::process::ExitCode;

use clap::Parser;
use xtask::cmd::Cli;
use xtask::status::Status;
use xtask::{interrupt, status};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = interrupt::install() {
        eprintln!("warning: Ctrl-C will not stop the emulator: {error}");
    }
    let status = match cli.run() {
        Ok(status) => status,
        Err(_) if interrupt::requested() => {
            eprintln!("interrupted");
            Status::Interrupted
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            status::of_error(&error)
        }
    };
    ExitCode::from(status.code())
}
