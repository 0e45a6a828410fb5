//! What is missing is named with the command that installs it, and nothing is installed unasked.

use std::os::unix::fs::symlink;
use std::path::Path;

use xtask::process::which;
use xtask::status::Status;

use crate::{Said, command};

/// Runs xtask with only `programs` in its path.
fn with_programs(programs: &[&str], args: &[&str]) -> Said {
    let dir = tempfile::tempdir().unwrap();
    for program in programs {
        let real = which(program).unwrap_or_else(|| panic!("{program} is needed for this test"));
        symlink(real, dir.path().join(program)).unwrap();
    }
    // A stand-in: whether Debian's package manager is here must not matter.
    symlink(Path::new("/bin/false"), dir.path().join("apt-get")).unwrap();
    let mut command = command(args);
    command
        .env("PATH", dir.path())
        .env_remove("CI")
        .output()
        .unwrap()
        .into()
}

#[test]
fn no_install_names_the_package_and_the_command() {
    with_programs(&["rustc", "cargo", "id"], &["qemu", "--no-install", "cost"]).expect(
        Status::Missing,
        &["QEMU", "apt-get install -y qemu-system-x86", "--no-install"],
    );
}

#[test]
fn a_missing_target_is_named_with_rustups_command() {
    with_programs(&["id"], &["qemu", "--no-install", "cost"])
        .expect(Status::Missing, &["rustup target add x86_64-unknown-none"]);
}

#[test]
fn an_installation_that_fails_is_reported() {
    with_programs(&["rustc", "cargo", "id"], &["qemu", "--yes", "cost"]).expect(
        Status::Missing,
        &["apt-get install -y qemu-system-x86", "the installation failed"],
    );
}

#[test]
fn the_plain_machine_asks_for_no_nightly() {
    let programs = ["rustc", "cargo", "id"];
    let said = with_programs(&programs, &["qemu", "--no-install", "cost"]).expect(Status::Missing, &[]);
    assert!(!said.all().contains("nightly"), "{}", said.all());
    with_programs(&programs, &["qemu", "--bios", "--no-install", "cost"])
        .expect(Status::Missing, &["nightly-2026-10-01"]);
}
