//! Set-up as part of the commands: what a command needs is looked for, and what is missing is installed.
//!
//! ```text
//!   Need ──present?──▶ yes: nothing happens, no network is touched
//!     │ no
//!     ▼
//!   Consent: Never (--no-install)      name the commands, end
//!            Given (root, CI, --yes)   run them
//!            Ask   (a person)          print them, ask, run them
//!            None  (nobody to ask)     name the commands, end
//! ```
//!
//! Rust targets and toolchains come from rustup and never need root; programs come from the system's package
//! manager ([`packages`]).

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;
use clap::Args;

use crate::process::CommandLine;

pub mod packages;
pub mod toolchain;

pub use packages::Tool;
use packages::{Manager, Privilege};

/// Something a command cannot do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// The bare-metal Rust target of the stable toolchain.
    BareMetalTarget,
    /// The Rust target of static Linux programs, for those in `tests/guest`.
    LinuxTarget,
    /// The pinned nightly with `rust-src` and `llvm-tools`, for disk images.
    ImageToolchain,
    /// Miri on the pinned nightly.
    Miri,
    /// A component of the stable toolchain: `rustfmt`, `clippy`.
    Component(&'static str),
    /// A program or firmware file of the system.
    Tool(Tool),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BareMetalTarget => write!(f, "the Rust target {}", toolchain::BARE_METAL),
            Self::LinuxTarget => write!(f, "the Rust target {}", toolchain::LINUX),
            Self::ImageToolchain => write!(f, "the toolchain {} (disk images only)", toolchain::NIGHTLY),
            Self::Miri => write!(f, "Miri on {}", toolchain::NIGHTLY),
            Self::Component(name) => write!(f, "the Rust component {name}"),
            Self::Tool(tool) => write!(f, "{tool}"),
        }
    }
}

impl Need {
    /// Whether it is there.
    pub fn is_present(self) -> bool {
        match self {
            Self::BareMetalTarget => toolchain::has_target(toolchain::BARE_METAL),
            Self::LinuxTarget => toolchain::has_target(toolchain::LINUX),
            Self::ImageToolchain => toolchain::has_nightly(&["rust-src", "llvm-tools"]),
            Self::Miri => toolchain::has_nightly(&["rust-src", "miri"]),
            Self::Component(name) => toolchain::has_component(name),
            Self::Tool(tool) => tool.is_present(),
        }
    }
}

/// What the user said about installing.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InstallOptions {
    /// Install missing targets and packages without asking
    #[arg(long, global = true, conflicts_with = "no_install", help_heading = "Set-up")]
    pub yes: bool,
    /// Install nothing; name what is missing and end with status 5
    #[arg(long, global = true, help_heading = "Set-up")]
    pub no_install: bool,
}

/// Whether something may be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consent {
    /// It may not.
    Never,
    /// It may.
    Given,
    /// A person can be asked.
    Ask,
    /// Nobody said so, and nobody can be asked.
    Absent,
}

/// Decides from what the user said and where we run.
pub const fn consent(options: InstallOptions, root: bool, ci: bool, terminal: bool) -> Consent {
    match () {
        () if options.no_install => Consent::Never,
        () if options.yes || root || ci => Consent::Given,
        () if terminal => Consent::Ask,
        () => Consent::Absent,
    }
}

/// Things that are missing and stay so, with the commands that would install them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// What is missing.
    pub needs: Vec<Need>,
    /// What to type; empty when no package manager is known.
    pub commands: Vec<String>,
    /// Why it was not done.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs: Vec<String> = self.needs.iter().map(Need::to_string).collect();
        write!(f, "missing: {} ({})", needs.join(", "), self.reason)?;
        if self.commands.is_empty() {
            return write!(f, "; install it with your system's package manager");
        }
        write!(f, "; install with")?;
        self.commands
            .iter()
            .try_for_each(|command| write!(f, "\n    {command}"))
    }
}

impl std::error::Error for Missing {}

/// Sees to it that everything in `needs` is there.
///
/// # Errors
/// [`Missing`] when something is not there and was not installed.
pub fn ensure(needs: &[Need], options: InstallOptions) -> anyhow::Result<()> {
    let missing = absent(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let (root, terminal) = (
        packages::is_root(),
        io::stdin().is_terminal() && io::stderr().is_terminal(),
    );
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    let steps = plan(&missing, Manager::detect(), Privilege::detect(root));
    let refuse = |reason: &str| Missing {
        needs: missing.clone(),
        commands: steps.iter().flatten().map(|step| step.shown.clone()).collect(),
        reason: reason.to_owned(),
    };
    let Some(steps) = &steps else {
        return Err(refuse("no package manager that xtask knows: apt-get, dnf, pacman, brew").into());
    };
    match consent(options, root, ci, terminal) {
        Consent::Never => return Err(refuse("--no-install was given").into()),
        Consent::Absent => return Err(refuse("not installed without --yes").into()),
        Consent::Ask if !ask(&missing, steps)? => return Err(refuse("declined").into()),
        Consent::Ask | Consent::Given => {}
    }
    for step in steps {
        step.run().with_context(|| refuse("the installation failed"))?;
    }
    let still = absent(needs);
    if still.is_empty() {
        return Ok(());
    }
    let commands = steps.iter().map(|step| step.shown.clone()).collect();
    Err(Missing {
        needs: still,
        commands,
        reason: "not found even after the installation".into(),
    }
    .into())
}

fn absent(needs: &[Need]) -> Vec<Need> {
    let mut missing: Vec<Need> = Vec::new();
    for need in needs {
        if !missing.contains(need) && !need.is_present() {
            missing.push(*need);
        }
    }
    missing
}

/// One thing to run, and a second try with a refreshed package list where that can help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The command as a person would type it.
    pub shown: String,
    /// What is run.
    pub command: CommandLine,
    /// What refreshes the package list before a second try.
    pub refresh: Option<CommandLine>,
}

impl Step {
    fn run(&self) -> anyhow::Result<()> {
        eprintln!("installing: {}", self.command);
        if succeeds(&self.command)? {
            return Ok(());
        }
        if let Some(refresh) = &self.refresh {
            eprintln!("again with a fresh package list: {refresh}");
            if succeeds(refresh)? && succeeds(&self.command)? {
                return Ok(());
            }
        }
        anyhow::bail!("failed: {}", self.command)
    }
}

fn succeeds(command: &CommandLine) -> anyhow::Result<bool> {
    use std::os::fd::AsFd;
    // Standard output may be someone's pipe with a result in it.
    let stderr = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot duplicate standard error")?;
    let status = command
        .command()
        .stdin(std::process::Stdio::null())
        .stdout(stderr)
        .status();
    Ok(status
        .with_context(|| format!("cannot run {}", command.program()))?
        .success())
}

/// The steps that install `missing`; `None` when packages are missing and no package manager is known.
fn plan(missing: &[Need], manager: Option<Manager>, privilege: Privilege) -> Option<Vec<Step>> {
    let mut steps: Vec<Step> = missing.iter().filter_map(|need| toolchain::step(*need)).collect();
    let tools: Vec<Tool> = missing
        .iter()
        .filter_map(|need| {
            if let Need::Tool(tool) = need {
                Some(*tool)
            } else {
                None
            }
        })
        .collect();
    if !tools.is_empty() {
        steps.push(manager?.step(&tools, privilege));
    }
    Some(steps)
}

fn ask(missing: &[Need], steps: &[Step]) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    for need in missing {
        writeln!(err, "missing: {need}")?;
    }
    for step in steps {
        writeln!(err, "    {}", step.shown)?;
    }
    write!(
        err,
        "Run {}? [Y/n] ",
        if steps.len() == 1 { "this" } else { "these" }
    )?;
    err.flush()?;
    let mut answer = String::new();
    let bytes = io::stdin().lock().read_line(&mut answer)?;
    Ok(bytes > 0 && matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: InstallOptions = InstallOptions {
        yes: false,
        no_install: false,
    };

    #[test]
    fn consent_follows_the_table() {
        let yes = InstallOptions { yes: true, ..SILENT };
        let no = InstallOptions {
            no_install: true,
            ..SILENT
        };
        assert_eq!(consent(no, true, true, true), Consent::Never);
        assert_eq!(consent(yes, false, false, false), Consent::Given);
        assert_eq!(consent(SILENT, true, false, false), Consent::Given);
        assert_eq!(consent(SILENT, false, true, false), Consent::Given);
        assert_eq!(consent(SILENT, false, false, true), Consent::Ask);
        assert_eq!(consent(SILENT, false, false, false), Consent::Absent);
    }

    #[test]
    fn what_is_there_is_not_installed() {
        assert!(
            ensure(
                &[],
                InstallOptions {
                    no_install: true,
                    yes: false
                }
            )
            .is_ok()
        );
    }

    #[test]
    fn packages_of_several_tools_make_one_step_and_rustup_its_own() {
        let missing = [
            Need::BareMetalTarget,
            Need::Tool(Tool::Qemu),
            Need::Tool(Tool::Ovmf),
        ];
        let steps = plan(&missing, Some(Manager::Apt), Privilege::Root).unwrap();
        let shown: Vec<&str> = steps.iter().map(|step| step.shown.as_str()).collect();
        assert_eq!(
            shown,
            [
                "rustup target add x86_64-unknown-none",
                "apt-get install -y qemu-system-x86 ovmf"
            ]
        );
    }

    #[test]
    fn without_a_package_manager_only_rustup_can_help() {
        assert_eq!(plan(&[Need::Tool(Tool::Qemu)], None, Privilege::Root), None);
        assert_eq!(
            plan(&[Need::BareMetalTarget], None, Privilege::Root).map(|steps| steps.len()),
            Some(1)
        );
    }

    #[test]
    fn the_refusal_names_the_exact_command() {
        let missing = Missing {
            needs: vec![Need::Tool(Tool::Qemu)],
            commands: vec!["sudo apt-get install -y qemu-system-x86".into()],
            reason: "--no-install was given".into(),
        };
        let text = missing.to_string();
        assert!(
            text.contains("QEMU") && text.contains("sudo apt-get install -y qemu-system-x86"),
            "{text}"
        );
    }
}
