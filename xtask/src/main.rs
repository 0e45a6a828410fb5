//! The command line of xtask: parses, runs one command, ends with its status.

use std::process::ExitCode;

use clap::Parser;
use xtask::cmd::{self, Cli};
use xtask::status::Status;
use xtask::{interrupt, status};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(cmd::status_of_usage(&error, std::env::args().nth(1).as_deref()));
        }
    };
    if let Err(error) = interrupt::install() {
        eprintln!("warning: Ctrl-C will not stop the emulator: {error}");
    }
    let code = match cli.run() {
        Ok(code) => code,
        Err(_) if interrupt::requested() => {
            eprintln!("interrupted");
            Status::Interrupted.code()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            status::of_error(&error).code()
        }
    };
    ExitCode::from(code)
}
