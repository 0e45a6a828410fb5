//! What cargo builds for bare metal: the kernel's ELF, with a copy without debug sections for disk images, and the built-in
//! guest's.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use serde::Deserialize;

use crate::process::CommandLine;
use crate::setup::toolchain::BARE_METAL;
use crate::{interrupt, paths};

/// Something did not compile; the compiler has said why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildError {
    /// What was being built.
    pub what: &'static str,
    /// The command that failed.
    pub command: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} did not build; the command was: {}",
            self.what, self.command
        )
    }
}

impl std::error::Error for BuildError {}

/// The part of cargo's messages that names what was built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    message: Option<Diagnostic>,
}

/// What the compiler says, where cargo does not print it itself.
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

/// What is heard of a build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    /// Cargo's progress, warnings, errors.
    All,
    /// Errors.
    Errors,
}

/// The kernel image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The ELF with its debug sections.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

impl Kernel {
    /// Builds the kernel if it is not up to date.
    ///
    /// # Errors
    /// [`BuildError`] when it does not compile.
    pub fn build() -> anyhow::Result<Self> {
        Self::build_with(Heard::All)
    }

    /// [`build`](Self::build) of which nothing is heard unless it fails.
    ///
    /// # Errors
    /// As there.
    pub fn build_quietly() -> anyhow::Result<Self> {
        Self::build_with(Heard::Errors)
    }

    fn build_with(heard: Heard) -> anyhow::Result<Self> {
        let path = build("faultline-boot", "the kernel", heard)?;
        let size = path
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        Ok(Self { path, size })
    }

    /// A copy without debug sections: BIOS loaders read the whole file in real mode, slowly.
    ///
    /// # Errors
    /// When the ELF cannot be read or the copy not be written.
    pub fn stripped(&self) -> anyhow::Result<PathBuf> {
        let out = self.path.with_extension("stripped");
        let data =
            std::fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let stripped = strip(&data).with_context(|| format!("cannot strip {}", self.path.display()))?;
        write_if_changed(&out, &stripped)?;
        Ok(out)
    }
}

/// The built-in guest, built if it is not up to date, without debug sections: it travels in ramdisks.
///
/// # Errors
/// [`BuildError`] when it does not compile; and when it cannot be read.
pub fn built_in_guest() -> anyhow::Result<Vec<u8>> {
    let path = build("faultline-guest", "the built-in guest", Heard::All)?;
    let data = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    strip(&data).with_context(|| format!("cannot strip {}", path.display()))
}

/// Builds the program of `package` for bare metal.
fn build(package: &str, what: &'static str, heard: Heard) -> anyhow::Result<PathBuf> {
    let options: &[&str] = match heard {
        Heard::All => &["--message-format=json-render-diagnostics"],
        Heard::Errors => &["--quiet", "--message-format=json"],
    };
    let line = cargo()
        .args(["build", "--package", package, "--profile", "kernel"])
        .args(["--target", BARE_METAL])
        .args(options);
    executable_of(&line, what)
}

/// Leaves a file that already has this content alone, so that what was made from it stays up to date.
fn write_if_changed(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Drops the sections that only debuggers read; segments stay as they are.
fn strip(data: &[u8]) -> object::build::Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(data)?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug");
    }
    builder.delete_orphans();
    let mut out = Vec::new();
    builder.write(&mut out)?;
    Ok(out)
}

/// `cargo`: rustup's, which keeps to the toolchain that runs us.
pub fn cargo() -> CommandLine {
    CommandLine::new("cargo")
}

/// Runs a cargo build that prints JSON messages; returns the executable it names. Errors that cargo leaves to us are printed.
pub fn executable_of(line: &CommandLine, what: &'static str) -> anyhow::Result<PathBuf> {
    let failure = || BuildError {
        what,
        command: line.to_string(),
    };
    let mut child = line
        .command()
        .current_dir(paths::workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", line.program()))?;
    let (mut executable, mut errors) = (None, Vec::new());
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).lines() {
            let text = text.context("cannot read cargo's messages")?;
            match serde_json::from_str::<Message>(&text) {
                Ok(message) if message.reason == "compiler-artifact" => {
                    executable = message.executable.or(executable);
                }
                Ok(Message {
                    message: Some(said), ..
                }) if said.level == "error" => errors.extend(said.rendered),
                _ => {}
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", line.program()))?;
    if interrupt::requested() {
        anyhow::bail!("interrupted while {what} was being built");
    }
    match executable {
        Some(path) if status.success() => Ok(path),
        _ => {
            errors.iter().for_each(|error| eprint!("{error}"));
            Err(failure().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection};

    use super::*;

    #[test]
    fn stripping_drops_debug_sections_and_keeps_the_segments() {
        let path = std::env::current_exe().unwrap();
        let data = std::fs::read(&path).unwrap();
        let stripped = strip(&data).unwrap();
        let (before, after) = (
            object::File::parse(&*data).unwrap(),
            object::File::parse(&*stripped).unwrap(),
        );
        assert!(
            before
                .sections()
                .any(|section| section.name().is_ok_and(|name| name.starts_with(".debug")))
        );
        assert!(
            !after
                .sections()
                .any(|section| section.name().is_ok_and(|name| name.starts_with(".debug")))
        );
        assert_eq!(before.entry(), after.entry());
        let text = |file: &object::File<'_>| file.section_by_name(".text").unwrap().data().unwrap().to_vec();
        assert_eq!(text(&before), text(&after));
    }
}
