//! The disk images for real machines, started as such a machine would: nobody but their own loader passes anything.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use xtask::setup::packages::{Firmware, firmware};
use xtask::status::Status;

use crate::xtask;

/// Starts an image in QEMU with `args` and returns its serial text up to the line that closes the run. The image stops
/// the machine and leaves it on, as on a desk.
fn boot(image: &str, args: &[&str]) -> String {
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-machine", "q35", "-m", "512M", "-display", "none", "-vga", "std"])
        .args([
            "-serial",
            "stdio",
            "-drive",
            &format!("if=ide,format=raw,snapshot=on,file={image}"),
        ])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    let mut text = String::new();
    while let Ok(line) = lines.recv_timeout(Duration::from_secs(30)) {
        text += &line;
        text.push('\n');
        if line.contains("faultline: ") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn both_images_restore_their_own_snapshot_without_xtask() {
    let said = xtask(&["image"]).expect(Status::Success, &["dd if=", "Secure Boot"]);
    let image = |kind: &str| {
        let line = said.out.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.split(" (").next().unwrap().trim().to_owned()
    };
    let bios = boot(&image("BIOS:"), &[]);
    assert!(
        bios.contains("done: ") && bios.contains("restored and verified"),
        "{bios}"
    );
    let Some(Firmware::Whole(ovmf)) = firmware() else {
        return;
    };
    let uefi = boot(&image("UEFI:"), &["-bios", ovmf.to_str().unwrap()]);
    assert!(
        uefi.contains("done: ") && uefi.contains("restored and verified"),
        "{uefi}"
    );
}

#[test]
fn a_snapshot_for_a_machine_without_virtio_is_refused_on_virtio() {
    xtask(&["image", "restore", "--source", "virtio"]).expect(Status::Usage, &["--source ramdisk"]);
}
