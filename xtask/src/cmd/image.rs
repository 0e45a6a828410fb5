//! `cargo xtask image`: disk images that start on real machines, and a word on how to get them onto a stick.

use std::path::Path;

use crate::app::{App, RestoreArgs, SnapshotFile};
use crate::elf::Kernel;
use crate::image::{Outputs, build};
use crate::job::{self, Job};
use crate::machine::{Launch, Machine};
use crate::paths::{RunDir, folder, shown};
use crate::setup::{self, InstallOptions, Need};
use crate::size::human;
use crate::status::Status;
use crate::ui::Ui;
use crate::verdict::ExitRule;

/// The command's arguments.
#[derive(clap::Args, Clone, Debug)]
#[command(subcommand_value_name = "APP", subcommand_help_heading = "Applications")]
pub struct Args {
    /// Memory that the real machine has at least: MiB, or with a suffix K, M, G; checked against the snapshot
    #[arg(long, value_name = "SIZE", default_value = "512", global = true)]
    mem: crate::size::MemSize,
    #[command(flatten)]
    install: InstallOptions,
    /// What the images run; default: restore of a small snapshot in the ramdisk
    #[command(subcommand)]
    app: Option<App>,
}

/// Builds both images.
///
/// # Errors
/// When something is missing or an image cannot be written.
pub fn run(args: &Args) -> anyhow::Result<Status> {
    let machine = RealMachine { memory: args.mem.0 };
    if let Some(app) = &args.app {
        job::check(app, &machine, None)?;
    }
    setup::ensure(&machine.needs(), args.install)?;
    let mut ui = Ui::new(false);
    ui.note("building the kernel");
    let kernel = Kernel::build()?;
    let app = match &args.app {
        Some(app) => app.clone(),
        // The image without its debug sections: a BIOS reads the ramdisk slowly.
        None => App::Restore(RestoreArgs {
            file: SnapshotFile {
                snapshot: Some(kernel.stripped()?),
                ..SnapshotFile::default()
            },
            ..RestoreArgs::default()
        }),
    };
    let job = Job::new(&app, &machine, kernel, None, &mut ui)?;
    let dir = RunDir::take("image")?;
    let ramdisk = job.write_ramdisk(&dir, true)?;
    let images = folder("images")?;
    let (bios, uefi) = (
        images.join("faultline-bios.img"),
        images.join("faultline-uefi.img"),
    );
    build(
        &job.kernel,
        &ramdisk,
        Outputs {
            bios: Some(&bios),
            uefi: Some(&uefi),
        },
    )?;
    println!("The images run: {}", job.cmdline);
    describe("BIOS", &bios)?;
    describe("UEFI", &uefi)?;
    println!(
        "\nTo start a machine from a USB stick, write the image that fits its firmware to the whole stick.\n\
         Everything on the stick is lost; find its name with `lsblk` (here /dev/sdX) and check it twice:\n\n    \
         sudo dd if={} of=/dev/sdX bs=4M conv=fsync status=progress\n\n\
         UEFI: turn Secure Boot off. Output comes on the screen if there is one and on the first serial port\n\
         (115200 baud, 8N1). See docs/hardware.md.",
        shown(&uefi)
    );
    Ok(Status::Success)
}

fn describe(kind: &str, path: &Path) -> anyhow::Result<()> {
    println!("{kind}: {} ({})", shown(path), human(path.metadata()?.len()));
    Ok(())
}

/// A machine of which nothing is known but that it has memory; xtask writes for it and never starts it.
struct RealMachine {
    memory: u64,
}

impl Machine for RealMachine {
    fn name(&self) -> String {
        "a real machine".into()
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::BareMetalTarget, Need::ImageToolchain]
    }

    fn exit_token(&self) -> &'static str {
        "halt"
    }

    fn exit_rule(&self) -> ExitRule {
        ExitRule::Ignored
    }

    fn memory(&self) -> u64 {
        self.memory
    }

    fn counts_instructions(&self) -> bool {
        false
    }

    fn keeps_time(&self) -> bool {
        true
    }

    fn has_disk(&self) -> bool {
        false
    }

    fn prepare(&self, _: &Job, _: &RunDir) -> anyhow::Result<Launch> {
        anyhow::bail!("a real machine is started by hand")
    }

    fn cause_of_death(&self, _: &Launch) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Source;
    use crate::status;

    #[test]
    fn a_real_machine_is_offered_no_virtio_disk() {
        let args = RestoreArgs {
            file: SnapshotFile {
                source: Some(Source::Virtio),
                ..SnapshotFile::default()
            },
            ..RestoreArgs::default()
        };
        let error = job::check(&App::Restore(args), &RealMachine { memory: 1 << 30 }, None).unwrap_err();
        assert_eq!(status::of_error(&error), Status::Usage);
        assert!(error.to_string().contains("--source ramdisk"));
    }
}
