//! What comes from rustup: the bare-metal target, and the pinned nightly for disk images and Miri.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Need, Step};
use crate::process::CommandLine;

/// The target of the kernel image.
pub const BARE_METAL: &str = "x86_64-unknown-none";
/// The target of the programs that run on Linux and on Faultline: static, whatever the host's C library.
pub const LINUX: &str = "x86_64-unknown-linux-musl";
/// The one nightly toolchain in use; the image builder's `bootloader` crate and Miri need it.
pub const NIGHTLY: &str = "nightly-2026-10-01";

/// Whether the toolchain in use can build for `target`.
pub fn has_target(target: &str) -> bool {
    sysroot(&CommandLine::new("rustc"))
        .is_some_and(|root| root.join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Whether the pinned nightly is installed with all of `components`.
pub fn has_nightly(components: &[&str]) -> bool {
    let rustc = CommandLine::new("rustup").args(["run", NIGHTLY, "rustc"]);
    sysroot(&rustc).is_some_and(|root| components.iter().all(|component| holds(&root, component)))
}

/// Whether a component of the toolchain in use is there.
pub fn has_component(name: &str) -> bool {
    let program = if name == "clippy" { "clippy-driver" } else { name };
    let line = CommandLine::new(program).arg("--version");
    line.command()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn holds(root: &std::path::Path, component: &str) -> bool {
    match component {
        "rust-src" => root.join("lib/rustlib/src/rust/library/Cargo.lock").is_file(),
        "miri" => root.join("bin/cargo-miri").is_file(),
        // The tools lie in a folder named for the host; which one does not matter.
        "llvm-tools" => std::fs::read_dir(root.join("lib/rustlib")).is_ok_and(|dirs| {
            dirs.flatten()
                .any(|dir| dir.path().join("bin/llvm-objcopy").is_file())
        }),
        _ => false,
    }
}

fn sysroot(rustc: &CommandLine) -> Option<PathBuf> {
    let mut command: Command = rustc.command();
    let output = command
        .args(["--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

/// The rustup command that provides a need; `None` for what is no business of rustup.
pub fn step(need: Need) -> Option<Step> {
    let rustup = CommandLine::new("rustup");
    let command = match need {
        Need::BareMetalTarget => rustup.args(["target", "add", BARE_METAL]),
        Need::LinuxTarget => rustup.args(["target", "add", LINUX]),
        Need::ImageToolchain => nightly(rustup, &["rust-src", "llvm-tools"]),
        Need::Miri => nightly(rustup, &["rust-src", "miri"]),
        Need::Component(name) => rustup.args(["component", "add", name]),
        Need::Tool(_) => return None,
    };
    Some(Step {
        shown: command.to_string(),
        command,
        refresh: None,
    })
}

fn nightly(rustup: CommandLine, components: &[&str]) -> CommandLine {
    let line = rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
    components
        .iter()
        .fold(line, |line, component| line.args(["-c", component]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustup_commands_are_spelt_out() {
        let shown = |need| step(need).map(|step| step.shown);
        assert_eq!(
            shown(Need::BareMetalTarget).as_deref(),
            Some("rustup target add x86_64-unknown-none")
        );
        assert_eq!(
            shown(Need::ImageToolchain).as_deref(),
            Some("rustup toolchain install nightly-2026-10-01 --profile minimal -c rust-src -c llvm-tools")
        );
        assert_eq!(shown(Need::Tool(super::super::Tool::Qemu)), None);
    }

    #[test]
    fn a_sysroot_is_found_for_the_toolchain_in_use() {
        assert!(sysroot(&CommandLine::new("rustc")).is_some_and(|root| root.is_dir()));
        assert_eq!(sysroot(&CommandLine::new("faultline-no-such-program")), None);
    }
}
