//! `guest-restore`: guests that are restored on every machine; and those that must be found wrong, refused or ended.

use serde_json::Value;
use xtask::status::Status;

use crate::guest_elf::{HELLO, LOOP, elf, file};
use crate::{Said, figure, reported, xtask};

/// Pages of the delegated memory in these tests.
const PAGES: u64 = 256;

fn restore(machine: &[&str], args: &[&str]) -> Said {
    reported(machine, &["guest-restore", "--delegated", "1M"], args)
}

/// A restore that succeeds: nothing was there when the guest went on, and all of its delegated memory is verified.
#[track_caller]
fn succeeds(machine: &[&str], args: &[&str]) -> Value {
    let json = restore(machine, args).expect(Status::Success, &[]).json();
    assert_eq!(figure(&json, "there when it went on"), 0);
    assert_eq!(figure(&json, "verified"), PAGES);
    let faults = figure(&json, "ordinary: missing faults to the monitor");
    assert_eq!(figure(&json, "ordinary: there in the end"), faults);
    json
}

/// The workload touches every page, and the owner serves each of them once.
#[track_caller]
fn served_by_the_owner(machine: &[&str]) {
    let json = succeeds(machine, &["--delivery", "exit"]);
    assert_eq!(figure(&json, "delegated: missing faults to the owner"), PAGES);
    assert_eq!(figure(&json, "delegated: filled by the owner"), PAGES);
    assert_eq!(figure(&json, "delegated: filled by the guest"), 0);
}

/// The workload touches every page, and the guest's own monitor serves each of them, but for those that it cannot be told of:
/// an interrupt of its own was on its way.
#[track_caller]
fn served_by_itself(machine: &[&str], args: &[&str]) {
    let json = succeeds(machine, args);
    let own = figure(&json, "delegated: filled by the guest");
    let owners = figure(&json, "delegated: filled by the owner");
    assert_eq!(own + owners, PAGES);
    assert!(
        own > owners,
        "{own} pages filled by the guest, {owners} by the owner"
    );
}

#[test]
fn a_guest_goes_on_with_nothing_there_and_ends_as_if_uninterrupted() {
    xtask(&["qemu", "--timeout", "120", "guest-restore"]).expect(
        Status::Success,
        &[
            "SVM with NPT: the restored guest ended as the uninterrupted one",
            "1024 delegated pages verified",
            "restored guest: result digest=",
            "report: ",
        ],
    );
}

#[test]
fn the_owner_serves_every_page_of_delegated_memory_by_write() {
    served_by_the_owner(&["qemu"]);
}

#[test]
fn the_guest_serves_its_own_pages_unless_it_is_told_otherwise() {
    served_by_itself(&["qemu"], &[]);
}

#[test]
fn the_guest_serves_its_own_pages_on_bochs() {
    served_by_itself(&["bochs"], &["--delivery", "inject"]);
}

#[test]
fn the_guest_serves_its_own_pages_told_by_the_cpu_without_an_exit() {
    let json = succeeds(&["bochs"], &["--delivery", "ve"]);
    let owners = figure(&json, "delegated: filled by the owner");
    assert_eq!(figure(&json, "delegated: filled by the guest") + owners, PAGES);
    // What is left exits: faults on ordinary memory, and what is touched while an interrupt is being delivered.
    assert!(owners < PAGES / 2, "{owners} pages filled by the owner");
    let ordinary = figure(&json, "ordinary: missing faults to the monitor");
    assert!(figure(&json, "stage-2 violations") < ordinary + PAGES);
}

#[test]
fn the_bios_image_restores_a_guest() {
    served_by_the_owner(&["qemu", "--bios"]);
}

#[test]
fn bochs_restores_a_guest_by_ept() {
    served_by_the_owner(&["bochs"]);
}

#[test]
fn two_counted_restores_are_identical_to_the_last_digit() {
    for delivery in ["inject", "exit"] {
        let run = || succeeds(&["qemu", "--icount"], &["--delivery", delivery])["report"].clone();
        assert_eq!(run(), run(), "{delivery}");
    }
}

#[test]
fn a_monitor_in_the_guest_that_does_its_job_badly_but_does_it_is_no_failure() {
    for manner in ["wrong", "twice"] {
        let workload = format!("workload monitor={manner}");
        succeeds(&["qemu"], &["--guest-cmdline", &workload]);
    }
}

#[test]
fn a_monitor_in_the_guest_that_dies_or_touches_what_it_serves_fails_the_guest_by_page() {
    for (manner, words) in [
        (
            "dies",
            &[
                "ended with status 1",
                "its monitor is gone and never served the fault",
            ],
        ),
        (
            "touches",
            &[
                "ended with status 5",
                "touched memory that it has to serve itself",
            ],
        ),
    ] {
        let workload = format!("workload monitor={manner}");
        restore(&["qemu"], &["--guest-cmdline", &workload]).expect(Status::Failed, words);
    }
}

#[test]
fn more_rounds_and_tasks_in_another_order_come_to_the_same() {
    let workload = "workload seed=7 tasks=5 rounds=3";
    succeeds(&["qemu"], &["--delivery", "exit", "--guest-cmdline", workload]);
}

#[test]
fn a_guest_that_makes_no_mark_is_saved_at_a_time() {
    let (_dir, guest) = file(&elf(HELLO));
    let json = succeeds(&["qemu"], &["--guest", &guest, "--mark-after", "1"]);
    assert_eq!(figure(&json, "lines printed"), 1);
    assert_eq!(figure(&json, "delegated: never touched"), PAGES);
}

#[test]
fn a_guest_that_ends_before_it_could_be_saved_is_refused_with_the_option_that_helps() {
    let (_dir, guest) = file(&elf(HELLO));
    restore(&["qemu"], &["--guest", &guest]).expect(
        Status::Failed,
        &["ended with status 0 and never made the hypercall", "--mark-after"],
    );
    restore(&["qemu"], &["--guest", &guest, "--mark-after", "1000000000000"])
        .expect(Status::Failed, &["before 1000000000000 ticks were over"]);
}

#[test]
fn a_guest_that_loops_is_ended_with_the_option_that_would_give_it_more() {
    let (_dir, guest) = file(&elf(LOOP));
    restore(&["qemu"], &["--guest", &guest, "--guest-deadline", "300"])
        .expect(Status::Failed, &["was not done after 300 ms", "--guest-deadline"]);
}

#[test]
fn a_guest_that_cannot_go_on_is_ended_with_its_reason() {
    for (command, words) in [
        ("triple-fault", &["the guest shut down (triple fault)", "rip"][..]),
        ("unbacked", &["the guest read guest-physical", "no slot is there"]),
        ("halt", &["no interrupt will wake it"]),
        (
            "leave status=9",
            &["ended with status 9 and never made the hypercall"],
        ),
    ] {
        restore(&["qemu"], &["--guest-cmdline", command]).expect(Status::Failed, words);
    }
}

#[test]
fn a_page_that_is_not_what_was_saved_is_found() {
    restore(&["qemu"], &["--delivery", "exit", "--corrupt-page", "17"]).expect(
        Status::Failed,
        &["delegated memory is not what it was without the interruption: page 17: digest"],
    );
    // The guest's own monitor cannot know, and the guest finds it out by itself.
    restore(&["qemu"], &["--corrupt-page", "17"])
        .expect(Status::Failed, &["page 17 is not what it was left as"]);
}

#[test]
fn a_page_that_was_never_filled_is_found() {
    restore(&["qemu"], &["--delivery", "exit", "--skip-page", "18"]).expect(
        Status::Failed,
        &["delegated memory is not what it was without the interruption: page 18: digest"],
    );
}

#[test]
fn a_guest_that_waits_for_a_page_while_another_is_resolved_is_found() {
    restore(&["qemu"], &["--delivery", "exit", "--wrong-page", "19"]).expect(
        Status::Failed,
        &["the guest waits for delegated page 19 again, which its owner has said to be resolved"],
    );
}

#[test]
fn an_injected_error_that_nothing_depends_on_is_no_success() {
    let (_dir, guest) = file(&elf(HELLO));
    let args = [
        "--guest",
        &guest,
        "--mark-after",
        "1",
        "--delivery",
        "exit",
        "--skip-page",
        "3",
    ];
    restore(&["qemu"], &args).expect(
        Status::Failed,
        &["delegated page 3 was left out and nothing came of it"],
    );
}

#[test]
fn a_killed_monitor_ends_the_guest_at_its_next_missing_page() {
    restore(&["qemu"], &["--kill-monitor-after", "20"]).expect(
        Status::Failed,
        &[
            "the monitor of ordinary memory was killed",
            "its monitor is gone and never served the fault",
        ],
    );
}

#[test]
fn a_machine_without_virtualisation_is_told_from_a_failure() {
    restore(&["qemu", "--cpu", "EPYC,-svm"], &[])
        .expect(Status::Unsupported, &["neither SVM with NPT nor VMX with EPT"]);
    restore(&["qemu", "--cpu", "EPYC,-npt"], &[])
        .expect(Status::Unsupported, &["SVM with NPT", "nested paging"]);
    restore(&["qemu"], &["--delivery", "ve"]).expect(Status::Unsupported, &["#VE", "SVM with NPT", "inject"]);
}

#[test]
fn files_that_are_no_guests_are_refused_by_name() {
    let mut small = elf(HELLO);
    small[4] = 1;
    let whole = elf(HELLO);
    for (bytes, words) in [
        (&b"#!/bin/sh\n"[..], "the guest is no ELF file"),
        (&small, "32-bit ELF"),
        (&whole[..100], "ends before its program headers do"),
        (&whole[..130], "is cut off"),
    ] {
        let (_dir, guest) = file(bytes);
        restore(&["qemu"], &["--guest", &guest]).expect(Status::Usage, &[words]);
    }
    restore(&["qemu"], &["--guest", "/nonexistent"]).expect(Status::Usage, &["no such regular file"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_the_option() {
    for (args, words) in [
        (
            &["--guest-mem", "2G"][..],
            &["--guest-mem", "the most is 1 GiB"][..],
        ),
        (&["--guest-mem", "400"], &["802 MiB", "--mem"]),
        (&["--mark-after", "0"], &["--mark-after", "1.."]),
        (&["--delivery", "post"], &["inject", "ve", "exit"]),
        // The kernel alone knows how many pages there are.
        (&["--corrupt-page", "256"], &["corrupt-page=256", "0 to 255"]),
        (
            &["--delivery", "exit", "--skip-page", "1", "--wrong-page", "2"],
            &["only one page"],
        ),
        (
            &["--delivery", "inject", "--skip-page", "1"],
            &["skip-page=1", "delivery=exit"],
        ),
    ] {
        restore(&["qemu"], args).expect(Status::Usage, words);
    }
    restore(&["qemu"], &["--guest-mem", "64K"]).expect(Status::Usage, &["does not fit into 64 KiB"]);
}
