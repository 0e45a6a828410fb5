//! Restores and measurements that succeed, on every machine.

use serde_json::Value;
use xtask::record::ExitStatus;
use xtask::status::Status;

use crate::{figure, random_file, xtask};

const MIB: usize = 1 << 20;

fn restore(command: &str, machine: &[&str], args: &[&str]) -> Value {
    let mut all = vec![command, "--timeout", "300", "--json"];
    all.extend(machine);
    all.push("restore");
    all.extend(args);
    xtask(&all).expect(Status::Success, &[]).json()
}

#[test]
fn with_no_arguments_the_kernels_own_image_is_restored() {
    let said = xtask(&["qemu"]).expect(
        Status::Success,
        &["touch to next instruction", "report: ", "qemu-system-x86_64 "],
    );
    let path = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("report: "))
        .unwrap();
    let saved: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(saved["verdict"], "success");
}

#[test]
fn every_order_restores_every_page() {
    let (dir, file) = random_file(MIB, 10);
    let order = dir.path().join("order");
    std::fs::write(&order, "255 0 17 # a few\n3\n").unwrap();
    for order in ["sequential", "random", "reverse", order.to_str().unwrap()] {
        let json = restore("qemu", &[], &["--snapshot", &file, "--order", order]);
        assert_eq!(figure(&json, "region"), 256, "{order}");
    }
}

#[test]
fn prefetch_saves_faults() {
    let (_dir, file) = random_file(MIB, 11);
    let plain = restore("qemu", &[], &["--snapshot", &file, "--order", "sequential"]);
    let ahead = restore(
        "qemu",
        &[],
        &["--snapshot", &file, "--order", "sequential", "--prefetch", "7"],
    );
    assert_eq!(figure(&plain, "faults"), 256);
    assert_eq!(figure(&ahead, "faults"), 32);
}

#[test]
fn a_ramdisk_serves_as_well_as_a_disk() {
    let (_dir, file) = random_file(MIB, 12);
    restore("qemu", &[], &["--snapshot", &file, "--source", "ramdisk"]);
}

#[test]
fn the_bios_image_restores() {
    let (_dir, file) = random_file(4 * MIB, 13);
    restore(
        "qemu",
        &["--bios"],
        &["--snapshot", &file, "--order", "random", "--prefetch", "4"],
    );
}

#[test]
fn the_uefi_image_restores() {
    let (_dir, file) = random_file(4 * MIB, 14);
    restore(
        "qemu",
        &["--uefi"],
        &["--snapshot", &file, "--order", "random", "--prefetch", "4"],
    );
}

#[test]
fn bochs_restores_from_its_ramdisk() {
    let (_dir, file) = random_file(MIB, 15);
    restore("bochs", &[], &["--snapshot", &file, "--order", "random"]);
}

#[test]
fn two_counted_runs_are_identical_to_the_last_digit() {
    let run = || {
        let said = xtask(&[
            "qemu",
            "--icount",
            "--timeout",
            "120",
            "--json",
            "cost",
            "--pages",
            "500",
        ]);
        said.expect(Status::Success, &["instructions"]).json()["report"].clone()
    };
    assert_eq!(run(), run());
}

#[test]
fn the_printed_command_line_can_be_typed_again() {
    let said = xtask(&["qemu", "--timeout", "60", "info"]).expect(Status::Success, &[]);
    let line = said
        .err
        .lines()
        .find(|line| line.starts_with("qemu-system-x86_64 "))
        .unwrap();
    let again = std::process::Command::new("sh")
        .arg("-c")
        .arg(line)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(ExitStatus::Success.qemu_status()));
}
