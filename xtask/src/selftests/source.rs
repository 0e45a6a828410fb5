//! Linux's source, as far as its selftests need it.
//!
//! The package is asked for by name: first where this system's packages come from, then there again in the release of Debian that
//! has it, with package lists of our own, so that nothing of the system changes. apt checks signatures in both cases. Only the
//! folders that matter are unpacked, and the user-space headers are made from them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;

use crate::interrupt;
use crate::process::CommandLine;
use crate::ui::Ui;

/// Debian's package.
pub const PACKAGE: &str = "linux-source-6.12";
/// A release of Debian that has it.
const RELEASE: &str = "trixie";
/// Debian's signing keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What is unpacked.
const FOLDERS: [&str; 9] = [
    "Makefile",
    "Kbuild",
    "Kconfig",
    "scripts",
    "include/uapi",
    "include/asm-generic",
    "arch/x86",
    "tools",
    "mm/gup_test.h",
];

/// A tree of Linux, and where its user-space headers are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The tree.
    pub tree: PathBuf,
    /// The folder that has `usr/include`.
    pub headers: PathBuf,
    /// What it is, for people.
    pub name: String,
}

impl Source {
    /// Debian's package in `cache`, fetched unless it is there.
    ///
    /// # Errors
    /// A sentence that says what is missing or has failed.
    pub fn of_package(cache: &Path, ui: &Ui) -> anyhow::Result<Self> {
        let home = cache.join(PACKAGE);
        let source = Self {
            tree: home.join("tree"),
            headers: home.join("headers"),
            name: PACKAGE.to_owned(),
        };
        let complete = home.join("complete");
        if complete.is_file() {
            return Ok(source);
        }
        for program in ["apt-get", "dpkg-deb", "tar", "xz", "make"] {
            anyhow::ensure!(
                crate::process::which(program).is_some(),
                "{program} is not on this machine; with a tree of Linux at hand, --source takes it"
            );
        }
        // What an earlier attempt has left is of no use.
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("cannot empty {}", home.display()))?;
        }
        fs::create_dir_all(&source.tree).with_context(|| format!("cannot write {}", home.display()))?;
        ui.note(&format!("fetching {PACKAGE} (150 MB) into {}", home.display()));
        let package = download(&home)?;
        ui.note("unpacking");
        let raw = home.join("raw");
        step(
            CommandLine::new("dpkg-deb").arg("-x").arg(&package).arg(&raw),
            &home,
        )?;
        let archive = raw.join(format!("usr/src/{PACKAGE}.tar.xz"));
        let members = FOLDERS.map(|folder| format!("{PACKAGE}/{folder}"));
        step(
            CommandLine::new("tar")
                .arg("-xJf")
                .arg(&archive)
                .args(["--strip-components=1", "-C"])
                .arg(&source.tree)
                .args(members),
            &home,
        )?;
        // Three hundred megabytes that nobody needs any more.
        fs::remove_dir_all(&raw).with_context(|| format!("cannot remove {}", raw.display()))?;
        fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))?;
        source.make_headers(&home, ui)?;
        File::create(&complete).with_context(|| format!("cannot write {}", complete.display()))?;
        Ok(source)
    }

    /// A tree that the user has.
    ///
    /// # Errors
    /// It is none, or its headers cannot be made.
    pub fn of_tree(tree: &Path, cache: &Path, ui: &Ui) -> anyhow::Result<Self> {
        let tree = std::path::absolute(tree)?;
        let tests = tree.join("tools/testing/selftests/mm/uffd-unit-tests.c");
        if !tests.is_file() {
            return Err(crate::status::usage(format!(
                "--source {}: no tree of Linux 6.4 or later; {} is not there",
                tree.display(),
                tests.display()
            )));
        }
        let home = cache.join("own-tree");
        fs::create_dir_all(&home).with_context(|| format!("cannot write {}", home.display()))?;
        let source = Self {
            headers: home.join("headers"),
            name: tree.display().to_string(),
            tree,
        };
        source.make_headers(&home, ui)?;
        Ok(source)
    }

    fn make_headers(&self, home: &Path, ui: &Ui) -> anyhow::Result<()> {
        ui.note("making Linux's user-space headers");
        fs::create_dir_all(&self.headers)
            .with_context(|| format!("cannot write {}", self.headers.display()))?;
        let line = CommandLine::new("make")
            .args(["-s", "-C"])
            .arg(&self.tree)
            .arg(format!("O={}", self.headers.display()))
            .arg("headers");
        step(line, home)
    }
}

/// Has apt bring the package into `home`; returns the file.
fn download(home: &Path) -> anyhow::Result<PathBuf> {
    if step(CommandLine::new("apt-get").args(["download", PACKAGE]), home).is_err() {
        let sites = sites()?;
        let tried = sites.iter().any(|site| {
            !interrupt::requested()
                && fetch_lists(site, home)
                    .is_ok_and(|apt| step(apt.args(["download", PACKAGE]), home).is_ok())
        });
        anyhow::ensure!(
            tried,
            "{PACKAGE} cannot be had from {}; see {}",
            sites.join(", "),
            home.join("log").display()
        );
    }
    let entries = fs::read_dir(home).with_context(|| format!("cannot read {}", home.display()))?;
    let package = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.context("apt-get said that it fetched the package, and it is not there")
}

/// Where this system's packages come from.
fn sites() -> anyhow::Result<Vec<String>> {
    let output = CommandLine::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        .command()
        .stderr(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    let mut sites: Vec<String> = Vec::new();
    for site in String::from_utf8_lossy(&output.stdout).lines() {
        if !sites.iter().any(|known| known == site) {
            sites.push(site.to_owned());
        }
    }
    anyhow::ensure!(
        !sites.is_empty(),
        "apt-get knows of no place that packages come from"
    );
    Ok(sites)
}

/// Fetches the lists of [`RELEASE`] at `site` into `home`; returns an apt-get that looks there and nowhere else.
fn fetch_lists(site: &str, home: &Path) -> anyhow::Result<CommandLine> {
    let apt = home.join("apt");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder)).with_context(|| format!("cannot write {}", apt.display()))?;
    }
    let sources = apt.join("sources.list");
    let signed = if Path::new(KEYRING).is_file() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    fs::write(&sources, format!("deb {signed}{site} {RELEASE} main\n"))
        .with_context(|| format!("cannot write {}", sources.display()))?;
    let option = |name: &str, value: &Path| ["-o".to_owned(), format!("{name}={}", value.display())];
    let line = CommandLine::new("apt-get")
        .args(option("Dir::Etc::sourcelist", &sources))
        .args(option("Dir::Etc::sourceparts", Path::new("/dev/null")))
        .args(option("Dir::State::lists", &apt.join("lists")))
        .args(option("Dir::Cache", &apt.join("cache")))
        .args(["-o", "Acquire::Languages=none"]);
    step(line.clone().args(["--error-on=any", "update"]), home)?;
    Ok(line)
}

/// Runs a command in `home`; what it says goes to `home`'s log, and the end of that into the error.
///
/// # Errors
/// It cannot be run, or fails.
pub fn step(line: CommandLine, home: &Path) -> anyhow::Result<()> {
    let path = home.join("log");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let status = line
        .command()
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {}", line.program()))?;
    anyhow::ensure!(!interrupt::requested(), "interrupted");
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(10)..].join("\n  ");
    anyhow::bail!("failed: {line}\n  {end}")
}
