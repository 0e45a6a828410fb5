//! QEMU, through one of three doors: PVH (`-kernel`, no loader, no image), a BIOS disk image, a UEFI disk image.
//!
//! Serial text comes out of QEMU's standard output, records go to a file. The kernel ends QEMU through the
//! `isa-debug-exit` device, so the process's status is part of the verdict. `-no-reboot` turns a triple fault into
//! the end of the process, and `-d cpu_reset` writes it down.

use std::fmt;
use std::path::Path;

use anyhow::Context;

use self::values::{boot_drive, escaped, memory_arg, snapshot_drive, stdio_args, text};
use super::{Channel, Launch, Machine};
use crate::image::{self, Outputs};
use crate::job::Job;
use crate::paths::RunDir;
use crate::process::CommandLine;
use crate::setup::packages::{Firmware, firmware};
use crate::setup::{Need, Tool};
use crate::size::{MIB, MemSize};
use crate::status::usage;
use crate::verdict::ExitRule;

mod options;
mod values;

pub use options::{Accel, Hardware, Options};

/// The CPU model under TCG: the cost budgets are stated for it.
const TCG_CPU: &str = "EPYC";
/// The file that QEMU writes CPU resets into, triple faults among them.
const RESETS: &str = "resets.log";

/// How the kernel is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// `-kernel`.
    Pvh,
    /// Disk image, BIOS.
    Bios,
    /// Disk image, UEFI.
    Uefi,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvh => "pvh",
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        })
    }
}

/// A QEMU machine.
#[derive(Clone, Debug)]
pub struct Qemu {
    door: Door,
    kvm: bool,
    cpu: String,
    smp: u32,
    mem: MemSize,
    icount: bool,
    gdb: bool,
}

impl Qemu {
    /// The machine that the options ask for.
    ///
    /// # Errors
    /// Options that exclude each other.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let door = match (options.bios, options.uefi) {
            (true, _) => Door::Bios,
            (_, true) => Door::Uefi,
            _ => Door::Pvh,
        };
        Self::through(door, &options.hardware)
    }

    /// A machine of this hardware, with the kernel entered through `door`.
    ///
    /// # Errors
    /// Options that exclude each other.
    pub fn through(door: Door, hardware: &Hardware) -> anyhow::Result<Self> {
        let kvm = match hardware.accel {
            Accel::Tcg => false,
            Accel::Kvm => true,
            Accel::Auto => !hardware.icount && kvm_is_usable(),
        };
        if kvm && hardware.icount {
            return Err(usage("--icount counts instructions under --accel tcg only"));
        }
        if kvm && !kvm_is_usable() {
            return Err(usage(
                "--accel kvm: /dev/kvm is missing or not yours to use; --accel tcg works everywhere",
            ));
        }
        let default_cpu = if kvm { "host" } else { TCG_CPU };
        let cpu = hardware.cpu.clone().unwrap_or_else(|| default_cpu.to_owned());
        Ok(Self {
            door,
            kvm,
            cpu,
            smp: hardware.smp,
            mem: hardware.mem,
            icount: hardware.icount,
            gdb: hardware.gdb,
        })
    }

    /// The machine that tests run on.
    pub fn for_tests(door: Door) -> Self {
        let (cpu, mem) = (TCG_CPU.to_owned(), MemSize(512 * MIB));
        Self {
            door,
            kvm: false,
            cpu,
            smp: 1,
            mem,
            icount: false,
            gdb: false,
        }
    }

    /// CPUs that the kernel leaves idle.
    pub fn idle_cpus(&self) -> u32 {
        self.smp - 1
    }

    fn boot_args(&self, job: &Job, dir: &RunDir) -> anyhow::Result<Vec<String>> {
        let ramdisk = job.write_ramdisk(dir, self.door != Door::Pvh)?;
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<String>>();
        Ok(match self.door {
            Door::Pvh => {
                let mut args = vec![
                    "-kernel".to_owned(),
                    text(&job.kernel.path)?,
                    "-append".to_owned(),
                    job.cmdline.clone(),
                ];
                if !job.ramdisk.is_empty() {
                    args.extend(["-initrd".to_owned(), text(&ramdisk)?]);
                }
                args
            }
            Door::Bios => {
                let disk = dir.file("disk-bios.img");
                image::build(
                    &job.kernel,
                    &ramdisk,
                    Outputs {
                        bios: Some(&disk),
                        uefi: None,
                    },
                )?;
                words(&["-vga", "std", "-drive", &boot_drive(&disk)?])
            }
            Door::Uefi => {
                let disk = dir.file("disk-uefi.img");
                image::build(
                    &job.kernel,
                    &ramdisk,
                    Outputs {
                        bios: None,
                        uefi: Some(&disk),
                    },
                )?;
                let mut args = match firmware().context("the UEFI firmware is gone")? {
                    Firmware::Whole(path) => words(&["-bios", &text(&path)?]),
                    Firmware::Code(path) => {
                        let drive =
                            format!("if=pflash,unit=0,format=raw,readonly=on,file={}", escaped(&path)?);
                        words(&["-drive", &drive])
                    }
                };
                args.extend(words(&["-vga", "std", "-drive", &boot_drive(&disk)?]));
                args
            }
        })
    }
}

impl Machine for Qemu {
    fn name(&self) -> String {
        format!("qemu-{}", self.door)
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = vec![Need::BareMetalTarget, Need::Tool(Tool::Qemu)];
        if self.door != Door::Pvh {
            needs.push(Need::ImageToolchain);
        }
        if self.door == Door::Uefi {
            needs.push(Need::Tool(Tool::Ovmf));
        }
        needs
    }

    fn exit_token(&self) -> &'static str {
        "qemu"
    }

    fn exit_rule(&self) -> ExitRule {
        ExitRule::Exact
    }

    fn memory(&self) -> u64 {
        self.mem.0
    }

    fn counts_instructions(&self) -> bool {
        self.icount
    }

    fn keeps_time(&self) -> bool {
        !self.icount
    }

    fn has_disk(&self) -> bool {
        true
    }

    fn prepare(&self, job: &Job, dir: &RunDir) -> anyhow::Result<Launch> {
        let records = dir.fresh("records.jsonl")?;
        let resets = dir.fresh(RESETS)?;
        let mut line = CommandLine::new("qemu-system-x86_64")
            .args(["-machine", "q35", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-accel", if self.kvm { "kvm" } else { "tcg" }, "-cpu", &self.cpu])
            .args(["-smp", &self.smp.to_string(), "-m", &memory_arg(self.mem)])
            .args([
                "-serial",
                "stdio",
                "-debugcon",
                &format!("file:{}", escaped(&records)?),
            ])
            .args([
                "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4",
                "-d",
                "cpu_reset",
                "-D",
                &text(&resets)?,
            ]);
        if self.icount {
            line = line.args(["-icount", "shift=0,sleep=off"]);
        }
        if let Some(stdio) = &job.stdio {
            line = line.args(stdio_args(stdio)?);
        }
        line = line.args(self.boot_args(job, dir)?);
        if let Some(disk) = &job.disk {
            line = line.args([
                "-drive",
                &snapshot_drive(disk)?,
                "-device",
                "virtio-blk-pci,drive=snapshot,disable-legacy=on",
            ]);
        }
        let mut debugger = None;
        if self.gdb {
            line = line.args(["-gdb", "tcp:127.0.0.1:1234", "-S"]);
            let attach = [
                "-ex",
                "target remote 127.0.0.1:1234",
                "-ex",
                "hbreak faultline::start::kernel_main",
                "-ex",
                "continue",
            ];
            debugger = Some(
                CommandLine::new("gdb")
                    .arg(&job.kernel.path)
                    .args(attach)
                    .to_string(),
            );
        }
        Ok(Launch {
            command: line,
            serial: Channel::Stdout,
            records: Channel::File(records),
            log: dir.file("emulator.log"),
            debugger,
        })
    }

    fn cause_of_death(&self, launch: &Launch) -> Option<String> {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        if self.kvm && read(&launch.log).contains("kvm") {
            return Some("KVM does not carry this CPU here; --accel tcg works everywhere".into());
        }
        let resets = launch.log.with_file_name(RESETS);
        read(&resets)
            .contains("Triple fault")
            .then(|| format!("triple fault; see {}", resets.display()))
    }
}

#[cfg(target_os = "linux")]
fn kvm_is_usable() -> bool {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

#[cfg(not(target_os = "linux"))]
fn kvm_is_usable() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::status::{self, Status};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(args: &[&str]) -> Result<Options, clap::Error> {
        Cli::try_parse_from(["x"].iter().chain(args)).map(|cli| cli.options)
    }

    #[test]
    fn the_default_machine_needs_neither_kvm_nor_nightly() {
        let qemu = Qemu::new(&options(&[]).unwrap()).unwrap();
        assert_eq!(
            (qemu.name().as_str(), qemu.cpu.as_str(), qemu.kvm),
            ("qemu-pvh", "EPYC", false)
        );
        assert_eq!(qemu.needs(), [Need::BareMetalTarget, Need::Tool(Tool::Qemu)]);
        assert_eq!(qemu.memory(), 512 * MIB);
    }

    #[test]
    fn doors_exclude_each_other_and_bring_their_needs() {
        assert!(options(&["--bios", "--uefi"]).is_err());
        let uefi = Qemu::new(&options(&["--uefi"]).unwrap()).unwrap();
        assert_eq!(uefi.name(), "qemu-uefi");
        assert!(
            uefi.needs().contains(&Need::ImageToolchain) && uefi.needs().contains(&Need::Tool(Tool::Ovmf))
        );
        assert!(
            !Qemu::new(&options(&["--bios"]).unwrap())
                .unwrap()
                .needs()
                .contains(&Need::Tool(Tool::Ovmf))
        );
    }

    #[test]
    fn icount_and_kvm_are_wrong_usage_and_auto_avoids_the_clash() {
        let error = Qemu::new(&options(&["--icount", "--accel", "kvm"]).unwrap()).unwrap_err();
        assert_eq!(status::of_error(&error), Status::Usage);
        assert!(
            !Qemu::new(&options(&["--icount", "--accel", "auto"]).unwrap())
                .unwrap()
                .kvm
        );
    }

    #[test]
    fn nonsense_is_refused_by_the_parser() {
        for args in [["--mem", "lots"], ["--smp", "0"], ["--accel", "hvf"]] {
            assert!(options(&args).is_err(), "{args:?}");
        }
    }
}
