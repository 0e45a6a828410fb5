//! Bochs: boots the BIOS disk image on a model of a Skylake-X, without a display.
//!
//! Debian's Bochs has the debugger and no "nogui" library, and the loader wants a graphics mode: SDL with its dummy
//! driver serves. Records come out of standard output (the port 0xe9 hack), where the debugger's prompt stands too;
//! serial text goes to a file. Its exit status says nothing, so the closing record alone is the verdict.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use clap::Args;

use super::{Channel, Launch, Machine};
use crate::image::{self, Outputs};
use crate::job::Job;
use crate::paths::RunDir;
use crate::process::CommandLine;
use crate::setup::packages::bochs_roms;
use crate::setup::{Need, Tool};
use crate::size::{MIB, MemSize};
use crate::verdict::ExitRule;

/// Options of a Bochs machine.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// Memory: MiB, or with a suffix K, M, G
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "256",
        global = true,
        value_parser = MemSize::of_machine,
        help_heading = "Machine"
    )]
    pub mem: MemSize,
    /// Bochs's CPU model
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "corei7_skylake_x",
        global = true,
        help_heading = "Machine"
    )]
    pub cpu: String,
}

/// A Bochs machine.
#[derive(Clone, Debug)]
pub struct Bochs {
    mem: MemSize,
    cpu: String,
}

impl Bochs {
    /// The machine that the options ask for.
    pub fn new(options: &Options) -> Self {
        Self {
            mem: options.mem,
            cpu: options.cpu.clone(),
        }
    }

    /// The machine that tests run on.
    pub fn for_tests() -> Self {
        Self {
            mem: MemSize(256 * MIB),
            cpu: "corei7_skylake_x".into(),
        }
    }

    fn config(&self, image: &Path, serial: &Path, log: &Path) -> anyhow::Result<String> {
        let (bios, vga) = bochs_roms().context("the ROM images of Bochs are gone")?;
        Ok(format!(
            "cpu: model={cpu}, count=1, ips=50000000, reset_on_triple_fault=0\n\
             megs: {megs}\n\
             romimage: file={bios}\n\
             vgaromimage: file={vga}\n\
             ata0-master: type=disk, path=\"{image}\", mode=volatile\n\
             boot: disk\n\
             display_library: sdl2\n\
             com1: enabled=1, mode=file, dev=\"{serial}\"\n\
             log: \"{log}\"\n\
             panic: action=fatal\n\
             clock: sync=none\n\
             port_e9_hack: enabled=1\n",
            cpu = self.cpu,
            megs = self.mem.0.div_ceil(MIB),
            bios = bios.display(),
            vga = vga.display(),
            image = image.display(),
            serial = serial.display(),
            log = log.display(),
        ))
    }
}

impl Machine for Bochs {
    fn name(&self) -> String {
        "bochs".into()
    }

    fn needs(&self) -> Vec<Need> {
        vec![
            Need::BareMetalTarget,
            Need::ImageToolchain,
            Need::Tool(Tool::Bochs),
        ]
    }

    fn exit_token(&self) -> &'static str {
        "bochs"
    }

    fn exit_rule(&self) -> ExitRule {
        ExitRule::Ignored
    }

    fn memory(&self) -> u64 {
        self.mem.0
    }

    fn counts_instructions(&self) -> bool {
        false
    }

    fn keeps_time(&self) -> bool {
        false
    }

    fn has_disk(&self) -> bool {
        false
    }

    fn prepare(&self, job: &Job, dir: &RunDir) -> anyhow::Result<Launch> {
        let ramdisk = job.write_ramdisk(dir, true)?;
        let image = dir.file("disk-bios.img");
        image::build(
            &job.kernel,
            &ramdisk,
            Outputs {
                bios: Some(&image),
                uefi: None,
            },
        )?;
        let serial = dir.fresh("serial.txt")?;
        let log = dir.fresh("bochs.log")?;
        let config = dir.file("bochsrc");
        std::fs::write(&config, self.config(&image, &serial, &log)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = CommandLine::new("bochs")
            .var("SDL_VIDEODRIVER", "dummy")
            .args(["-q", "-f"])
            .arg(&config);
        if has_debugger() {
            let commands = dir.file("commands");
            std::fs::write(&commands, "c\n")
                .with_context(|| format!("cannot write {}", commands.display()))?;
            command = command.arg("-rc").arg(commands);
        }
        let log = dir.file("emulator.log");
        Ok(Launch {
            command,
            serial: Channel::File(serial),
            records: Channel::Stdout,
            log,
            debugger: None,
        })
    }

    fn cause_of_death(&self, launch: &Launch) -> Option<String> {
        let path = launch.log.with_file_name("bochs.log");
        let log = std::fs::read(&path).ok()?;
        let log = String::from_utf8_lossy(&log);
        let triple = log.contains("3rd (") || log.contains("triple fault");
        let panic = log
            .lines()
            .find_map(|line| line.split_once("]").filter(|_| line.contains(">>PANIC<<")));
        match (triple, panic) {
            (true, _) => Some(format!("triple fault; see {}", path.display())),
            (false, Some((_, text))) => Some(format!("Bochs gave up: {}", text.trim())),
            (false, None) => None,
        }
    }
}

/// Whether this Bochs was built with its debugger, which then waits for a command.
fn has_debugger() -> bool {
    let mut help = CommandLine::new("bochs").arg("--help").command();
    let output = help.stdin(Stdio::null()).env("SDL_VIDEODRIVER", "dummy").output();
    output.is_ok_and(|output| {
        [output.stdout, output.stderr]
            .iter()
            .any(|text| String::from_utf8_lossy(text).contains("-rc"))
    })
}
