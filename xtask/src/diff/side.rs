//! The two kernels.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;

use super::script::{self, Case};
use super::transcript::{self, Section};
use crate::cmd::boot::named_panic;
use crate::elf::Kernel;
use crate::machine::Machine as _;
use crate::machine::qemu::{Door, Qemu};
use crate::paths::RunDir;
use crate::process::CommandLine;
use crate::program::pack::Request;
use crate::program::streams::Captured;
use crate::program::{self, Conditions, Input, Packing, Streams};
use crate::setup::toolchain::LINUX;
use crate::setup::{self, InstallOptions};
use crate::ui::Ui;
use crate::{elf, interrupt};

/// Starts after which a side that keeps breaking off is given up.
const STARTS: usize = 24;

/// Seconds that one run on Faultline may take.
const SECONDS: u64 = 600;
/// Where the programs are in Faultline's file system.
const PROGRAM: &str = "/root/guest-tests";
/// Where scripts are there.
const SCRIPT: &str = "/root/script";

/// Somewhere that `guest-tests` runs.
pub trait Side {
    /// Its name, as tables head a column with it.
    fn name(&self) -> &'static str;

    /// Runs `guest-tests` with these arguments, the last of which is `script` put where the program finds it, if there
    /// is one.
    ///
    /// # Errors
    /// When it could not be run at all.
    fn run(&mut self, args: &[&str], script: Option<&str>) -> anyhow::Result<Run>;

    /// Plays the cases. One that the machine does not survive ends with that, and the others are played after a new
    /// start.
    ///
    /// # Errors
    /// When it could not be run at all.
    fn play(&mut self, cases: &[Case]) -> anyhow::Result<Vec<Section>> {
        let mut sections: Vec<Section> = Vec::new();
        for _ in 0..STARTS {
            let left = &cases[sections.len()..];
            if left.is_empty() {
                break;
            }
            let run = self.run(&["play"], Some(&script::text(left)))?;
            let mut played = transcript::parse(&run.output);
            match played.last_mut() {
                Some(last) if last.end.is_none() => last.end = Some(run.ended),
                Some(_) => {}
                None => played.push(Section {
                    name: left[0].name.clone(),
                    rows: Vec::new(),
                    end: Some(run.ended),
                }),
            }
            sections.extend(played);
            if interrupt::requested() {
                anyhow::bail!("interrupted");
            }
        }
        Ok(sections)
    }
}

/// What a run came to.
pub struct Run {
    /// Standard output.
    pub output: String,
    /// How it ended, for transcripts that break off.
    pub ended: String,
}

/// The programs, built for Linux if they are not up to date.
///
/// # Errors
/// When they do not compile.
pub fn programs() -> anyhow::Result<PathBuf> {
    let line = elf::cargo()
        .args([
            "build",
            "--release",
            "--package",
            "guest-tests",
            "--target",
            LINUX,
        ])
        // It travels in ramdisks.
        .var("CARGO_PROFILE_RELEASE_STRIP", "true")
        .arg("--message-format=json-render-diagnostics");
    elf::executable_of(&line, "the programs of tests/guest")
}

/// The Linux that xtask stands on.
pub struct Host {
    program: PathBuf,
    dir: RunDir,
}

impl Host {
    /// Runs `program` here.
    ///
    /// # Errors
    /// When no folder can be made for it.
    pub fn new(program: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            dir: RunDir::take("diff-linux")?,
        })
    }
}

impl Side for Host {
    fn name(&self) -> &'static str {
        "Linux"
    }

    fn run(&mut self, args: &[&str], script: Option<&str>) -> anyhow::Result<Run> {
        let mut line = CommandLine::new(&self.program).args(args);
        if let Some(text) = script {
            let path = self.dir.file("script");
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            line = line.arg(path);
        }
        let mut child = line
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {line}"))?;
        let stdout = child.stdout.take().expect("it was asked for");
        let reader = std::thread::spawn(move || std::io::read_to_string(stdout));
        let status = loop {
            if let Some(status) = child.try_wait().context("cannot wait for the programs")? {
                break status;
            }
            if interrupt::requested() {
                // It ends its cases itself when it can; nobody waits for their output any more.
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let output = reader
            .join()
            .expect("reading does not panic")
            .context("what the programs print is no text")?;
        Ok(Run {
            output,
            ended: status.to_string(),
        })
    }
}

/// Faultline in QEMU, booted anew for each run.
pub struct Faultline {
    program: PathBuf,
    machine: Qemu,
    kernel: Kernel,
    dir: RunDir,
    conditions: Conditions,
}

impl Faultline {
    /// Runs `program` there, with so many huge pages.
    ///
    /// # Errors
    /// When something that a machine needs is missing, or the kernel does not compile.
    pub fn new(program: &Path, huge_pages: u64, install: InstallOptions) -> anyhow::Result<Self> {
        let machine = Qemu::for_tests(Door::Pvh);
        setup::ensure(&machine.needs(), install)?;
        Ok(Self {
            program: program.to_owned(),
            machine,
            kernel: Kernel::build_quietly()?,
            dir: RunDir::take("diff-faultline")?,
            conditions: Conditions {
                timeout: Some(SECONDS),
                huge_pages: Some(huge_pages),
            },
        })
    }
}

impl Side for Faultline {
    fn name(&self) -> &'static str {
        "Faultline"
    }

    fn run(&mut self, args: &[&str], script: Option<&str>) -> anyhow::Result<Run> {
        let place = |host: &Path, guest: &str| {
            let mut file = host.as_os_str().to_owned();
            file.push(":");
            file.push(guest);
            file
        };
        let mut request = Request {
            program: PROGRAM.into(),
            args: args.iter().map(Into::into).collect(),
            files: vec![place(&self.program, PROGRAM)],
            ..Request::default()
        };
        if let Some(text) = script {
            let path = self.dir.file("script");
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            request.files.push(place(&path, SCRIPT));
            request.args.push(SCRIPT.into());
        }
        let packing = Packing::new(&request)
            .map_err(|ending| anyhow::anyhow!(ending.sentence(PROGRAM).unwrap_or_default()))?;
        let (out, err) = (Captured::default(), Captured::default());
        let streams = Streams {
            input: Input::Bytes(Vec::new()),
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
        };
        let kernel = self.kernel.clone();
        let run = program::run(packing, &self.machine, kernel, streams, self.conditions, &mut ())?;
        let mut ended = match run.ending.sentence("the program") {
            Some(sentence) => sentence,
            None => format!("exit status {}", run.ending.code()),
        };
        if let Some(panic) = named_panic(&run.job, &run.outcome, &Ui::new(true)) {
            ended = format!("panic at {}: {}", panic.location, panic.message);
        }
        // The console and standard error say more, for whoever looks into a run.
        for (file, text) in [
            ("console", run.console.join("\n").into_bytes()),
            ("stderr", err.take()),
        ] {
            std::fs::write(self.dir.file(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(Run {
            output: String::from_utf8_lossy(&out.take()).into_owned(),
            ended,
        })
    }
}
