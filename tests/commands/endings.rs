//! Every way a machine can end is told apart by the exit status.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use xtask::status::Status;

use crate::{Said, binary, command, xtask};

#[test]
fn a_panic_is_reported_with_names_and_lines() {
    let said = xtask(&["qemu", "--timeout", "60", "--json", "panic"])
        .expect(Status::Panic, &["kernel panic", ".rs:"]);
    assert!(!said.err.contains("was not closed"), "{}", said.err);
    let backtrace = said.json()["panic"]["backtrace"].to_string();
    assert!(
        backtrace.contains("boot/src/"),
        "a frame of the application is named: {backtrace}"
    );
}

#[test]
fn a_triple_fault_is_told_from_a_panic() {
    xtask(&["qemu", "--timeout", "60", "triple-fault"]).expect(Status::Died, &["triple fault"]);
}

#[test]
fn a_triple_fault_in_bochs_is_told_too() {
    xtask(&["bochs", "--timeout", "120", "triple-fault"]).expect(Status::Died, &["triple fault"]);
}

#[test]
fn a_hang_is_ended_by_the_kernel_shortly_before_the_time_limit() {
    let said = xtask(&["qemu", "--timeout", "16", "--json", "hang"]).expect(
        Status::Deadline,
        &["the time is over", "(init): can run", "no fault is outstanding"],
    );
    assert_eq!(said.json()["verdict"], "deadline");
}

#[test]
fn a_hang_that_hears_no_interrupt_is_ended_from_outside() {
    xtask(&["qemu", "--timeout", "6", "raw", "crash", "how=deaf"])
        .expect(Status::TimedOut, &["hung", "--timeout"]);
}

/// What is said of a task whose page is there and which nobody woke.
const LOST_WAKE: &[&str] = &[
    "(stuck) waits at 0x",
    "MISSING, load",
    "read by task",
    "its page is there, but nobody woke the task: wake the range",
];

#[test]
fn a_task_that_was_never_woken_is_named_when_the_time_is_over() {
    let said = xtask(&["qemu", "--timeout", "12", "--json", "raw", "crash", "how=stuck"])
        .expect(Status::Deadline, LOST_WAKE);
    let message = said.json()["message"].to_string();
    assert!(
        LOST_WAKE.iter().all(|words| message.contains(words)),
        "the verdict itself says so: {message}"
    );
}

#[test]
fn a_task_that_was_never_woken_is_named_while_the_run_goes_on() {
    let said = xtask(&[
        "qemu",
        "--timeout",
        "12",
        "--watch",
        "1",
        "raw",
        "crash",
        "how=stuck",
    ])
    .expect(Status::Deadline, LOST_WAKE);
    assert!(
        said.out.matches("outstanding faults:").count() > 2,
        "{}",
        said.out
    );
}

#[test]
fn a_panic_lists_who_waits_for_a_page() {
    xtask(&["qemu", "--timeout", "60", "raw", "crash", "how=stuckpanic"]).expect(Status::Panic, LOST_WAKE);
}

#[test]
fn a_deadlock_lists_who_waits_for_a_page_also_while_it_is_watched() {
    xtask(&[
        "qemu",
        "--timeout",
        "60",
        "--watch",
        "1",
        "raw",
        "crash",
        "how=stuckdeadlock",
    ])
    .expect(Status::Failed, LOST_WAKE)
    .expect(Status::Failed, &["deadlock: 2 tasks wait"]);
}

#[test]
fn a_hang_ends_by_the_silence_limit_too() {
    xtask(&["qemu", "--silence", "3", "hang"]).expect(Status::TimedOut, &["hung", "--silence"]);
}

#[test]
fn a_deadlock_is_told_from_a_hang_with_what_each_task_waits_for() {
    let words = [
        "deadlock: 2 tasks wait and nothing can wake them",
        "(init): waits for the end of task",
        "(sleeper): waits for a wake-up",
    ];
    xtask(&["qemu", "--timeout", "60", "raw", "crash", "how=deadlock"]).expect(Status::Failed, &words);
}

#[test]
fn sleeping_with_a_lock_held_is_a_panic_that_names_the_place() {
    xtask(&["qemu", "--timeout", "60", "raw", "crash", "how=sleeplocked"]).expect(
        Status::Panic,
        &[
            "a task would wait for a wake-up with preemption off 1 deep",
            "boot/src/crash.rs",
        ],
    );
}

#[test]
fn an_emulator_that_refuses_is_quoted() {
    xtask(&["qemu", "--cpu", "abacus", "cost"]).expect(Status::Host, &["refused", "abacus"]);
}

#[test]
fn a_debugger_is_waited_for_with_its_line_printed() {
    xtask(&["qemu", "--gdb", "--timeout", "3", "cost"]).expect(Status::TimedOut, &["gdb ", "target remote"]);
}

#[test]
fn a_kernel_that_does_not_compile_is_a_build_failure() {
    let target = tempfile::tempdir().unwrap();
    let output = command(&["qemu", "cost"])
        .env("CARGO_TARGET_DIR", target.path())
        .env("RUSTFLAGS", "--no-such-flag")
        .output()
        .unwrap();
    Said::from(output).expect(Status::Build, &["the kernel did not build"]);
}

/// Processes whose command line contains `needle`.
pub fn processes_with(needle: &str) -> usize {
    let dirs = fs::read_dir("/proc").into_iter().flatten().flatten();
    dirs.filter(|dir| {
        fs::read(dir.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(needle))
    })
    .count()
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_leaves_no_emulator_behind() {
    // The memory size marks this machine among those that other tests run.
    let (args, mark) = (["qemu", "--mem", "333", "hang"], "333M");
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    while processes_with(mark) == 0 {
        assert!(
            Instant::now() < deadline,
            "{} never started its emulator",
            binary().display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    Said::from(child.wait_with_output().unwrap()).expect(Status::Interrupted, &["interrupted"]);
    assert_eq!(processes_with(mark), 0);
}
