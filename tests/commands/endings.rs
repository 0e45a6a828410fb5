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
fn a_hang_ends_by_the_time_limit() {
    xtask(&["qemu", "--timeout", "4", "hang"]).expect(Status::TimedOut, &["hung", "--timeout"]);
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
fn processes_with(needle: &str) -> usize {
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
