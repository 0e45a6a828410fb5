//! Disk images for BIOS and UEFI machines, made by the image builder in `boot/image`.
//!
//! The builder is a program of its own workspace: the `bootloader` crate wants a nightly toolchain. It is compiled
//! once (about two minutes); after that an image takes well under a second and no network.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::elf::{Kernel, executable_of};
use crate::paths;
use crate::process::CommandLine;
use crate::setup::toolchain::NIGHTLY;

/// Which images to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outputs<'a> {
    /// For a BIOS.
    pub bios: Option<&'a Path>,
    /// For UEFI firmware.
    pub uefi: Option<&'a Path>,
}

/// Packs the kernel and a ramdisk file into images.
///
/// # Errors
/// When the builder does not compile, or an image cannot be written.
pub fn build(kernel: &Kernel, ramdisk: &Path, outputs: Outputs<'_>) -> anyhow::Result<()> {
    let builder = builder()?;
    let or_none = |path: Option<&Path>| path.unwrap_or(Path::new("-")).to_owned();
    let line = CommandLine::new(&builder)
        .args([&kernel.stripped()?, ramdisk])
        .args([or_none(outputs.bios), or_none(outputs.uefi)]);
    let output = line.command().stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", builder.display()))?;
    if !output.status.success() {
        bail!(
            "the image builder failed: {}\n{line}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Compiles the builder if it is not up to date.
fn builder() -> anyhow::Result<std::path::PathBuf> {
    let target = paths::target().join("image-builder");
    if !target.exists() {
        eprintln!("building the image builder with {NIGHTLY}, once; this takes about two minutes");
    }
    let manifest = paths::workspace().join("boot/image/Cargo.toml");
    let mut line = CommandLine::new("rustup").args(["run", NIGHTLY, "cargo", "build", "--locked"]);
    if target.exists() {
        line = line.arg("--quiet");
    }
    line = line
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target);
    executable_of(
        &clean(line.arg("--message-format=json-render-diagnostics")),
        "the image builder",
    )
}

/// Cargo tells the programs it starts about itself and its toolchain. The builder runs under another one, and its
/// dependencies start cargo again, so none of that may reach them.
fn clean(line: CommandLine) -> CommandLine {
    const STRANGERS: [&str; 8] = [
        "CARGO",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WORKSPACE_WRAPPER",
    ];
    STRANGERS.into_iter().fold(line, CommandLine::without_var)
}
