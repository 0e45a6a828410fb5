//! Snapshots that cannot be restored are refused before anything is built; odd ones are restored.

use std::process::Command;

use xtask::status::Status;

use crate::{binary, figure, noise, random_file, xtask};

fn restore(file: &str) -> crate::Said {
    xtask(&["qemu", "--timeout", "120", "restore", "--snapshot", file])
}

#[test]
fn a_missing_file_is_refused() {
    restore("/nonexistent/snapshot").expect(Status::Usage, &["/nonexistent/snapshot", "no such file"]);
}

#[test]
fn an_empty_file_is_refused() {
    let (_dir, file) = random_file(0, 1);
    restore(&file).expect(Status::Usage, &[&file, "empty"]);
}

#[test]
fn a_directory_is_refused() {
    let (dir, _) = random_file(1, 1);
    restore(dir.path().to_str().unwrap()).expect(Status::Usage, &["is a directory"]);
}

#[test]
fn a_device_is_refused() {
    restore("/dev/zero").expect(Status::Usage, &["/dev/zero", "not a regular file"]);
}

/// Root may read everything, so the command is then run as somebody else, from a copy that somebody else can reach.
#[cfg(unix)]
#[test]
fn an_unreadable_file_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let (dir, file) = random_file(4096, 1);
    let mode = |path: &str, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(dir.path().to_str().unwrap(), 0o755);
    mode(&file, 0o000);
    let copy = dir.path().join("xtask");
    std::fs::copy(binary(), &copy).unwrap();
    let mut command = Command::new(&copy);
    if xtask::setup::packages::is_root() {
        command.uid(65_534).gid(65_534);
    }
    let said: crate::Said = command
        .args(["qemu", "restore", "--snapshot", &file])
        .current_dir("/")
        .output()
        .unwrap()
        .into();
    said.expect(Status::Usage, &[&file, "cannot be read", "denied"]);
}

#[test]
fn a_snapshot_larger_than_memory_is_refused_with_both_figures_and_the_option() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    // A sparse file: nothing is read before it is refused.
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    restore(path.to_str().unwrap()).expect(Status::Usage, &["1 GiB", "512 MiB", "--mem"]);
}

#[test]
fn a_size_that_is_no_multiple_of_a_page_is_padded_and_said_so() {
    let (_dir, file) = random_file(5 * 4096 + 7, 3);
    let said = xtask(&[
        "qemu",
        "--timeout",
        "120",
        "--json",
        "restore",
        "--snapshot",
        &file,
    ])
    .expect(Status::Success, &["no multiple of 4096", "4089 zero bytes"]);
    assert_eq!(figure(&said.json(), "region"), 6);
}

#[test]
fn one_byte_is_a_snapshot() {
    let (_dir, file) = random_file(1, 3);
    restore(&file).expect(Status::Success, &[]);
}

#[test]
fn bytes_that_change_under_us_are_found_and_the_page_is_named_with_both_digests() {
    let (dir, file) = random_file(64 * 4096, 3);
    let mut other = noise(64 * 4096, 3);
    other[17 * 4096 + 100] ^= 1;
    let path = dir.path().join("other");
    std::fs::write(&path, &other).unwrap();
    let digest = |page: &[u8]| format!("{:032x}", xtask::snapshot::digest(page));
    let (then, now) = (
        digest(&other[17 * 4096..18 * 4096]),
        digest(&noise(64 * 4096, 3)[17 * 4096..18 * 4096]),
    );
    xtask(&[
        "qemu",
        "--timeout",
        "120",
        "restore",
        "--snapshot",
        &file,
        "--digests-from",
        path.to_str().unwrap(),
    ])
    .expect(Status::Failed, &["page 17", &then, &now]);
}
