//! `snapshot`: live snapshots that succeed on every machine; and those that must be found wrong, refused or ended.

use serde_json::Value;
use xtask::status::Status;

use crate::{Said, figure, reported, xtask};

fn snapshot(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["snapshot"], args)
}

/// A snapshot of 256 pages that succeeds: all of them are verified.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let mut all = vec!["--pages", "256"];
    all.extend(args);
    let json = snapshot(machine, &all).expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "verified"), 256, "every page is verified");
    assert!(figure(&json, "changed since arming") > 0);
    json
}

#[test]
fn the_image_is_the_region_at_arming_although_the_writer_goes_on() {
    let said = xtask(&["qemu", "--timeout", "120", "snapshot"]).expect(
        Status::Success,
        &[
            "store to next instruction",
            "page not saved yet",
            "time to arm",
            "report: ",
        ],
    );
    assert!(
        said.all()
            .contains("2048 pages saved as they were at arming and verified")
    );
}

#[test]
fn every_order_and_every_pace_gives_a_consistent_image() {
    let dir = tempfile::tempdir().unwrap();
    let order = dir.path().join("order");
    std::fs::write(&order, "255 0 17 # a few\n255\n").unwrap();
    for order in ["sequential", "random", "reverse", order.to_str().unwrap()] {
        let json = succeeds(&["qemu"], &["--order", order, "--burst", "3", "--batch", "2"]);
        let saved = figure(&json, "saved on a fault") + figure(&json, "saved by the sweep");
        assert_eq!(saved, 256, "{order}: each page is saved once");
    }
}

#[test]
fn pages_that_nobody_has_touched_are_protected_and_saved_as_zeros() {
    let said = snapshot(&["qemu"], &["--populate", "0", "--order", "reverse"]);
    let json = said.expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "never touched before"), 1024);
}

#[test]
fn two_counted_snapshots_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &[])["report"].clone();
    let first = run();
    assert_eq!(first, run());
    assert_eq!(first["tables"][0]["unit"], "instructions");
}

#[test]
fn the_bios_image_takes_a_snapshot() {
    succeeds(&["qemu", "--bios"], &[]);
}

#[test]
fn the_uefi_image_takes_a_snapshot() {
    succeeds(&["qemu", "--uefi"], &[]);
}

#[test]
fn bochs_takes_a_snapshot() {
    succeeds(&["bochs"], &[]);
}

#[test]
fn a_page_that_is_saved_too_late_is_found_in_the_image() {
    snapshot(&["qemu"], &["--late-save", "5", "--order", "sequential"]).expect(
        Status::Failed,
        &[
            "the image is not the region as it was at arming: page 1028: digest ",
            "expected ",
        ],
    );
}

#[test]
fn a_killed_monitor_fails_the_next_store_to_a_protected_page_by_name() {
    snapshot(&["qemu"], &["--kill-monitor-after", "3", "--order", "sequential"]).expect(
        Status::Failed,
        &["the monitor was killed", "page 1027 could not be written"],
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (&["--pages", "0"][..], &["--pages", "1.."][..]),
        (&["--pages", "-1"], &["invalid value '-1'"]),
        (&["--burst", "0"], &["--burst", "1.."]),
        (&["--batch", "0"], &["--batch", "1.."]),
        (&["--late-save", "0"], &["--late-save", "1.."]),
        (&["--pages", "8", "--populate", "9"], &["--populate 9", "8 pages"]),
        (&["--snapshot", "x"], &["--snapshot"]),
    ] {
        snapshot(&["qemu"], args).expect(Status::Usage, words);
    }
}

#[test]
fn a_region_that_memory_cannot_hold_twice_is_refused_with_both_figures_and_the_option() {
    snapshot(&["qemu"], &["--pages", "70000"]).expect(Status::Usage, &["546.9 MiB", "512 MiB", "--mem 588"]);
    // Only the kernel knows that its default is too much here.
    snapshot(&["qemu", "--mem", "16"], &[]).expect(Status::Failed, &["pages of memory", "--mem"]);
}

#[test]
fn the_kernel_refuses_what_only_it_can() {
    snapshot(&["qemu"], &["--populate", "2049"]).expect(Status::Usage, &["populate=2049", "0 to 2048"]);
    let dir = tempfile::tempdir().unwrap();
    let order = dir.path().join("order");
    std::fs::write(&order, "2048\n").unwrap();
    snapshot(&["qemu"], &["--order", order.to_str().unwrap()])
        .expect(Status::Usage, &["line 1", "page 2048", "2048 pages"]);
}
