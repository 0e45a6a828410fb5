//! `cargo xtask test`: every test there is, rung by rung, in one listing with one summary.
//!
//! | rung | what runs |
//! | --- | --- |
//! | `lint` | formatting, clippy for host and bare metal, the documentation's links |
//! | `host` | `cargo test` of the workspace: no emulator |
//! | `loom` | the wait queue under every interleaving |
//! | `miri` | frames and raw memory under Miri |
//! | `kernel` | the tests inside the image, on every machine |
//! | `commands` | the commands themselves, with good and bad input |
//!
//! A rung that cannot run is skipped by name with its reason. The last line counts over all rungs.

use clap::ValueEnum;

use crate::elf::cargo;
use crate::machine::Machine;
use crate::machine::bochs::Bochs;
use crate::machine::qemu::{Door, Qemu};
use crate::process::CommandLine;
use crate::rungs::{Tally, run_counted};
use crate::setup::{self, InstallOptions, Need, Tool, toolchain};
use crate::status::Status;
use crate::{interrupt, paths};

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only these rungs
    #[arg(long, value_enum, value_name = "RUNG")]
    rung: Vec<Rung>,
    /// Only these machines, for the in-kernel tests
    #[arg(long, value_enum, value_name = "MACHINE")]
    machine: Vec<TestMachine>,
    #[command(flatten)]
    install: InstallOptions,
}

/// A kind of test.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// Formatting, clippy, documentation
    Lint,
    /// cargo test on the host
    Host,
    /// The wait queue under loom
    Loom,
    /// Frames and raw memory under Miri
    Miri,
    /// The tests inside the image, in emulators
    Kernel,
    /// The commands, end to end
    Commands,
}

/// A machine that in-kernel tests run on.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestMachine {
    /// QEMU, no loader
    QemuPvh,
    /// QEMU, disk image, BIOS
    QemuBios,
    /// QEMU, disk image, UEFI firmware
    QemuUefi,
    /// Bochs, disk image, BIOS
    Bochs,
}

impl TestMachine {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::QemuPvh, Self::QemuBios, Self::QemuUefi, Self::Bochs];

    /// The machine.
    pub fn machine(self) -> Box<dyn Machine + Send + Sync> {
        match self {
            Self::QemuPvh => Box::new(Qemu::for_tests(Door::Pvh)),
            Self::QemuBios => Box::new(Qemu::for_tests(Door::Bios)),
            Self::QemuUefi => Box::new(Qemu::for_tests(Door::Uefi)),
            Self::Bochs => Box::new(Bochs::for_tests()),
        }
    }
}

/// The variable that tells the in-kernel test program which machines to boot, by name, with commas.
pub const MACHINES_VAR: &str = "FAULTLINE_MACHINES";

/// Tests that Miri interprets: those in modules called `small`, which go through raw memory in few steps. The
/// properties beside them would take hours.
const MIRI_FILTER: &str = "small::";

/// Runs the tests.
///
/// # Errors
/// When cargo cannot be run.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let mut tally = Tally::default();
    for rung in Rung::value_variants() {
        if interrupt::requested() {
            return Ok(Status::Interrupted);
        }
        if args.rung.is_empty() || args.rung.contains(rung) {
            rung.run(args, &mut tally)?;
        }
    }
    if interrupt::requested() {
        return Ok(Status::Interrupted);
    }
    println!("\n{}", tally.summary());
    // A name that is misspelt must not look like tests that pass.
    if let Some(filter) = &args.filter
        && !tally.had_tests
    {
        eprintln!("error: no test that was looked at has {filter:?} in its name");
        return Ok(Status::Usage);
    }
    Ok(if tally.failed == 0 {
        Status::Success
    } else {
        Status::Failed
    })
}

impl Rung {
    fn run(self, args: &Args, tally: &mut Tally) -> anyhow::Result<()> {
        let filter = args.filter.as_deref();
        // With a filter these three are run only when they are asked for by name: it cannot select in them.
        if filter.is_some()
            && !args.rung.contains(&self)
            && matches!(self, Self::Lint | Self::Loom | Self::Miri)
        {
            tally.skip(self.name(), "a filter was given; ask for it with --rung");
            return Ok(());
        }
        if self == Self::Kernel {
            return kernel(args, tally);
        }
        if let Err(error) = setup::ensure(&self.needs(), args.install) {
            tally.skip(self.name(), &format!("{error:#}"));
            return Ok(());
        }
        for (name, line) in self.lines(filter) {
            println!("\n== {name}: {line}");
            if self == Self::Lint {
                tally.check(&name, &line)?;
            } else {
                tally.add(&name, run_counted(&line)?);
            }
        }
        Ok(())
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Host => "host",
            Self::Loom => "loom",
            Self::Miri => "miri",
            Self::Kernel => "kernel",
            Self::Commands => "commands",
        }
    }

    fn needs(self) -> Vec<Need> {
        match self {
            Self::Lint => vec![
                Need::Component("rustfmt"),
                Need::Component("clippy"),
                Need::BareMetalTarget,
            ],
            Self::Miri => vec![Need::Miri],
            Self::Commands => {
                let mut needs = machine_needs(&TestMachine::ALL);
                needs.push(Need::Tool(Tool::QemuImg));
                needs.push(Need::LinuxTarget);
                needs
            }
            Self::Host | Self::Loom | Self::Kernel => vec![],
        }
    }

    fn lines(self, filter: Option<&str>) -> Vec<(String, CommandLine)> {
        let filtered = |line: CommandLine| {
            filter
                .iter()
                .fold(line, |line, filter| line.arg("--").arg(filter))
        };
        let one = |line| vec![(self.name().to_owned(), line)];
        match self {
            Self::Lint => lints(),
            Self::Host => one(filtered(cargo().arg("test"))),
            Self::Loom => one(cargo()
                .args([
                    "test",
                    "--package",
                    "faultline-kernel",
                    "--lib",
                    "--release",
                    "--target-dir",
                ])
                .arg(paths::target().join("loom"))
                .args(["--", "loom"])
                .var("RUSTFLAGS", "--cfg loom")),
            Self::Miri => one(CommandLine::new("rustup")
                .args([
                    "run",
                    toolchain::NIGHTLY,
                    "cargo",
                    "miri",
                    "test",
                    "--package",
                    "faultline-kernel",
                    "--lib",
                ])
                .arg("--target-dir")
                .arg(paths::target().join("miri"))
                .args(["--", MIRI_FILTER])
                .without_var("CARGO")
                .without_var("RUSTUP_TOOLCHAIN")),
            Self::Commands => one(filtered(cargo().args([
                "test",
                "--package",
                "faultline-tests",
                "--test",
                "commands",
            ]))),
            Self::Kernel => vec![],
        }
    }
}

fn lints() -> Vec<(String, CommandLine)> {
    let deny = ["--", "--deny", "warnings"];
    let image = paths::workspace().join("boot/image/Cargo.toml");
    let lines = [
        ("format", cargo().args(["fmt", "--all", "--check"])),
        (
            "format-image-builder",
            cargo().args(["fmt", "--check", "--manifest-path"]).arg(image),
        ),
        (
            "clippy-host",
            cargo()
                .args(["clippy", "--workspace", "--all-targets"])
                .args(deny),
        ),
        (
            "clippy-bare-metal",
            cargo()
                .args([
                    "clippy",
                    "--package",
                    "faultline-boot",
                    "--package",
                    "faultline-guest",
                    "--target",
                    toolchain::BARE_METAL,
                ])
                .args(deny),
        ),
        (
            "documentation",
            cargo()
                .args([
                    "doc",
                    "--no-deps",
                    "--package",
                    "faultline-kernel",
                    "--package",
                    "faultline-hv",
                ])
                .args(["--package", "xtask", "--document-private-items"])
                .var(
                    "RUSTDOCFLAGS",
                    "--deny warnings --allow rustdoc::private_intra_doc_links",
                ),
        ),
    ];
    lines
        .into_iter()
        .map(|(name, line)| (format!("lint::{name}"), line))
        .collect()
}

fn machine_needs(machines: &[TestMachine]) -> Vec<Need> {
    machines
        .iter()
        .flat_map(|machine| machine.machine().needs())
        .collect()
}

/// The in-kernel tests: each machine that lacks something is skipped by itself.
fn kernel(args: &Args, tally: &mut Tally) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for machine in TestMachine::ALL {
        if !args.machine.is_empty() && !args.machine.contains(&machine) {
            continue;
        }
        let name = machine.machine().name();
        match setup::ensure(&machine_needs(&[machine]), args.install) {
            Ok(()) => names.push(name),
            Err(error) => tally.skip(&format!("kernel on {name}"), &format!("{error:#}")),
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let line = cargo()
        .args(["test", "--package", "faultline-tests", "--test", "kernel"])
        .var(MACHINES_VAR, names.join(","));
    let line = args
        .filter
        .iter()
        .fold(line, |line, filter| line.arg("--").arg(filter));
    println!("\n== kernel: {line}");
    tally.add("kernel", run_counted(&line)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_on_the_command_line_as_in_the_listing() {
        for machine in TestMachine::ALL {
            let value = machine.to_possible_value().unwrap();
            assert_eq!(value.get_name(), machine.machine().name());
        }
    }

    #[test]
    fn only_the_plain_machine_does_without_the_nightly() {
        for machine in TestMachine::ALL {
            let nightly = machine_needs(&[machine]).contains(&Need::ImageToolchain);
            assert_eq!(nightly, machine != TestMachine::QemuPvh);
        }
    }
}
