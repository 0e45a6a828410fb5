//! A job: everything a machine needs to run one application, prepared on the host before any emulator starts.
//!
//! | part | PVH | disk image |
//! | --- | --- | --- |
//! | command line | `-append` | ramdisk entry `cmdline` |
//! | ramdisk (`digests`, `guest`, `guest-cmdline`, `order`, `snapshot`) | `-initrd` | in the image |
//! | snapshot | virtio disk, or ramdisk entry `snapshot` | the same |
//!
//! A job of a Linux program has its file system as the ramdisk ([`crate::program`]).

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;

use crate::app::{App, FromFile, Guest, Origin, SnapshotFile, Source, Tokens};
use crate::cpio::Archive;
use crate::elf::{Kernel, built_in_guest};
use crate::fetch::Fetched;
use crate::machine::Machine;
use crate::order;
use crate::paths::{RunDir, shown};
use crate::program::streams::Paths;
use crate::size::{PAGE, check_fits, human};
use crate::snapshot::Snapshot;
use crate::status::usage;
use crate::ui::Ui;

/// What to run, and on what.
#[derive(Debug)]
pub struct Job {
    /// The application's name.
    pub name: String,
    /// The kernel image.
    pub kernel: Kernel,
    /// The kernel's command line.
    pub cmdline: String,
    /// The ramdisk's entries, without `cmdline`.
    pub ramdisk: Archive,
    /// The disk to attach.
    pub disk: Option<Disk>,
    /// Whether a success without a report would be no success.
    pub wants_report: bool,
    /// The file that is restored, to see whether it changed under us.
    pub snapshot: Option<Snapshot>,
    /// Where the streams of a program are connected to.
    pub stdio: Option<Paths>,
}

/// A disk, read-only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Where its bytes are.
    pub location: Location,
    /// A sector that cannot be read.
    pub inject_error: Option<u64>,
}

/// Where a disk's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A file of this machine.
    File(PathBuf),
    /// One of QEMU's URLs: `nbd://host/export`, `rbd:pool/image`, `http://host/file`.
    Url(String),
}

impl FromStr for Location {
    type Err = std::convert::Infallible;

    /// A URL begins with a scheme and a colon; a scheme has at least two characters and no slash (RFC 3986, 3.1).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_scheme = scheme.len() > 1
            && scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
        Ok(if is_scheme && !Path::new(text).exists() {
            Self::Url(text.to_owned())
        } else {
            Self::File(text.into())
        })
    }
}

/// Checks that can be done before anything is built: a wrong snapshot shall not cost a compilation.
///
/// # Errors
/// What is wrong with the snapshot, the order file, a size, or the combination of options.
pub fn check(app: &App, machine: &dyn Machine, disk: Option<&Location>) -> anyhow::Result<()> {
    if let Some(Location::File(path)) = disk {
        Snapshot::open(path).context("--disk")?;
    }
    match app.from_file() {
        Some(from) => check_file(from, machine, disk),
        None => app.check(machine),
    }
}

fn check_file(from: FromFile<'_>, machine: &dyn Machine, disk: Option<&Location>) -> anyhow::Result<()> {
    let file = from.file;
    let source = source(file, machine)?;
    if source == Source::Ramdisk && (file.inject_error.is_some() || disk.is_some()) {
        return Err(usage("--disk and --inject-error need --source virtio"));
    }
    for path in file.digests_from.iter().chain(&file.snapshot) {
        Snapshot::open(path)?;
    }
    let local = file.snapshot.as_ref().or(match disk {
        Some(Location::File(path)) => Some(path),
        _ => None,
    });
    if let Some(path) = local {
        let snapshot = Snapshot::open(path)?;
        check_snapshot(from, &snapshot, source, machine)?;
    }
    Ok(())
}

fn check_snapshot(
    from: FromFile<'_>,
    snapshot: &Snapshot,
    source: Source,
    machine: &dyn Machine,
) -> anyhow::Result<()> {
    let pages = snapshot.pages();
    if !from.file.no_memory_check {
        let in_ramdisk = if source == Source::Ramdisk {
            snapshot.size
        } else {
            0
        };
        snapshot.check_fits(machine.memory(), in_ramdisk + pages * 16)?;
        let all = pages + from.pages_beside(pages);
        check_fits(
            "the snapshot's pages and those that the clones change",
            all,
            machine.memory(),
        )?;
    }
    order::entry(from.order, pages)?;
    match from.touch {
        Some(touch) if touch > pages => {
            Err(usage(format!("--touch {touch}: the snapshot has {pages} pages")))
        }
        _ => Ok(()),
    }
}

fn source(file: &SnapshotFile, machine: &dyn Machine) -> anyhow::Result<Source> {
    match file.source {
        Some(Source::Virtio) if !machine.has_disk() => Err(usage(format!(
            "{} has no virtio disk; use --source ramdisk",
            machine.name()
        ))),
        Some(source) => Ok(source),
        None if machine.has_disk() => Ok(Source::Virtio),
        None => Ok(Source::Ramdisk),
    }
}

impl Job {
    /// Prepares `app` for `machine`.
    ///
    /// # Errors
    /// As [`check`]; and when a file cannot be read, or the built-in guest does not compile.
    pub fn new(
        app: &App,
        machine: &dyn Machine,
        kernel: Kernel,
        disk: Option<Location>,
        ui: &mut Ui,
    ) -> anyhow::Result<Self> {
        let mut job = Self {
            name: app.name().to_owned(),
            kernel,
            cmdline: String::new(),
            ramdisk: Archive::new(),
            disk: disk.map(|location| Disk {
                location,
                inject_error: None,
            }),
            wants_report: app.reports(),
            snapshot: None,
            stdio: None,
        };
        let tokens = match app {
            App::Restore(args) => args.tokens(job.add_snapshot(args.from_file(), machine, ui)?),
            App::Clone(args) => args.tokens(job.add_snapshot(args.from_file(), machine, ui)?),
            App::Snapshot(args) => {
                job.add_order(args.order_entry()?);
                args.tokens()
            }
            App::Track(args) => args.tokens(),
            App::Evict(args) => args.tokens(),
            App::GuestRestore(args) => args.tokens(),
            App::GuestSnapshot(args) => args.tokens(),
            App::GuestClone(args) => args.tokens(),
            App::Cost(args) => args.tokens(),
            App::Test(args) => args.tokens(),
            App::Raw { tokens } => Tokens::new(&tokens.join(" ")),
            App::Info | App::Panic | App::TripleFault | App::Hang | App::TestList => Tokens::new(app.name()),
        };
        if let Some(guest) = app.guest() {
            job.add_guest(&guest, ui)?;
        }
        let exit = Some(machine.exit_token());
        job.cmdline = tokens
            .flag("icount", machine.counts_instructions())
            .opt("exit", exit)
            .finish();
        Ok(job)
    }

    /// Prepares a program in its file system for `machine`, without its streams.
    pub fn of_program(machine: &dyn Machine, kernel: Kernel, files: Archive) -> Self {
        let tokens = Tokens::new("run").opt("stdio", Some("ports"));
        let exit = Some(machine.exit_token());
        Self {
            name: "run".to_owned(),
            kernel,
            cmdline: tokens
                .flag("icount", machine.counts_instructions())
                .opt("exit", exit)
                .finish(),
            ramdisk: files,
            disk: None,
            wants_report: false,
            snapshot: None,
            stdio: None,
        }
    }

    fn add_order(&mut self, entry: Option<String>) {
        if let Some(entry) = entry {
            self.ramdisk.add("order", entry);
        }
    }

    /// Adds the guest and its command line.
    fn add_guest(&mut self, guest: &Guest, ui: &mut Ui) -> anyhow::Result<()> {
        let elf = match &guest.guest {
            Some(path) => std::fs::read(path).context("cannot read the guest")?,
            None => {
                ui.note("building the built-in guest");
                built_in_guest()?
            }
        };
        self.ramdisk.add("guest", elf);
        if let Some(text) = &guest.guest_cmdline {
            self.ramdisk.add("guest-cmdline", text.as_bytes());
        }
        Ok(())
    }

    /// Attaches the snapshot, adds its digests and the order of touches.
    fn add_snapshot(
        &mut self,
        from: FromFile<'_>,
        machine: &dyn Machine,
        ui: &mut Ui,
    ) -> anyhow::Result<Origin> {
        let file = from.file;
        let source = source(file, machine)?;
        let fetched: Option<Fetched> = match (&file.snapshot, &self.disk) {
            (
                None,
                Some(Disk {
                    location: Location::Url(url),
                    ..
                }),
            ) => Some(Fetched::new(url, machine, file.no_memory_check, ui)?),
            _ => None,
        };
        let path = match (&file.snapshot, &self.disk) {
            (Some(path), _) => path,
            (
                None,
                Some(Disk {
                    location: Location::File(path),
                    ..
                }),
            ) => path,
            _ => fetched.as_ref().map_or(self.kernel.path.as_path(), Fetched::path),
        };
        let snapshot = Snapshot::open(path)?;
        check_snapshot(from, &snapshot, source, machine)?;
        if snapshot.padding() > 0 {
            ui.note(&format!(
                "{} has {} bytes, no multiple of {PAGE}: its last page is filled up with {} zero bytes",
                shown(&snapshot.path),
                snapshot.size,
                snapshot.padding()
            ));
        }
        self.add_digests(file, &snapshot, ui)?;
        self.add_order(order::entry(from.order, snapshot.pages())?);
        match (source, &mut self.disk) {
            (Source::Ramdisk, _) => {
                let bytes = std::fs::read(&snapshot.path).context("cannot read the snapshot")?;
                self.ramdisk.add("snapshot", bytes);
            }
            (Source::Virtio, Some(disk)) => disk.inject_error = file.inject_error,
            (Source::Virtio, none) => {
                let location = Location::File(snapshot.path.clone());
                *none = Some(Disk {
                    location,
                    inject_error: file.inject_error,
                });
            }
        }
        let origin = Origin {
            source,
            bytes: snapshot.size,
            pages: snapshot.pages(),
        };
        // A fetched copy is gone once its digests are known; there is nothing to watch then.
        self.snapshot = fetched.is_none().then_some(snapshot);
        Ok(origin)
    }

    fn add_digests(&mut self, file: &SnapshotFile, snapshot: &Snapshot, ui: &mut Ui) -> anyhow::Result<()> {
        let of = match &file.digests_from {
            Some(path) => &Snapshot::open(path)?,
            None => snapshot,
        };
        if of.pages() != snapshot.pages() {
            return Err(usage(format!(
                "{} has {} pages and {} has {}; digests need files of the same number",
                of.path.display(),
                of.pages(),
                snapshot.path.display(),
                snapshot.pages()
            )));
        }
        ui.begin(&format!("digests of {} ({})", shown(&of.path), human(of.size)));
        let digests = of.digests(|done| ui.progress("digests", done, of.size))?;
        ui.end();
        self.ramdisk.add("digests", digests);
        Ok(())
    }

    /// Adds `key=value` to the kernel's command line if there is a value: a key that every application takes.
    pub fn observe(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.cmdline += &format!(" {key}={value}");
        }
    }

    /// Writes the ramdisk into `dir`; `with_cmdline` adds the command line for loaders that pass none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_ramdisk(&self, dir: &RunDir, with_cmdline: bool) -> anyhow::Result<PathBuf> {
        let path = dir.file("ramdisk.cpio");
        let mut archive = self.ramdisk.clone();
        if with_cmdline {
            archive.add("cmdline", self.cmdline.as_bytes());
        }
        let file =
            std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let written = archive
            .write_to(&mut out)
            .and_then(|()| std::io::Write::flush(&mut out));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_files() {
        let parse = |text: &str| text.parse::<Location>().unwrap();
        for url in [
            "nbd://127.0.0.1:10809/x",
            "rbd:pool/image",
            "http://host/file",
            "nbd+unix:///x?socket=/s",
        ] {
            assert_eq!(parse(url), Location::Url(url.into()));
        }
        for file in [
            "snapshot.raw",
            "/abs/olute",
            "./odd:name",
            "C:x",
            "dir/nbd:x",
            "Foo:bar",
        ] {
            assert_eq!(parse(file), Location::File(file.into()), "{file}");
        }
    }

    #[test]
    fn an_existing_file_is_a_file_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nbd:x");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(path.to_str().unwrap().parse(), Ok(Location::File(path)));
    }
}
