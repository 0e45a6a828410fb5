//! `guest-clone`: clones of guests on every machine; and those that must be found wrong or refused.

use serde_json::Value;
use xtask::status::Status;

use crate::{Said, figure, reported, xtask};

fn clone(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["guest-clone", "--delegated", "1M"], args)
}

/// Clones that come to the end of the guest that they were saved from, in exactly the memory that this takes.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let json = clone(machine, args).expect(Status::Success, &[]).json();
    let (saved, private) = (
        figure(&json, "pages of what was saved"),
        figure(&json, "of them private"),
    );
    assert_eq!(figure(&json, "memory in use"), (saved + private) * 4096);
    let shared = figure(&json, "of them shared");
    assert_eq!(figure(&json, "pages that the clones have"), shared + private);
    json
}

#[test]
fn clones_of_a_guest_share_what_they_do_not_change() {
    let said = xtask(&["qemu", "--timeout", "120", "guest-clone"]);
    said.expect(
        Status::Success,
        &[
            "SVM with NPT: 4 clones ended as the guest that they were saved from",
            "clone 3: result digest=",
            "memory saved",
            "report: ",
        ],
    );
}

#[test]
fn clones_that_only_read_have_no_delegated_page_to_themselves() {
    let args = ["--clones", "3", "--guest-cmdline", "workload writes=0"];
    let json = succeeds(&["qemu"], &args);
    assert!(figure(&json, "of them shared") >= 3 * 256);
}

#[test]
fn clones_that_change_every_page_share_none_of_them() {
    let args = ["--clones", "3", "--guest-cmdline", "workload writes=100"];
    let json = succeeds(&["qemu"], &args);
    assert!(figure(&json, "of them private") >= 3 * 256);
}

#[test]
fn two_counted_runs_of_a_guests_clones_are_identical_to_the_last_digit() {
    let run = || succeeds(&["qemu", "--icount"], &[])["report"].clone();
    assert_eq!(run(), run());
}

#[test]
fn the_bios_image_clones_a_guest() {
    succeeds(&["qemu", "--bios"], &["--clones", "2"]);
}

#[test]
fn bochs_clones_a_guest() {
    succeeds(&["bochs"], &["--clones", "2"]);
}

#[test]
fn a_page_that_is_not_what_was_saved_is_found_by_every_clone() {
    clone(&["qemu"], &["--clones", "2", "--corrupt-page", "17"]).expect(
        Status::Failed,
        &[
            "clone 0: delegated memory in the end: page 17: digest",
            "clone 1: delegated memory in the end: page 17: digest",
        ],
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (&["--clones", "0"][..], &["--clones", "1..=64"][..]),
        (&["--clones", "65"], &["--clones", "1..=64"]),
        (&["--corrupt-page", "256"], &["corrupt-page=256", "0 to 255"]),
    ] {
        clone(&["qemu"], args).expect(Status::Usage, words);
    }
    clone(&["qemu", "--mem", "96"], &["--clones", "64"])
        .expect(Status::Failed, &["pages of memory", "--mem"]);
}
