//! The emulators, behind one trait: what they need, how they are started, where their output comes out.

use std::path::PathBuf;

use crate::job::Job;
use crate::paths::RunDir;
use crate::process::CommandLine;
use crate::setup::Need;
use crate::verdict::ExitRule;

pub mod bochs;
pub mod qemu;

/// A machine the kernel can be booted on.
pub trait Machine {
    /// Its name in listings and file names: `qemu-pvh`, `bochs`.
    fn name(&self) -> String;

    /// What has to be installed.
    fn needs(&self) -> Vec<Need>;

    /// The value of the kernel's `exit=` token: how this machine is ended from inside.
    fn exit_token(&self) -> &'static str;

    /// What its own exit status is worth.
    fn exit_rule(&self) -> ExitRule;

    /// Memory in bytes.
    fn memory(&self) -> u64;

    /// Whether a tick of its clock is an instruction.
    fn counts_instructions(&self) -> bool;

    /// Whether its clock goes as fast as that on the wall.
    fn keeps_time(&self) -> bool;

    /// Whether it has a virtio disk for the snapshot.
    fn has_disk(&self) -> bool;

    /// Writes what the machine boots from into `dir` and says how it is started.
    ///
    /// # Errors
    /// When a file cannot be written or an image cannot be built.
    fn prepare(&self, job: &Job, dir: &RunDir) -> anyhow::Result<Launch>;

    /// Why a machine that ended without a verdict did so, if its log tells.
    fn cause_of_death(&self, launch: &Launch) -> Option<String>;
}

/// How a machine is started, and where it speaks.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The emulator's command line.
    pub command: CommandLine,
    /// The human text of the serial line.
    pub serial: Channel,
    /// The records of the debug console.
    pub records: Channel,
    /// The emulator's own messages.
    pub log: PathBuf,
    /// What to type to attach a debugger, when the machine waits for one.
    pub debugger: Option<String>,
}

impl Launch {
    /// The last lines of the emulator's own messages, as they are shown when it did not start or died.
    pub fn emulator_said(&self) -> Vec<String> {
        let Ok(log) = std::fs::read(&self.log) else {
            return Vec::new();
        };
        let log = String::from_utf8_lossy(&log);
        // QEMU says on every start which features of the CPU model it cannot emulate.
        let tells =
            |line: &&str| !line.trim().is_empty() && !line.contains("TCG doesn't support requested feature");
        let lines: Vec<&str> = log.lines().filter(tells).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(10));
        last.map(|line| format!("emulator: {line}")).collect()
    }
}

/// Where a stream of a machine comes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Channel {
    /// The standard output of the emulator.
    Stdout,
    /// A file that grows.
    File(PathBuf),
}
