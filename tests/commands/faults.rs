//! Faults in the middle of a restore: each ends it with an error that names what happened, and never with a hang or
//! with silent zeros.

use xtask::status::Status;

use crate::{Said, random_file, xtask};

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
