//! The content of one of QEMU's URLs, read once for its digests.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::machine::Machine;
use crate::paths::folder;
use crate::process::CommandLine;
use crate::size::human;
use crate::status::usage;
use crate::ui::Ui;

/// A local copy of what a URL holds, made through QEMU itself and gone when dropped.
pub struct Fetched(PathBuf);

impl Fetched {
    /// Fetches it.
    ///
    /// # Errors
    /// A usage error when the URL cannot be read, or holds more than the machine's memory.
    pub fn new(url: &str, machine: &dyn Machine, unchecked: bool, ui: &mut Ui) -> anyhow::Result<Self> {
        let size = url_size(url)?;
        if size > machine.memory() && !unchecked {
            return Err(usage(format!(
                "--disk {url} has {} and the machine only {} of memory; give it more with --mem",
                human(size),
                human(machine.memory())
            )));
        }
        ui.note(&format!(
            "reading {url} once, for its digests ({}); --snapshot FILE avoids that",
            human(size)
        ));
        let copy = Self(folder("runs")?.join(format!("fetched-{}.raw", std::process::id())));
        qemu_img(&[
            "convert",
            "-f",
            "raw",
            "-O",
            "raw",
            url,
            &copy.0.to_string_lossy(),
        ])?;
        Ok(copy)
    }
}

impl Fetched {
    /// Where the copy is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // It may not exist, when fetching failed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn url_size(url: &str) -> anyhow::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Info {
        #[serde(rename = "virtual-size")]
        virtual_size: u64,
    }
    let output = qemu_img(&["info", "-f", "raw", "--output=json", url])?;
    let info: Info =
        serde_json::from_slice(&output).context("qemu-img's answer is not what it used to be")?;
    Ok(info.virtual_size)
}

fn qemu_img(args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let line = CommandLine::new("qemu-img").args(args);
    let output = line.command().output().context("cannot run qemu-img")?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(usage(format!(
        "--disk: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
