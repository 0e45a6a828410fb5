//! `clone`: runs that succeed on every machine; and those that must be found wrong, refused or ended.

use serde_json::Value;
use xtask::status::Status;

use crate::{Said, figure, noise, random_file, reported, xtask};

const PAGES: usize = 64;

fn clone(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["clone"], args)
}

/// Four clones of a file of 64 pages: all of them are verified, and each page was fetched once.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let (_dir, file) = random_file(PAGES * 4096, 20);
    let mut all = vec!["--snapshot", &file, "--clones", "4"];
    all.extend(args);
    let json = clone(machine, &all).expect(Status::Success, &[]).json();
    assert_eq!(
        figure(&json, "verified"),
        256,
        "every page of every clone is verified"
    );
    let (cache, private) = (
        figure(&json, "pages of the cache"),
        figure(&json, "of them private"),
    );
    assert_eq!(figure(&json, "memory in use"), (cache + private) * 4096);
    assert_eq!(figure(&json, "fetched while they worked"), cache);
    json
}

#[test]
fn clones_of_the_kernels_own_image_share_what_they_do_not_change() {
    xtask(&["qemu", "--timeout", "120", "clone"]).expect(
        Status::Success,
        &[
            "pages of 8 clones verified",
            "memory saved",
            "in the cache: CONTINUE",
            "from nothing to a clone",
            "report: ",
        ],
    );
}

#[test]
fn clones_that_only_read_take_the_memory_of_one() {
    let json = succeeds(&["qemu"], &["--writes", "0"]);
    assert_eq!(figure(&json, "pages of the cache"), PAGES as u64);
    assert_eq!(figure(&json, "saved"), 75);
}

#[test]
fn pages_that_no_clone_touches_are_fetched_by_none() {
    let json = succeeds(
        &["qemu"],
        &["--touch", "5", "--writes", "0", "--order", "sequential"],
    );
    assert_eq!(figure(&json, "pages of the cache"), 5);
    assert_eq!(figure(&json, "pages that the clones have"), 20);
}

#[test]
fn every_order_and_source_clones() {
    let dir = tempfile::tempdir().unwrap();
    let order = dir.path().join("order");
    std::fs::write(&order, "63 0 17 # a few\n0\n").unwrap();
    for order in ["sequential", "reverse", order.to_str().unwrap()] {
        succeeds(&["qemu"], &["--order", order, "--writes", "100"]);
    }
    succeeds(&["qemu"], &["--source", "ramdisk", "--seed", "9"]);
}

#[test]
fn two_counted_runs_of_clones_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &["--source", "ramdisk"])["report"].clone();
    assert_eq!(run(), run());
}

#[test]
fn the_bios_image_clones() {
    succeeds(&["qemu", "--bios"], &[]);
}

#[test]
fn the_uefi_image_clones() {
    succeeds(&["qemu", "--uefi"], &[]);
}

#[test]
fn bochs_clones_from_its_ramdisk() {
    succeeds(&["bochs"], &[]);
}

#[test]
fn a_page_that_changes_under_the_clones_is_found_by_all_that_share_it() {
    let (_dir, file) = random_file(PAGES * 4096, 21);
    let found = [
        "clone 0: page 17: digest",
        "clone 1: page 17: digest",
        "expected ",
    ];
    clone(
        &["qemu"],
        &[
            "--snapshot",
            &file,
            "--clones",
            "2",
            "--writes",
            "0",
            "--spoil",
            "17",
        ],
    )
    .expect(Status::Failed, &found);
}

#[test]
fn bytes_that_are_not_those_of_the_digests_are_found() {
    let (dir, file) = random_file(PAGES * 4096, 22);
    let mut other = noise(PAGES * 4096, 22);
    other[9 * 4096] ^= 1;
    let path = dir.path().join("other");
    std::fs::write(&path, &other).unwrap();
    let args = ["--snapshot", &file, "--digests-from", path.to_str().unwrap()];
    clone(&["qemu"], &args).expect(Status::Failed, &["clone 0: page 9: digest"]);
}

#[test]
fn a_killed_monitor_fails_the_next_touch_of_its_clone_by_page() {
    let (_dir, file) = random_file(PAGES * 4096, 23);
    clone(
        &["qemu"],
        &[
            "--snapshot",
            &file,
            "--order",
            "sequential",
            "--kill-monitor-after",
            "3",
        ],
    )
    .expect(
        Status::Failed,
        &[
            "clone 0: the monitor was killed",
            "clone 0: page 3 could not be reached",
        ],
    );
}

#[test]
fn an_unreadable_sector_ends_the_clone_that_needs_it() {
    let (_dir, file) = random_file(PAGES * 4096, 24);
    // Sector 164 lies in page 20: 164 * 512 / 4096.
    clone(&["qemu"], &["--snapshot", &file, "--inject-error", "164"]).expect(
        Status::Failed,
        &["page 20 of the snapshot", "page 20 could not be reached"],
    );
}

#[test]
fn numbers_and_files_that_make_no_sense_are_refused_with_the_option() {
    let (_dir, file) = random_file(PAGES * 4096, 25);
    for (args, words) in [
        (&["--clones", "0"][..], &["--clones", "1..=256"][..]),
        (&["--clones", "257"], &["--clones", "1..=256"]),
        (&["--writes", "-1"], &["invalid value '-1'"]),
        (&["--touch", "65"], &["--touch 65", "64 pages"]),
        (&["--order", "sequentail"], &["sequentail", "sequential, random"]),
        (
            &["--clones", "256", "--writes", "10000000", "--mem", "64"],
            &["64.3 MiB", "64 MiB", "--mem 98"],
        ),
        // The kernel alone knows the pages of a snapshot that it reads.
        (&["--spoil", "64"], &["spoil=64", "0 to 63"]),
    ] {
        let mut all = vec!["--snapshot", &file];
        all.extend(args);
        clone(&["qemu"], &all).expect(Status::Usage, words);
    }
    clone(&["qemu"], &["--snapshot", "/nonexistent"]).expect(Status::Usage, &["no such file"]);
    clone(&["bochs"], &["--snapshot", &file, "--source", "virtio"])
        .expect(Status::Usage, &["bochs", "--source ramdisk"]);
}
