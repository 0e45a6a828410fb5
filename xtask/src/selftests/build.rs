//! The test programs, built by Linux's own makefile, static.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;

use super::source::{Source, step};
use crate::process::CommandLine;

/// The test programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// `uffd-unit-tests`.
    pub unit: PathBuf,
    /// `uffd-stress`.
    pub stress: PathBuf,
    /// The names of the unit tests.
    pub names: Vec<String>,
}

impl Programs {
    /// Builds them below `home` unless they are up to date.
    ///
    /// # Errors
    /// They do not build, or do not list their tests.
    pub fn build(source: &Source, home: &Path) -> anyhow::Result<Self> {
        let out = home.join("bin");
        std::fs::create_dir_all(&out).with_context(|| format!("cannot write {}", out.display()))?;
        let (unit, stress) = (out.join("uffd-unit-tests"), out.join("uffd-stress"));
        let include = source.headers.join("usr/include");
        let line = CommandLine::new("make")
            .args(["-s", "-C"])
            .arg(source.tree.join("tools/testing/selftests/mm"))
            .arg(format!("OUTPUT={}", out.display()))
            .arg(format!("KHDR_INCLUDES=-isystem {}", include.display()))
            .arg("EXTRA_CFLAGS=-static")
            .args([&unit, &stress]);
        step(line, home)
            .context("Linux's selftests do not build; they need gcc, make and a static C library")?;
        let names = names(&unit)?;
        Ok(Self { unit, stress, names })
    }
}

fn names(unit: &Path) -> anyhow::Result<Vec<String>> {
    let output = CommandLine::new(unit)
        .arg("-l")
        .command()
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", unit.display()))?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    anyhow::ensure!(!names.is_empty(), "{} lists no tests", unit.display());
    Ok(names)
}
