//! `guest-snapshot`: snapshots of running guests on every machine; and those that must be found wrong, refused or ended.

use serde_json::Value;
use xtask::status::Status;

use crate::guest_elf::{HELLO, elf, file};
use crate::{Said, figure, reported, xtask};

/// Pages of both memories in these tests.
const PAGES: u64 = 4096 + 256;

fn snapshot(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["guest-snapshot", "--delegated", "1M"], args)
}

/// A snapshot that succeeds: every page was saved once, some because the guest stored to it.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let json = snapshot(machine, args).expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "verified"), PAGES);
    let (fault, sweep) = (
        figure(&json, "saved on a fault"),
        figure(&json, "saved by the sweep"),
    );
    assert_eq!(fault + sweep, PAGES, "each page is saved once");
    assert!(fault > 0);
    json
}

#[test]
fn the_image_of_a_running_guest_is_its_memory_at_arming_and_enough_to_go_on_from() {
    xtask(&["qemu", "--timeout", "120", "guest-snapshot"]).expect(
        Status::Success,
        &[
            "SVM with NPT: 5120 pages of the guest saved as they were at arming and verified",
            "restored guest: result digest=",
            "time to arm",
            "report: ",
        ],
    );
}

#[test]
fn a_snapshot_is_taken_in_the_middle_of_the_work() {
    succeeds(
        &["qemu"],
        &[
            "--after-mark",
            "20000000",
            "--guest-cmdline",
            "workload rounds=40 tasks=3",
        ],
    );
}

#[test]
fn two_counted_snapshots_of_a_guest_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &[])["report"].clone();
    assert_eq!(run(), run());
}

#[test]
fn the_bios_image_takes_a_snapshot_of_a_guest() {
    succeeds(&["qemu", "--bios"], &[]);
}

#[test]
fn bochs_takes_a_snapshot_of_a_guest() {
    succeeds(&["bochs"], &[]);
}

#[test]
fn a_page_that_is_saved_too_late_is_found_in_the_image() {
    snapshot(&["qemu"], &["--late-save", "60"]).expect(
        Status::Failed,
        &["the image is not the guest's memory as it was at arming: page "],
    );
}

#[test]
fn a_killed_monitor_ends_the_guest_at_its_next_store_to_a_page_that_is_not_saved() {
    snapshot(&["qemu"], &["--kill-monitor-after", "3"]).expect(
        Status::Failed,
        &[
            "the monitor was killed",
            "the guest wrote to guest-physical",
            "its monitor is gone",
        ],
    );
}

#[test]
fn what_the_cpu_itself_stores_to_the_guests_page_tables_is_saved_first_too() {
    let (_dir, guest) = file(&elf(HELLO));
    let json = succeeds(&["qemu"], &["--guest", &guest, "--mark-after", "1"]);
    // The guest's own instructions store nothing; the CPU notes accesses in its tables.
    assert!(figure(&json, "saved on a fault") <= 8);
    assert_eq!(figure(&json, "lines printed"), 1);
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (&["--batch", "0"][..], &["--batch", "1.."][..]),
        (&["--late-save", "0"], &["--late-save", "1.."]),
        (
            &["--after-mark", "1", "--mark-after", "1"],
            &["--after-mark", "--mark-after"],
        ),
        (&["--guest-mem", "300"], &["602 MiB", "--mem"]),
    ] {
        snapshot(&["qemu"], args).expect(Status::Usage, words);
    }
}
