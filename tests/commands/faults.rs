//! Faults in the middle of a restore: each ends it with an error that names what happened, and never with a hang or
//! with silent zeros.

use xtask::status::Status;

use crate::{Said, figure, random_file, xtask};

fn restore(machine: &[&str], args: &[&str]) -> Said {
    let mut all = vec!["qemu", "--timeout", "120"];
    all.extend(machine);
    all.push("restore");
    all.extend(args);
    xtask(&all)
}

#[test]
fn an_unreadable_sector_ends_the_restore_and_its_page_is_named() {
    let (_dir, file) = random_file(64 * 4096, 4);
    // Sector 164 lies in page 20: 164 * 512 / 4096.
    restore(&[], &["--snapshot", &file, "--inject-error", "164"]).expect(Status::Failed, &["page 20"]);
}

#[test]
fn an_unreadable_sector_under_prefetch_is_named_too() {
    let (_dir, file) = random_file(64 * 4096, 4);
    restore(
        &[],
        &["--snapshot", &file, "--inject-error", "164", "--prefetch", "8"],
    )
    .expect(Status::Failed, &["page 20"]);
}

#[test]
fn a_killed_monitor_fails_the_next_missing_touch_by_page() {
    let (_dir, file) = random_file(64 * 4096, 5);
    restore(
        &[],
        &[
            "--snapshot",
            &file,
            "--order",
            "sequential",
            "--kill-monitor-after",
            "3",
        ],
    )
    .expect(Status::Failed, &["page 3", "monitor"]);
}

/// A restore of 64 pages in order whose monitor dies after three of them.
fn bereft(policy: &str) -> Said {
    let (_dir, file) = random_file(64 * 4096, 5);
    let args = [
        "--snapshot",
        &file,
        "--kill-monitor-after",
        "3",
        "--on-monitor-death",
        policy,
    ];
    restore(&[], &args)
}

#[test]
fn a_poisoned_page_names_itself_when_its_monitor_was_killed() {
    bereft("poison").expect(Status::Failed, &["page 3", "poisoned", "the monitor was killed"]);
}

#[test]
fn a_workload_is_ended_with_its_monitor_where_that_is_the_policy() {
    bereft("kill").expect(
        Status::Failed,
        &["ended without a result", "killed by its access to 0x"],
    );
}

#[test]
fn zeros_after_a_killed_monitor_are_found_by_the_digests() {
    bereft("zero").expect(
        Status::Failed,
        &["page 3: digest", "page 4: digest", "the monitor was killed"],
    );
}

#[test]
fn a_workload_that_hangs_with_its_monitor_is_told_as_a_deadlock_at_its_page() {
    bereft("hang").expect(
        Status::Failed,
        &[
            "deadlock",
            "(workload) waits at 0x",
            "policy hang",
            "its monitor has ended: attach another",
        ],
    );
}

#[test]
fn a_new_monitor_goes_on_where_the_killed_one_ended() {
    let (_dir, file) = random_file(64 * 4096, 5);
    let args = [
        "qemu",
        "--timeout",
        "120",
        "--json",
        "restore",
        "--snapshot",
        &file,
        "--kill-monitor-after",
        "3",
        "--on-monitor-death",
        "reattach",
    ];
    let json = xtask(&args)
        .expect(Status::Success, &["64 pages restored and verified"])
        .json();
    assert_eq!(figure(&json, "monitors"), 2);
    assert_eq!(figure(&json, "faults"), 64);
}

#[test]
fn a_policy_that_does_not_exist_is_refused_with_those_that_do() {
    restore(&[], &["--on-monitor-death", "shrug"]).expect(Status::Usage, &["shrug", "poison", "reattach"]);
}

#[test]
fn a_monitor_that_touches_its_own_region_gets_an_error_with_task_and_address() {
    let (_dir, file) = random_file(64 * 4096, 5);
    restore(&[], &["--snapshot", &file, "--monitor-touches-own-region"])
        .expect(Status::Failed, &["monitor", "0x"]);
}

#[test]
fn running_out_of_frames_in_the_middle_is_a_clear_end() {
    let (_dir, file) = random_file(96 << 20, 6);
    restore(&["--mem", "64"], &["--snapshot", &file, "--no-memory-check"])
        .expect(Status::Failed, &["memory"]);
}

#[test]
fn frames_that_run_out_one_by_one_are_a_clear_end_too() {
    let (_dir, file) = random_file(64 * 4096, 6);
    restore(&[], &["--snapshot", &file, "--fail-frames-after", "20"])
        .expect(Status::Failed, &["page ", "memory"]);
}
