//! `cargo xtask setup`: everything that any command needs, up front.

use crate::setup::{InstallOptions, Need, Tool, ensure};
use crate::status::Status;

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    install: InstallOptions,
}

/// All there is.
const EVERYTHING: [Need; 10] = [
    Need::BareMetalTarget,
    Need::LinuxTarget,
    Need::Component("rustfmt"),
    Need::Component("clippy"),
    Need::ImageToolchain,
    Need::Miri,
    Need::Tool(Tool::Qemu),
    Need::Tool(Tool::QemuImg),
    Need::Tool(Tool::Ovmf),
    Need::Tool(Tool::Bochs),
];

/// Installs what is missing and lists what is there.
///
/// # Errors
/// When something is missing and was not installed.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let result = ensure(&EVERYTHING, args.install);
    for need in EVERYTHING {
        println!(
            "{:8} {need}",
            if need.is_present() { "present" } else { "MISSING" }
        );
    }
    result.map(|()| Status::Success)
}
