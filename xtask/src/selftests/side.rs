//! The two systems that tests are run on.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::elf::Kernel;
use crate::interrupt;
use crate::machine::qemu::Qemu;
use crate::paths::RunDir;
use crate::program::pack::Request;
use crate::program::streams::Captured;
use crate::program::{self, Conditions, Ending, Input, Packing, Streams};

/// What is said of a system call that is not there.
const NOT_THERE: &str = "is not there";

/// Pause between two looks at a program.
const POLL: Duration = Duration::from_millis(20);

/// How a test program ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// With this status.
    Exited(u8),
    /// In another way, in words.
    Other(String),
}

impl End {
    /// Whether it came to its end.
    pub const fn is_exit(&self) -> bool {
        matches!(self, Self::Exited(_))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Other(how) => f.write_str(how),
        }
    }
}

/// What a test program said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How it ended.
    pub end: End,
}

/// A system that runs programs.
pub trait Side {
    /// Its name.
    fn name(&self) -> String;

    /// Runs a static program to its end.
    ///
    /// # Errors
    /// When that cannot be tried.
    fn run(&mut self, program: &Path, args: &[&str]) -> anyhow::Result<Said>;
}

/// The Linux under us.
#[derive(Debug)]
pub struct Host {
    /// Seconds that a program may take.
    pub timeout: u64,
    /// Where output goes on its way.
    pub dir: RunDir,
}

impl Side for Host {
    fn name(&self) -> String {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("Linux {}", release.trim())
    }

    fn run(&mut self, program: &Path, args: &[&str]) -> anyhow::Result<Said> {
        let (out, err) = (self.dir.fresh("stdout")?, self.dir.fresh("stderr")?);
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(writable(&out)?)
            .stderr(writable(&err)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let started = Instant::now();
        let end = loop {
            if let Some(status) = child.try_wait().context("cannot wait for a test")? {
                break ended(status);
            }
            if started.elapsed() > Duration::from_secs(self.timeout) || interrupt::requested() {
                // It fails only when the process is gone already.
                let _ = child.kill();
                child.wait().context("cannot wait for a test")?;
                break End::Other(format!("not done after {} s", self.timeout));
            }
            thread::sleep(POLL);
        };
        let read = |path: &Path| -> anyhow::Result<String> {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Said {
            out: read(&out)?,
            err: read(&err)?,
            end,
        })
    }
}

fn writable(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn ended(status: ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        // A status has eight bits.
        Some(code) => End::Exited(code as u8),
        None => End::Other(format!("ended by signal {}", status.signal().unwrap_or(0))),
    }
}

/// Faultline in QEMU; every program gets a machine of its own.
#[derive(Debug)]
pub struct Faultline {
    /// The machine.
    pub machine: Qemu,
    /// The kernel.
    pub kernel: Kernel,
    /// Seconds that a program may take.
    pub timeout: u64,
    /// Huge pages set aside before a program starts.
    pub huge_pages: u64,
    /// What the kernel said of system calls that are not there, each once.
    pub remarks: Vec<String>,
}

impl Side for Faultline {
    fn name(&self) -> String {
        "Faultline".into()
    }

    fn run(&mut self, program: &Path, args: &[&str]) -> anyhow::Result<Said> {
        let base = program.file_name().unwrap_or_default();
        let guest = PathBuf::from("/root").join(base);
        let mut placed = program.as_os_str().to_owned();
        placed.push(":");
        placed.push(&guest);
        let request = Request {
            program: guest.into(),
            args: args.iter().map(Into::into).collect(),
            files: vec![placed],
            ..Request::default()
        };
        let packing = Packing::new(&request)
            .map_err(|ending| anyhow::anyhow!(ending.sentence("the test").unwrap_or_default()))?;
        let (out, err) = (Captured::default(), Captured::default());
        let streams = Streams {
            input: Input::Bytes(Vec::new()),
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
        };
        let conditions = Conditions {
            timeout: Some(self.timeout),
            huge_pages: Some(self.huge_pages),
        };
        let run = program::run(
            packing,
            &self.machine,
            self.kernel.clone(),
            streams,
            conditions,
            &mut (),
        )?;
        for line in run.remarks().filter(|line| line.contains(NOT_THERE)) {
            if !self.remarks.iter().any(|known| known == line) {
                self.remarks.push(line.to_owned());
            }
        }
        let text = |captured: Captured| String::from_utf8_lossy(&captured.take()).into_owned();
        let end = match &run.ending {
            Ending::Exited(status) => End::Exited(*status),
            ending => End::Other(ending.sentence("it").unwrap_or_default()),
        };
        Ok(Said {
            out: text(out),
            err: text(err),
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(timeout: u64, script: &str) -> Said {
        let dir = RunDir::take("selftests-of-the-side").unwrap();
        let mut host = Host { timeout, dir };
        host.run(Path::new("/bin/sh"), &["-c", script]).unwrap()
    }

    #[test]
    fn a_program_of_the_host_is_heard_to_its_end() {
        let said = host(60, "echo out; echo err >&2; exit 4");
        assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
        assert_eq!(said.end, End::Exited(4));
        assert_eq!(
            host(60, "kill -11 $$").end,
            End::Other("ended by signal 11".into())
        );
    }

    #[test]
    fn a_program_of_the_host_that_hangs_is_ended() {
        assert_eq!(
            host(1, "exec sleep 60").end,
            End::Other("not done after 1 s".into())
        );
    }
}
