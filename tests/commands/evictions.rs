//! `evict`: runs that succeed on every machine; and those that must be found wrong, refused or ended.

use serde_json::Value;
use xtask::status::Status;

use crate::{Said, figure, reported, xtask};

fn evict(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["evict"], args)
}

/// A run on 256 pages that succeeds: all of them are verified, and no more than 32 were in memory.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let mut all = vec!["--pages", "256", "--rounds", "3"];
    all.extend(args);
    let json = evict(machine, &all).expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "verified"), 256, "every page is verified");
    assert_eq!(figure(&json, "came as zeros"), 256, "a page is new once");
    let most = figure(&json, "most memory in use");
    assert!(most <= figure(&json, "budget"), "{most} pages were in memory");
    json
}

#[test]
fn a_region_is_worked_on_in_an_eighth_of_its_memory_and_nothing_is_lost() {
    xtask(&["qemu", "--timeout", "120", "evict"]).expect(
        Status::Success,
        &[
            "2048 pages verified after 8 rounds in the memory of 256",
            "resident",
            "staged: MOVE",
            "stored: COPY",
            "report: ",
        ],
    );
}

#[test]
fn pages_that_are_touched_while_they_are_staged_are_moved_back() {
    let json = succeeds(
        &["qemu", "--icount"],
        &["--budget", "128", "--staging", "64", "--batch", "1"],
    );
    let (staged, stored) = (
        figure(&json, "came from the staging area"),
        figure(&json, "came from the store"),
    );
    assert!(staged > 0 && stored > 0, "{staged} {stored}");
}

#[test]
fn the_smallest_budgets_and_many_workers_do_too() {
    succeeds(&["qemu"], &["--budget", "2", "--tasks", "1"]);
    succeeds(
        &["qemu"],
        &["--budget", "8", "--staging", "7", "--batch", "7", "--tasks", "16"],
    );
    succeeds(&["qemu"], &["--budget", "255", "--writes", "100"]);
}

#[test]
fn two_counted_evictions_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &[])["report"].clone();
    assert_eq!(run(), run());
}

#[test]
fn the_bios_image_evicts() {
    succeeds(&["qemu", "--bios"], &[]);
}

#[test]
fn the_uefi_image_evicts() {
    succeeds(&["qemu", "--uefi"], &[]);
}

#[test]
fn bochs_evicts() {
    succeeds(&["bochs"], &[]);
}

#[test]
fn a_write_that_is_lost_is_found_and_its_page_is_named() {
    evict(&["qemu"], &["--pages", "256", "--lose-write", "40"])
        .expect(Status::Failed, &["page ", "digest ", "expected "]);
}

#[test]
fn a_page_that_comes_without_room_is_found_by_the_frames_in_use() {
    evict(&["qemu"], &["--pages", "256", "--skip-room", "40"]).expect(
        Status::Failed,
        &["33 pages were in memory at once; the budget is 32"],
    );
}

#[test]
fn a_killed_pager_fails_whoever_waits_by_page() {
    evict(&["qemu"], &["--kill-monitor-after", "300"]).expect(
        Status::Failed,
        &["the pager was killed", "page ", "could not be reached"],
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (&["--pages", "2"][..], &["--pages", "3.."][..]),
        (&["--budget", "1"], &["--budget", "2.."]),
        (&["--rounds", "0"], &["--rounds", "1.."]),
        (&["--writes", "101"], &["--writes", "0..=100"]),
        (&["--tasks", "-1"], &["invalid value '-1'"]),
        (
            &["--pages", "8", "--budget", "8"],
            &["--budget 8", "less than --pages 8"],
        ),
        (
            &["--budget", "8", "--staging", "8"],
            &["--staging 8", "less than --budget 8"],
        ),
        (&["--staging", "4", "--batch", "5"], &["--batch 5", "--staging 4"]),
        (&["--pages", "120000"], &["527.3 MiB", "512 MiB", "--mem 568"]),
        // The kernel knows how many pages there are by default.
        (&["--budget", "2048"], &["budget=2048", "2 to 2047"]),
    ] {
        evict(&["qemu"], args).expect(Status::Usage, words);
    }
}
