//! `track`: runs that succeed on every machine; and those that must be found wrong or are refused.

use serde_json::Value;
use xtask::status::Status;

use crate::{Said, figure, reported, xtask};

fn track(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["track"], args)
}

/// A run on 256 pages that succeeds: all of them are verified.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let mut all = vec!["--pages", "256", "--writes", "40"];
    all.extend(args);
    let json = track(machine, &all).expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "verified"), 256, "every page is verified");
    json
}

#[test]
fn every_page_that_was_written_is_reported_and_no_other() {
    xtask(&["qemu", "--timeout", "120", "track"]).expect(
        Status::Success,
        &[
            "8 rounds of known writes were found, and no others",
            "2048 pages followed live and verified",
            "store, page protected",
            "known writes (pages)",
            "live (pages)",
            "report: ",
        ],
    );
}

#[test]
fn pages_that_nobody_has_touched_are_tracked_too() {
    let json = succeeds(&["qemu"], &["--populate", "0"]);
    assert_eq!(figure(&json, "never touched before"), 256);
}

#[test]
fn a_report_with_room_for_one_run_takes_more_scans_and_finds_the_same() {
    let reported = |runs: &str| {
        let json = succeeds(&["qemu", "--icount"], &["--runs", runs]);
        (
            figure(&json, "reported after known stores"),
            figure(&json, "scans"),
        )
    };
    let (one, many) = (reported("1"), reported("65536"));
    assert_eq!(one.0, many.0);
    assert!(one.1 > many.1, "{one:?} {many:?}");
}

#[test]
fn two_counted_tracking_runs_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &[])["report"].clone();
    assert_eq!(run(), run());
}

#[test]
fn the_bios_image_tracks() {
    succeeds(&["qemu", "--bios"], &[]);
}

#[test]
fn the_uefi_image_tracks() {
    succeeds(&["qemu", "--uefi"], &[]);
}

#[test]
fn bochs_tracks() {
    succeeds(&["bochs"], &[]);
}

#[test]
fn pages_that_are_not_protected_again_are_found_by_the_next_round() {
    track(&["qemu"], &["--skip-protect", "2"]).expect(
        Status::Failed,
        &["round 3: page ", "is reported and was not written"],
    );
}

#[test]
fn writes_that_are_not_reported_are_found() {
    track(&["qemu"], &["--protect-early", "3"]).expect(
        Status::Failed,
        &["round 3: page ", "was written and is not reported"],
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (&["--pages", "0"][..], &["--pages", "1.."][..]),
        (&["--rounds", "1"], &["--rounds", "2..=64"]),
        (&["--writes", "-1"], &["invalid value '-1'"]),
        (&["--runs", "0"], &["--runs", "1..=65536"]),
        (
            &["--rounds", "4", "--skip-protect", "4"],
            &["--skip-protect 4", "a later round"],
        ),
        (&["--pages", "8", "--populate", "9"], &["--populate 9", "8 pages"]),
        (&["--pages", "70000"], &["546.9 MiB", "512 MiB", "--mem 588"]),
        // The kernel knows how many rounds there are by default.
        (&["--skip-protect", "8"], &["skip-protect=8", "1 to 7"]),
    ] {
        track(&["qemu"], args).expect(Status::Usage, words);
    }
}
